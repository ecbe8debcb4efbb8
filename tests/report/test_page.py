"""The page as a document: whole, labelled, offline, and every name of a run a text in it."""

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from groupwise.report import Report, describe, rendered
from groupwise.report.document import Heat, Lines
from tests.report.runs import HOSTILE

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Tree(HTMLParser):
    """The elements of a page with their attributes, and its texts; what is not nested is noted."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(report: Report) -> str:
    return rendered(report, "html")


@pytest.fixture(scope="module")
def tree(page: str) -> Tree:
    return Tree(page)


@pytest.fixture(scope="module")
def traps(hostile: Path) -> Tree:
    return Tree(rendered(describe(hostile), "html"))


@pytest.mark.parametrize("which", ["tree", "traps"])
def test_every_element_is_closed_where_it_was_opened(request: pytest.FixtureRequest, which: str) -> None:
    tree: Tree = request.getfixturevalue(which)
    assert not tree.wrong
    assert not tree.open


def test_nothing_is_loaded_from_elsewhere(tree: Tree) -> None:
    links = [a.get("src", "") + a.get("href", "") for _, a in tree.elements]
    assert {link for link in links if link and not link.startswith("#")} == {"data:,"}
    policy = next(a["content"] for a in tree.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_plotly_is_in_it_once(page: str) -> None:
    assert page.count("* plotly.js v") == 1


def test_every_link_leads_to_an_element(tree: Tree) -> None:
    ids = [a["id"] for _, a in tree.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in tree.all("a")} <= set(ids)


def test_it_has_landmarks_a_skip_link_and_a_language(tree: Tree) -> None:
    assert tree.all("html")[0]["lang"] == "en"
    assert len(tree.all("main")) == len(tree.all("nav")) == len(tree.all("h1")) == 1
    assert tree.all("a")[0] == {"class": "skip", "href": "#verdict"}
    assert all("aria-labelledby" in section for section in tree.all("section"))
    assert "aria-label" in tree.all("nav")[0]


def test_headings_skip_no_level(tree: Tree) -> None:
    levels = [int(name[1]) for name, _ in tree.elements if re.fullmatch(r"h[1-6]", name)]
    assert all(below <= above + 1 for above, below in itertools.pairwise(levels))


def test_every_plot_has_a_spoken_name_and_a_table(tree: Tree, report: Report) -> None:
    plots = [f for panel in report.runs[0].panels for f in panel.figures if isinstance(f, Lines | Heat)]
    canvases = [a for a in tree.all("div") if a.get("class") == "canvas"]
    folded = sum(a.get("class") == "fold" for a in tree.all("details"))
    assert len(canvases) == len(plots) == len(tree.all("details")) - folded
    assert all(a["role"] == "img" and a["aria-label"] for a in canvases)
    assert len(tree.all("caption")) == len(tree.all("table"))
    assert all("scope" in a for a in tree.all("th"))


def test_a_region_that_scrolls_can_be_reached_by_keyboard(tree: Tree) -> None:
    scrolling = [a for a in tree.all("div") if a.get("class") == "scroll"] + tree.all("pre")
    assert scrolling
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in scrolling)


def test_a_name_is_text_whatever_it_holds(traps: Tree) -> None:
    assert len(traps.all("script")) == 4
    assert not traps.all("img")
    assert not traps.all("b") or all(not a for a in traps.all("b"))
    assert not [a for _, a in traps.elements if any(key.startswith("on") for key in a)]
    shown = "\n".join(traps.texts)
    assert "(no name)" in shown
    assert all(char.isprintable() or char == "\n" for char in shown), "not even the order of the letters is turned"
    for name in HOSTILE:
        if name.strip() and name.isprintable():
            assert name in shown


def test_a_panel_that_is_not_drawn_says_why(tree: Tree) -> None:
    assert any("The records hold no " in text for text in tree.texts)
    assert "observer.micro_batch(samples)" in tree.texts


def test_every_sentence_of_the_verdict_stands_in_the_page(tree: Tree, report: Report) -> None:
    shown = "".join(tree.texts)
    for sentence in report.runs[0].verdict:
        assert sentence.head in shown
        assert sentence.text in shown
