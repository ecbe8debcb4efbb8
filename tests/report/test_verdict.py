"""The verdict: each rule speaks where its threshold is passed, is silent below it, and says the number."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from groupwise.records import Clip, Event, Group, Header, Run, Step
from groupwise.report import Report, Sentence
from groupwise.report.reading import Reading
from groupwise.report.verdict import RULES, summary, verdict
from tests.report.runs import run_of, said

Rule = Callable[[Reading], Iterable[Sentence]]
A, B = "a", "b"
LONG = range(0, 200, 10)


def test_the_sample_run_is_told_as_it_was_made(report: Report) -> None:
    heads = {(sentence.tone, sentence.head) for sentence in report.runs[0].verdict}
    assert {
        ("look", "'edges' did not clearly learn"),
        ("look", "'embed' did not move"),
        ("look", "'head.depth' moves fast"),
        ("look", "Task 'depth' owns 'stem', 'trunk.low', 'trunk.high' and 'norms'"),
        ("look", "depth × edges conflicted often"),
        ("look", "Task 'edges' was hurt"),
        ("look", "'head.edges' worked against the loss"),
        ("note", "'head.depth' lowered the loss most"),
        ("note", "Clipping normalised scope 'base'"),
        ("note", "1 update was skipped"),
        ("note", "The gradient of 'head.depth' turns back and forth"),
        ("fine", "Clipping guarded scope 'heads'"),
        ("fine", "Every value was finite"),
        ("fine", "'seg' and 'depth' learned"),
    } == {(tone, head) for tone, head in heads if not head.startswith("The loss fell")}
    assert report.runs[0].summary.endswith("; 7 things to look at.")


def test_every_sentence_names_a_panel_that_is_there_and_drawn(report: Report) -> None:
    drawn = {panel.key for panel in report.runs[0].panels if panel.figures}
    assert {sentence.panel for sentence in report.runs[0].verdict} <= drawn


def test_every_sentence_but_a_fact_of_the_program_says_a_number(report: Report) -> None:
    without = [s.rule for s in report.runs[0].verdict if not any(char.isdigit() for char in s.head + s.text)]
    assert without == ["still"]


def test_what_to_look_at_comes_first(report: Report) -> None:
    tones = [sentence.tone for sentence in report.runs[0].verdict]
    assert tones == sorted(tones, key=["look", "note", "fine"].index)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_is_silent_on_a_run_without_steps(tmp_path: Path, rule: Rule) -> None:
    reading = Reading(run_of(tmp_path, []))
    assert list(rule(reading)) == []
    assert summary(reading, ()) == "Nothing is recorded yet."


@pytest.mark.parametrize(
    ("end", "noise", "rule", "tone"),
    [(0.90, 0.0, "loss", "fine"), (0.97, 0.0, "loss", "look"), (1.2, 0.0, "loss", "look"), (0.9, 0.3, "loss", "look")],
)
def test_a_loss_falls_by_five_percent_and_more_than_its_noise(
    tmp_path: Path, end: float, noise: float, rule: str, tone: str
) -> None:
    values = [1 + (end - 1) * i / 99 + noise * (-1) ** i for i in range(100)]
    sentences = said(run_of(tmp_path, [Step(i, scalars={"loss": v}) for i, v in enumerate(values)]), rule)
    assert [sentence.tone for sentence in sentences] == [tone]


def test_few_records_have_no_course(tmp_path: Path) -> None:
    assert not said(run_of(tmp_path, [Step(i, scalars={"loss": 1.0 / (1 + i)}) for i in range(9)]), "loss")


def test_a_task_that_got_worse_is_named_with_its_ends(tmp_path: Path) -> None:
    run = run_of(tmp_path, [Step(i, tasks={A: {"loss": 1.0 + i}, B: {"loss": -1.0 - i}}) for i in range(100)])
    assert [s.head for s in said(run, "task-worse")] == ["'a' got worse"]
    assert [s.head for s in said(run, "task-learned")] == ["'b' learned"], "a loss below 0 falls, too"


def ratios(tmp_path: Path, **groups: float) -> Run:
    return run_of(tmp_path, [Step(i, groups={g: {"update_ratio": r} for g, r in groups.items()}) for i in LONG])


@pytest.mark.parametrize(
    ("ratio", "rule"), [(0.0, "still"), (9e-8, "still"), (1e-6, "slow"), (1e-3, "pace"), (9e-3, "pace"), (0.02, "fast")]
)
def test_the_update_ratio_sorts_groups_by_pace(tmp_path: Path, ratio: float, rule: str) -> None:
    run = ratios(tmp_path, a=ratio)
    assert [r for r in ("still", "slow", "pace", "fast") if said(run, r)] == [rule]


def test_a_short_stand_is_not_told(tmp_path: Path) -> None:
    assert not said(run_of(tmp_path, [Step(i, groups={A: {"update_ratio": 0.0}}) for i in range(50)]), "still")


@pytest.mark.parametrize(
    ("numbers", "lr", "words"),
    [
        ({"no_grad": 2}, 0.1, "No gradient ever reached them"),
        ({"grad_norm": 1.0, "no_grad": 1}, 0.0, "learning rate was 0"),
        ({"grad_norm": 0.0}, 0.1, "exactly 0 in every record"),
        ({"grad_norm": 1.0}, 0.1, "although there was a gradient"),
    ],
)
def test_a_group_that_stands_still_is_told_with_its_reason(
    tmp_path: Path, numbers: dict[str, float], lr: float, words: str
) -> None:
    lines = [Step(i, values={A: {"lr": lr}}, groups={A: {"update_ratio": 0.0, **numbers}}) for i in LONG]
    run = run_of(tmp_path, lines, Header(groups=(Group(A, "SGD", 2, 10),)))
    assert words in said(run, "still")[0].text


def test_a_freeze_that_ended_is_told_with_its_step(tmp_path: Path) -> None:
    lines = [Step(i, groups={A: {"update_ratio": 1e-3 * (i >= 100)}}) for i in LONG]
    assert [s.head for s in said(run_of(tmp_path, lines), "waited")] == ["'a' moved from step 100 on"]


def clipped(tmp_path: Path, acted: int) -> Run:
    clip = Clip("norm", 1.0, "base")
    header = Header(groups=(Group(A, "SGD", 1, 1, clip=clip), Group(B, "SGD", 1, 1, clip=clip)))
    factor = [0.5 if i < acted else 1.0 for i in range(2000)]
    lines = [Step(i, groups={g: {"clip_factor": f, "grad_norm": 3.0} for g in (A, B)}) for i, f in enumerate(factor)]
    return run_of(tmp_path, lines, header)


@pytest.mark.parametrize(
    ("acted", "rule"), [(0, "clip-seldom"), (1, "clip-seldom"), (2, "clip"), (1000, "clip"), (1001, "clip-often")]
)
def test_clipping_is_told_once_for_each_scope(tmp_path: Path, acted: int, rule: str) -> None:
    run = clipped(tmp_path, acted)
    told = {r: said(run, r) for r in ("clip-seldom", "clip", "clip-often")}
    assert {r: len(sentences) for r, sentences in told.items() if sentences} == {rule: 1}
    if rule != "clip":
        assert "lie below 4.24" in told[rule][0].text, "the norm of a scope is joint: sqrt(3² + 3²)"


def test_where_no_clip_is_known_and_none_ever_acted_nothing_is_said(tmp_path: Path) -> None:
    lines = [Step(i, groups={A: {"clip_factor": 1.0}}) for i in LONG]
    run = run_of(tmp_path, lines)
    assert not [s for rule in ("clip-seldom", "clip", "clip-often") for s in said(run, rule)]


def shared(tmp_path: Path, share: float, records: int = 3, reached: bool = True) -> Run:
    other = {A: 1 - share} if reached else {B: 1.0}
    return run_of(tmp_path, [Step(i, shares={"x": {A: share}, "y": other}) for i in range(records)])


def test_a_task_owns_a_group_that_others_reach_above_ninety_percent_in_three_records(tmp_path: Path) -> None:
    assert said(shared(tmp_path / "1", 0.95), "loud")
    assert not said(shared(tmp_path / "2", 0.89), "loud")
    assert not said(shared(tmp_path / "3", 0.95, records=2), "loud")
    assert not said(shared(tmp_path / "4", 1.0, reached=False), "loud")
    assert "89 %" in said(shared(tmp_path / "5", 0.89), "no-loud")[0].text


def test_a_loud_task_that_is_weighted_down_owns_nothing(tmp_path: Path) -> None:
    def weighted(folder: str, weight: float) -> Run:
        tasks = {"x": {"weight": weight}, "y": {"weight": 1.0}}
        return run_of(
            tmp_path / folder, [Step(i, shares={"x": {A: 0.95}, "y": {A: 0.05}}, tasks=tasks) for i in range(3)]
        )

    assert "95 %" in said(weighted("1", 1.0), "loud")[0].text
    assert "50 %" in said(weighted("2", 1 / 19), "no-loud")[0].text
    assert "task weights included" in said(weighted("3", 1.0), "loud")[0].text


@pytest.mark.parametrize(
    ("against", "rule", "tone"),
    [(0, "no-conflict", "fine"), (1, "conflict", "note"), (29, "conflict", "note"), (30, "conflict", "look")],
)
def test_conflicts_are_counted(tmp_path: Path, against: int, rule: str, tone: str) -> None:
    lines = [Step(i, cosines=[(A, B, -0.1 if i < against else 0.1)]) for i in range(100)]
    run = run_of(tmp_path, lines)
    assert [(s.rule, s.tone) for r in ("no-conflict", "conflict") for s in said(run, r)] == [(rule, tone)]


def test_a_task_is_hurt_from_a_tenth_of_the_records_on(tmp_path: Path) -> None:
    lines = [
        Step(i, cosines=[(A, B, 0.1)], hurt=((A,) if i < 10 else ()) + ((B,) if i < 9 else ())) for i in range(100)
    ]
    assert [s.head for s in said(run_of(tmp_path, lines), "hurt")] == ["Task 'a' was hurt"]


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_the_first_value_that_is_not_finite_is_told_with_its_step(tmp_path: Path, strange: float) -> None:
    lines = [Step(i, scalars={"loss": strange if i == 7 else 1.0}, groups={A: {"grad_norm": 1.0}}) for i in range(20)]
    assert "First in 'loss' at step 7." in said(run_of(tmp_path, lines), "nonfinite")[0].text


def test_entries_that_are_not_finite_are_told_with_their_group(tmp_path: Path) -> None:
    lines = [Step(i, groups={A: {"grad_norm": 1.0} | ({"nonfinite": 0.5} if i == 3 else {})}) for i in range(20)]
    assert "the gradient of 'a' at step 3" in said(run_of(tmp_path, lines), "nonfinite")[0].text


def test_skipped_updates_are_to_be_looked_at_from_a_twentieth_on(tmp_path: Path) -> None:
    for count, tone in ((5, "note"), (6, "look")):
        lines = [*(Step(i) for i in range(100)), *(Event(i, "skipped") for i in range(count))]
        assert [s.tone for s in said(run_of(tmp_path / str(count), lines), "skipped")] == [tone]


def test_a_spike_is_a_hundred_times_the_median_after_the_start(tmp_path: Path) -> None:
    for at, spike, told in ((50, 101.0, True), (50, 99.0, False), (3, 1e6, False)):
        lines = [Step(i, groups={A: {"grad_norm": spike if i == at else 1.0}}) for i in range(100)]
        assert bool(said(run_of(tmp_path / f"{at}-{spike}", lines), "spike")) is told


def test_tensors_without_a_gradient_are_counted(tmp_path: Path) -> None:
    lines = [Step(i, groups={A: {"no_grad": 2 + i % 2, "grad_norm": 1.0}}) for i in range(20)]
    run = run_of(tmp_path, lines, Header(groups=(Group(A, "SGD", 5, 10),)))
    assert said(run, "orphans")[0].text.startswith("2 of 5 in 'a'")


def test_a_run_that_was_stopped_is_told_one_that_ended_is_not(tmp_path: Path) -> None:
    header = Header(total_steps=100)
    stopped = run_of(tmp_path / "1", [Step(i) for i in range(50)], header)
    assert said(stopped, "unfinished")[0].head == "The records cover 50 % of 100 steps"
    assert not said(run_of(tmp_path / "2", [Step(i) for i in range(0, 100, 7)], header), "unfinished")
    assert not said(run_of(tmp_path / "3", [Step(0), Event(1, "finished")], header), "unfinished")


def test_the_noise_scale_is_said_in_samples(tmp_path: Path) -> None:
    run = run_of(tmp_path, [Step(i, scalars={"noise_scale": 512.0}) for i in range(20)])
    assert "512 samples" in said(run, "noise")[0].text


def test_no_sentence_of_a_loud_run_is_lost_in_a_quiet_summary(tmp_path: Path) -> None:
    run = run_of(tmp_path, [Step(i, scalars={"loss": 2.0 - i / 100}) for i in range(100)])
    reading = Reading(run)
    assert summary(reading, verdict(reading)) == "The loss fell from 1.98 to 1.06; nothing stands out."
    loud = dataclasses.replace(verdict(reading)[0], tone="look", rule="x")
    assert summary(reading, (loud, *verdict(reading))).endswith("one thing to look at.")


def test_a_run_with_too_few_losses_is_not_said_to_have_none(tmp_path: Path) -> None:
    told = run_of(tmp_path / "told", [Step(step, scalars={"loss": 1.0}) for step in range(5)])
    silent = run_of(tmp_path / "silent", [Step(step, scalars={"batch": 1.0}) for step in range(5)])
    few, none = (summary(Reading(run), verdict(Reading(run))) for run in (told, silent))
    assert few.startswith("5 records, too few losses to speak of a course")
    assert none.startswith("5 records, no loss among them")
