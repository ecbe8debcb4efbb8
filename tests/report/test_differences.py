"""What differs between runs: the resolved plan, the data, the course; equal runs differ by nothing."""

import random
from pathlib import Path

import pytest

from groupwise.records import Group, Header, Step
from groupwise.report import build, describe, differences, rendered
from groupwise.report.document import Report
from tests.report.runs import run_of

TABLE = """group  algorithm  lr     trains
─────  ─────────  ─────  ──────
a      AdamW      {lr:<5}  yes
─────  ─────────  ─────  ──────
1 group"""


def run(folder: Path, lr: float = 0.01, first: float = 2.0, end: float = 0.1, steps: int = 50) -> Path:
    header = Header(groups=(Group("a", "AdamW", 1, 10),), table=TABLE.format(lr=lr), total_steps=steps)
    lines = [
        Step(i, values={"a": {"lr": lr}}, scalars={"loss": first + (end - first) * i / (steps - 1)})
        for i in range(steps)
    ]
    run_of(folder, lines, header)
    return folder / "run"


def told(report: Report) -> str:
    return " ".join(f"{sentence.head}. {sentence.text}" for sentence in differences(report))


def test_equal_runs_and_a_single_one_differ_by_nothing(tmp_path: Path) -> None:
    one, two = run(tmp_path / "a"), run(tmp_path / "b")
    assert differences(describe([one, two])) == ()
    assert differences(describe(one)) == ()
    assert "took the same course" in rendered(describe([one, two]), "html")


def test_a_setting_of_the_plan_is_told_with_both_values(tmp_path: Path) -> None:
    text = told(describe([run(tmp_path / "a"), run(tmp_path / "b", lr=0.1)]))
    assert "'a' has lr 0.1, not 0.01" in text
    assert "“lr”, 'a': was 0.1, not 0.01" in text


def test_other_data_another_length_and_another_end_are_told(tmp_path: Path) -> None:
    text = told(describe([run(tmp_path / "a"), run(tmp_path / "b", first=2.5, end=1.0, steps=40)]))
    assert "steps: 0 to 39 of 40, not 0 to 49 of 50" in text
    assert "'loss' begins at 2.5, not 2" in text
    assert "ended at 1.06, not 0.178" in text


def test_a_page_that_was_written_is_compared_as_a_run_is(tmp_path: Path) -> None:
    one, two = run(tmp_path / "a"), run(tmp_path / "b", lr=0.1)
    page = build(one, tmp_path / "one.html")
    assert [s.text for s in differences(describe([page, two]))] == [s.text for s in differences(describe([one, two]))]


def test_the_words_on_what_differs_come_first(tmp_path: Path) -> None:
    report = describe([run(tmp_path / "a"), run(tmp_path / "b", lr=0.1)])
    for form in ("html", "md"):
        text = rendered(report, form)
        assert text.index("What differs") < text.index("nothing stands out")


def noisy(folder: Path, seed: int, end: float, clip: str = "norm 1") -> Path:
    chance = random.Random(seed)
    header = Header(groups=(Group("a", "AdamW", 1, 10),), table=f"{TABLE.format(lr=0.1)}\nclip over everything: {clip}")
    lines = [Step(i, scalars={"loss": end + chance.gauss(0, 0.1)}) for i in range(100)]
    run_of(folder, lines, header)
    return folder / "run"


def test_runs_that_differ_by_noise_end_alike_in_99_of_100_pairs(tmp_path: Path) -> None:
    apart = 0
    for seed in range(100):
        pair = [noisy(tmp_path / f"{seed} {i}", 2 * seed + i, 1.0) for i in range(2)]
        heads = [sentence.head for sentence in differences(describe(pair)) if sentence.rule == "differs-end"]
        assert len(heads) == 1
        apart += " than " in heads[0]
    assert apart <= 4


@pytest.mark.parametrize(("end", "how"), [(0.5, "lower than"), (2.0, "higher than"), (1.0, "as ")])
def test_what_another_clip_made_of_the_end_is_told(tmp_path: Path, end: float, how: str) -> None:
    text = told(describe([noisy(tmp_path / "a", 0, 1.0), noisy(tmp_path / "b", 1, end, "norm 0.1")]))
    assert "it says “clip over everything: norm 0.1”, not “clip over everything: norm 1”" in text
    assert f"ended {how}" in text


def test_a_clip_that_only_one_plan_has_is_told(tmp_path: Path) -> None:
    with_clip, without = noisy(tmp_path / "a", 0, 1.0), run(tmp_path / "b", lr=0.1)
    assert "it lacks “clip over everything: norm 1”" in told(describe([with_clip, without]))
    assert "it says “clip over everything: norm 1”" in told(describe([without, with_clip]))
