"""The gallery says what is so: every example runs, its plan is the one that was compared, its README has its parts."""

import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch

from examples.__main__ import NAMES
from examples.__main__ import main as run_examples
from examples.comparing import BEGIN, END, Contestant, Outcome, compare, paired, rewrite, score_table, search_table
from groupwise import Plan
from groupwise.optim import resolve
from tests.docs.pages import DOCS, ROOT, anchors_of, links_of

EXAMPLES = ROOT / "examples"
every_example = pytest.mark.parametrize("name", [name for name in NAMES if name != "everywhere"])
"""Those that compare plans; `everywhere` compares trainers under one (test_everywhere.py)."""


@pytest.fixture(autouse=True)
def _threads() -> object:
    """Examples compute on one thread; other tests get theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@every_example
def test_an_example_trains_by_its_plan_and_writes_a_report(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import_module(f"examples.{name}.train").main(["--steps", "20", "--out", str(tmp_path / "run")])
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert "report.html" in capsys.readouterr().out


@every_example
def test_a_comparison_writes_its_tables_and_its_picture(name: str, tmp_path: Path) -> None:
    readme = Path(shutil.copy(EXAMPLES / name / "README.md", tmp_path))
    comparison = import_module(f"examples.{name}.compare")
    short = ["--seeds", "1", "--search-seeds", "1", "--candidates", "1", "--steps", "3", "--write"]
    comparison.main(short, readme=readme)
    written = readme.read_text(encoding="utf-8")
    for contestant in comparison.contestants():
        assert written.count(f"| {contestant.name} |") == 2
    assert {picture.name for picture in tmp_path.glob("*.svg")} == {
        picture.name for picture in (EXAMPLES / name).glob("*.svg")
    }


@every_example
def test_the_readme_has_the_table_of_every_contestant(name: str) -> None:
    text = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    table = text.partition(BEGIN)[2].partition(END)[0]
    for contestant in import_module(f"examples.{name}.compare").contestants():
        assert table.count(f"| {contestant.name} |") == 2
    for heading in ("## When to use it, and when not", "## The table", "## The report, read aloud"):
        assert heading in text


@pytest.mark.parametrize("page", [EXAMPLES / "README.md", *sorted(EXAMPLES.glob("*/README.md"))], ids=str)
def test_every_link_of_an_example_leads_somewhere(page: Path) -> None:
    for link in links_of(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


def test_both_indices_name_every_example() -> None:
    for page, before in ((EXAMPLES / "README.md", ""), (DOCS / "gallery.md", "../examples/")):
        assert {f"{before}{name}/README.md" for name in NAMES} <= set(links_of(page))


def test_a_name_chooses_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[list[str]] = []
    for name in NAMES:
        monkeypatch.setattr(f"examples.{name}.compare.main", chosen.append)
    run_examples([NAMES[0], "--seeds", "2"])
    assert chosen == [["--seeds", "2"]]
    run_examples([])
    assert len(chosen) == 1 + len(NAMES)


def test_an_example_whose_data_are_missing_is_named_after_the_others_have_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[object] = []

    def without_data(_: object) -> None:
        raise SystemExit("install it")

    for name in NAMES:
        monkeypatch.setattr(f"examples.{name}.compare.main", without_data if name == NAMES[0] else ran.append)
    with pytest.raises(SystemExit, match=f"^{NAMES[0]}: install it$"):
        run_examples([])
    assert len(ran) == len(NAMES) - 1


def test_a_search_takes_the_best_rate_and_its_seeds_are_not_used_again() -> None:
    calls: list[tuple[float, int, bool]] = []

    def run(rate: float, seed: int, steps: int, validation: bool) -> dict[str, float]:
        calls.append((rate, seed, validation))
        return {"score": 10 - (rate - 2) ** 2 + (seed % 10) * 0.1}

    outcome = compare([Contestant("a", (1.0, 2.0, 3.0), run)], seeds=2, steps=5)["a"]
    assert outcome.rate == 2.0
    assert outcome.first == pytest.approx([10.0, 10.1])
    searched = {seed for _, seed, validation in calls if validation}
    assert searched.isdisjoint(seed for _, seed, validation in calls if not validation)
    assert len(calls) == 3 * 2 + 2


def test_a_difference_is_taken_seed_by_seed() -> None:
    """By hand: differences 1, 2, 3 have the mean 2 and the standard error 1/√3; t(0.975, 2) is 4.30."""
    assert paired([11.0, 22.0, 33.0], [10.0, 20.0, 30.0]) == "+2.0 ± 2.5, better in 3 of 3"
    assert paired([9.0], [10.0]) == "-1.0, better in 0 of 1"


def test_of_a_loss_the_lower_is_better() -> None:
    assert paired([1.25, 2.5], [1.5, 2.5], 2, lower=True) == "-0.12 ± 1.59, better in 1 of 2"
    outcome = compare(
        [Contestant("a", (1.0, 2.0, 3.0), lambda rate, *_: {"loss": (rate - 2) ** 2})], seeds=2, steps=5, lower=True
    )["a"]
    assert outcome.rate == 2.0
    assert search_table({"a": outcome}, 2) == "| rate | 1 | 2 | 3 |\n|---|---|---|---|\n| a | 1.00 | 0.00 | 1.00 |"


def test_contestants_with_other_candidates_get_a_table_of_their_own() -> None:
    outcomes = {
        "a": Outcome({0.1: 50.0, 0.2: 60.0}, 0.2, [{"score": 61.0}, {"score": 63.0}], 1.0, 0.5),
        "b": Outcome({1.0: 40.0, 2.0: 30.0}, 1.0, [{"score": 41.0}, {"score": 45.0}], 1.0, 0.5),
    }
    assert search_table(outcomes) == (
        "| rate | 0.1 | 0.2 |\n|---|---|---|\n| a | 50 | 60 |\n\n| rate | 1 | 2 |\n|---|---|---|\n| b | 40 | 30 |"
    )
    first, second = score_table(outcomes, ["score %"]).splitlines()[2:]
    assert first == "| a | 0.2 | 62.0 ± 1.4 |  | 1 s, 0.5 s |"
    assert second == "| b | 1 | 43.0 ± 2.8 | -19.0 ± 12.7, better in 0 of 2 | 1 s, 0.5 s |"


def test_a_table_is_rewritten_between_its_markers_alone(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    rewrite(page, "| new \\1 |")
    assert page.read_text(encoding="utf-8") == f"before\n{BEGIN}\n\n| new \\1 |\n\n{END}\nafter\n"
    page.write_text("no markers\n", encoding="utf-8")
    with pytest.raises(ValueError, match="one pair of the markers"):
        rewrite(page, "new")


@every_example
def test_a_plan_file_resolves_without_a_rule_in_vain(name: str) -> None:
    program = import_module(f"examples.{name}.train")
    model = program.networks(seed=0)
    several = dict(model.items()) if isinstance(model, torch.nn.ModuleDict) else model
    resolution = resolve(several, Plan.load(EXAMPLES / name / "plan.toml"))
    assert {group.name for group in resolution.groups}
