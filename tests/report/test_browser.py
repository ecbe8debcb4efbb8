"""The page in a real browser: it draws, fits a phone and a desk, asks for nothing, and can be read in both schemes."""

from pathlib import Path
from typing import Any

import pytest

from groupwise.report import describe, rendered
from tests.report.browser import needs_chromium, opened

pytestmark = needs_chromium

LOOK, USE, UNFOLD = "look", "use", "unfold"  # functions of probe.js


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory, first: Path, second: Path, many: Path, hostile: Path) -> Any:
    one, both, all_ = (rendered(describe(runs), "html") for runs in (first, [first, second], many))
    traps = rendered(describe(hostile), "html")
    pages = {"phone": (one, 390, LOOK), "desk": (one, 1440, LOOK), "both": (both, 390, LOOK), "many": (all_, 390, USE)}
    pages |= {"traps": (traps, 390, LOOK), "folded": (traps, 390, UNFOLD)}
    return opened(tmp_path_factory.mktemp("light"), pages)


@pytest.fixture(scope="module")
def dark(tmp_path_factory: pytest.TempPathFactory, first: Path, second: Path) -> Any:
    both = rendered(describe([first, second]), "html")
    return opened(tmp_path_factory.mktemp("dark"), {"both": (both, 1440, LOOK)}, dark=True)


LIGHT = ["phone", "desk", "both", "many", "traps"]


@pytest.mark.parametrize("page", LIGHT)
def test_it_draws_without_an_error_and_without_a_request(light: Any, page: str) -> None:
    assert light[page]["found"] == []
    assert light[page]["requests"] == []
    drawn, _, wanted = light[page]["drawn"].partition(" of ")
    assert drawn == wanted
    assert int(drawn) > 0


@pytest.mark.parametrize("page", LIGHT)
def test_nothing_is_wider_than_the_screen(light: Any, page: str) -> None:
    assert light[page]["overflow"] <= 0


@pytest.mark.parametrize("page", ["phone", "desk", "both", "traps"])
def test_every_plot_has_its_lines_inside_the_screen(light: Any, page: str) -> None:
    assert light[page]["said"]["plots"] > 0
    assert light[page]["said"]["empty"] == 0
    assert light[page]["said"]["wide"] == 0


def test_it_follows_the_scheme_of_the_person(light: Any, dark: Any) -> None:
    assert {page["theme"] for page in dark.values()} == {"dark"}
    assert {light[page]["theme"] for page in ("phone", "desk", "both")} == {"light"}


def test_every_text_has_the_contrast_of_a_readable_one_in_both_schemes(light: Any, dark: Any) -> None:
    assert [page["said"]["faint"] for page in (light["phone"], light["both"], *dark.values())] == [[]] * 3


def test_the_dark_page_draws_and_fits_as_well(dark: Any) -> None:
    for page in dark.values():
        assert page["found"] == page["requests"] == []
        assert page["overflow"] <= 0
        assert page["said"]["empty"] == 0


def test_the_scheme_can_be_turned(light: Any) -> None:
    said = light["many"]["said"]
    assert {said["theme"], said["turned"]} == {"light", "dark"}


def test_lines_are_shown_and_hidden_by_buttons_that_keep_the_focus(light: Any) -> None:
    said = light["many"]["said"]
    assert (said["before"], said["after"]) == (8, 200)
    assert said["focused"] == "0"
    assert said["pressed"] == "false"
    assert said["unreachable"] == 0


def test_what_is_folded_is_drawn_once_it_is_opened(light: Any) -> None:
    said = light["folded"]["said"]
    assert said["folds"] > 0
    assert said["before"] == 0
    assert said["after"] == said["hidden"] > 0
