"""The verdict: each rule speaks where its threshold is passed, is silent below it, and says the number."""

import dataclasses
import math
import random
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
        ("look", "'head.depth' moves 0.0318 of its weights a step: too far"),
        ("look", "Task 'depth' owns 'stem', 'trunk.low', 'trunk.high' and 'norms' (96 %)"),
        ("look", "depth × edges conflicted often"),
        ("look", "Updates raised the loss of task 'edges' in 70 % of the records"),
        ("note", "'head.edges' worked against the loss"),
        ("note", "Clipping normalised scope 'base' (median factor 0.269)"),
        ("note", "1 update was skipped"),
        ("note", "The gradient of 'head.depth' turns back and forth (-0.498)"),
        ("fine", "'head.depth' lowered the loss most"),
        ("fine", "Clipping guarded scope 'heads'"),
        ("fine", "Every value was finite"),
        ("fine", "The loss of 'seg' and 'depth' fell"),
    } == {(tone, head) for tone, head in heads if not head.startswith("The loss fell")}
    assert report.runs[0].summary.startswith("The loss fell from ")
    assert report.runs[0].summary.endswith("Look first: 'embed' did not move (and 5 more to look at).")


def test_every_sentence_names_a_panel_that_is_there_and_drawn(report: Report) -> None:
    drawn = {panel.key for panel in report.runs[0].panels if panel.figures}
    assert {sentence.panel for sentence in report.runs[0].verdict} <= drawn


def test_every_sentence_but_a_fact_of_the_program_says_a_number(report: Report) -> None:
    without = [s.rule for s in report.runs[0].verdict if not any(char.isdigit() for char in s.head + s.text)]
    assert without == []


def test_what_to_look_at_comes_first(report: Report) -> None:
    tones = [sentence.tone for sentence in report.runs[0].verdict]
    assert tones == sorted(tones, key=["look", "note", "fine"].index)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_is_silent_on_a_run_without_steps(tmp_path: Path, rule: Rule) -> None:
    reading = Reading(run_of(tmp_path, []))
    assert list(rule(reading)) == []
    assert summary(reading, ()) == "Nothing is recorded yet."


@pytest.mark.parametrize(
    ("end", "noise", "tone"),
    [(0.9, 0.0, "fine"), (0.97, 0.0, "fine"), (1.2, 0.0, "look"), (1.01, 0.0, "note"), (0.98, 0.4, "note")],
)
def test_a_loss_falls_or_rises_by_more_than_its_noise(tmp_path: Path, end: float, noise: float, tone: str) -> None:
    values = [1 + (end - 1) * i / 99 + noise * (-1) ** i for i in range(100)]
    sentences = said(run_of(tmp_path, [Step(i, scalars={"loss": v}) for i, v in enumerate(values)]), "loss")
    assert [sentence.tone for sentence in sentences] == [tone]


def test_a_loss_that_stands_still_is_to_be_looked_at_once_a_change_would_have_shown(tmp_path: Path) -> None:
    for count, tone in ((20, "note"), (200, "look")):
        steps = [Step(i, scalars={"loss": 1 + 0.02 * math.sin(7.0 * i)}) for i in range(count)]
        assert [s.tone for s in said(run_of(tmp_path / str(count), steps), "loss")] == [tone]


def test_a_sum_whose_weights_move_may_rise_while_every_task_learns(tmp_path: Path) -> None:
    steps = [
        Step(i, scalars={"loss": 1 + i / 50}, tasks={A: {"loss": 2 - i / 100, "weight": 1 + i / 20}})
        for i in range(100)
    ]
    (sentence,) = said(run_of(tmp_path, steps), "loss")
    assert sentence.tone == "note"
    assert "no task's own loss rose" in sentence.text


def test_few_records_have_no_course(tmp_path: Path) -> None:
    assert not said(run_of(tmp_path, [Step(i, scalars={"loss": 1.0 / (1 + i)}) for i in range(9)]), "loss")


def test_a_task_that_got_worse_is_named_with_its_ends(tmp_path: Path) -> None:
    run = run_of(tmp_path, [Step(i, tasks={A: {"loss": 1.0 + i}, B: {"loss": -1.0 - i}}) for i in range(100)])
    assert [s.head for s in said(run, "task-worse")] == ["'a' got worse"]
    assert [s.head for s in said(run, "task-learned")] == ["The loss of 'b' fell"], "a loss below 0 falls, too"


@pytest.mark.parametrize(
    ("algorithm", "ratio", "learns", "tone"),
    [
        ("AdamW", 0.02, True, None), ("AdamW", 0.04, True, "note"), ("AdamW", 0.04, False, "look"),
        ("AdamW", 0.5, True, "look"), ("Muon", 0.04, False, None), ("Muon", 0.2, False, "look"),
        ("SGD", 0.04, True, "note"), ("Lion", 0.04, False, "look"), ("Mine", 0.1, False, None),
    ],
)  # fmt: skip
def test_a_step_is_too_far_for_its_algorithm_and_with_a_symptom(
    tmp_path: Path, algorithm: str, ratio: float, learns: bool, tone: str | None
) -> None:
    found = said(flat_run(tmp_path, ratio, algorithm, learns), "fast")
    assert [s.tone for s in found] == ([] if tone is None else [tone])


def flat_run(tmp_path: Path, ratio: float, algorithm: str, learns: bool) -> Run:
    header = Header(groups=(Group(A, algorithm, 1, 10),))
    losses = [1 - i / 200 if learns else 1 + 0.01 * (-1) ** i for i in range(100)]
    return run_of(
        tmp_path,
        [Step(i, groups={A: {"update_ratio": ratio}}, scalars={"loss": v}) for i, v in enumerate(losses)],
        header,
    )


@pytest.mark.parametrize(("ratio", "learns", "told"), [(9e-6, False, True), (9e-6, True, False), (2e-5, False, False)])
def test_steps_are_too_small_if_no_weight_can_have_changed_by_a_thousandth(
    tmp_path: Path, ratio: float, learns: bool, told: bool
) -> None:
    assert bool(said(flat_run(tmp_path, ratio, "SGD", learns), "slow")) is told


@pytest.mark.parametrize(("ratio", "told"), [(0.0, True), (9e-8, True), (1e-6, False)])
def test_what_hardly_rounds_to_a_step_did_not_move(tmp_path: Path, ratio: float, told: bool) -> None:
    assert bool(said(flat_run(tmp_path, ratio, "SGD", True), "still")) is told


def test_a_gradient_turns_back_only_if_fair_throws_would_not(tmp_path: Path) -> None:
    for count, told in ((6, False), (30, True)):
        steps = [Step(i, groups={A: {"gradient_cosine": -0.4}}) for i in range(count)]
        assert bool(said(run_of(tmp_path / str(count), steps), "turning")) is told
    mixed = [Step(i, groups={A: {"gradient_cosine": -0.4 if i % 2 else 0.3}}) for i in range(30)]
    assert not said(run_of(tmp_path / "mixed", mixed), "turning")


def test_a_short_stand_is_not_told(tmp_path: Path) -> None:
    assert not said(run_of(tmp_path, [Step(i, groups={A: {"update_ratio": 0.0}}) for i in range(15)]), "still")


def test_a_part_without_gradient_is_told_after_ten_records(tmp_path: Path) -> None:
    for count, told in ((9, False), (10, True)):
        header = Header(groups=(Group(A, "SGD", 2, 10),))
        lines = [Step(i, groups={A: {"no_grad": 2}}) for i in range(count)]
        assert bool(said(run_of(tmp_path / str(count), lines, header), "still")) is told


@pytest.mark.parametrize(
    ("numbers", "lr", "words"),
    [
        ({"no_grad": 2}, 0.1, "No gradient ever reached any parameter"),
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


def clipped(tmp_path: Path, acted: int, algorithm: str = "SGD", size: float = 2.0) -> Run:
    clip = Clip("norm", 1.0, "base")
    header = Header(groups=(Group(A, algorithm, 1, 1, clip=clip), Group(B, algorithm, 1, 1, clip=clip)))
    norms = [size if i < acted else 0.5 for i in range(2000)]
    lines = [
        Step(i, groups={g: {"clip_factor": min(1.0, 1 / (n * 2**0.5)), "grad_norm": n} for g in (A, B)})
        for i, n in enumerate(norms)
    ]
    return run_of(tmp_path, lines, header)


@pytest.mark.parametrize(
    ("acted", "rule"), [(0, "clip-seldom"), (1, "clip-seldom"), (2, "clip"), (1000, "clip"), (1001, "clip-often")]
)
def test_clipping_is_told_once_for_each_scope(tmp_path: Path, acted: int, rule: str) -> None:
    run = clipped(tmp_path, acted)
    told = {r: said(run, r) for r in ("clip-seldom", "clip", "clip-often")}
    assert {r: len(sentences) for r, sentences in told.items() if sentences} == {rule: 1}
    if acted < 2:
        assert "lie below 0.707" in told[rule][0].text, "the norm of a scope is joint: sqrt(0.5² + 0.5²)"


@pytest.mark.parametrize(
    ("algorithm", "tone"), [("SGD", "look"), ("AdamW", "note"), ("Muon", "note"), ("Lion", "note")]
)
def test_a_gradient_cut_to_a_tenth_matters_where_the_step_has_its_size(
    tmp_path: Path, algorithm: str, tone: str
) -> None:
    assert [s.tone for s in said(clipped(tmp_path, 2000, algorithm, 50.0), "clip-often")] == [tone]


def jointly(tmp_path: Path, loud: float, algorithm: str = "AdamW", eps: float = 1e-8) -> Run:
    clip = Clip("norm", 1.0, "base")
    header = Header(groups=(Group("calm", algorithm, 1, 100, clip=clip), Group("loud", algorithm, 1, 100, clip=clip)))
    factor = min(1.0, 1 / math.hypot(1.0, loud))
    numbers = {
        g: {"clip_factor": factor, "grad_norm": n, "update_ratio": 1e-6} for g, n in (("calm", 1.0), ("loud", loud))
    }
    return run_of(
        tmp_path, [Step(i, values={g: {"eps": eps} for g in numbers}, groups=numbers) for i in range(100)], header
    )


@pytest.mark.parametrize(
    ("loud", "algorithm", "eps", "told"),
    [
        (1e8, "AdamW", 1e-8, True), (1e6, "AdamW", 1e-8, False), (1e6, "AdamW", 1e-6, True), (1e8, "AdamW", 1e-12,
        False), (1e8, "SGD", 0.0, True), (50.0, "SGD", 0.0, False), (1e8, "Muon", 1e-7, True), (1e8, "Lion", 0.0,
    False), ],
)  # fmt: skip
def test_a_group_starves_when_the_clip_leaves_less_than_its_algorithm_can_use(
    tmp_path: Path, loud: float, algorithm: str, eps: float, told: bool
) -> None:
    found = said(jointly(tmp_path, loud, algorithm, eps), "starved")
    assert bool(found) is told
    if told:
        assert found[0].head.startswith("'loud' starves 'calm' through the clip (1e-")


def test_a_scope_that_is_clipped_by_network_is_several(tmp_path: Path) -> None:
    clip = Clip("norm", 1.0, "base")
    header = Header(groups=tuple(Group(n, "SGD", 1, 1, n, clip=clip) for n in (A, B)))
    lines = [
        Step(i, groups={A: {"clip_factor": 0.5, "grad_norm": 2.0}, B: {"clip_factor": 1.0, "grad_norm": 0.9}})
        for i in range(30)
    ]
    reading = Reading(run_of(tmp_path, lines, header))
    assert reading.scopes == {"base of a": [A], "base of b": [B]}
    assert [reading.norm(scope).values[0] for scope in reading.scopes] == [2.0, 0.9]


def test_a_clip_that_is_said_to_be_per_network_is_drawn_so_even_where_factors_agree(tmp_path: Path) -> None:
    clip = Clip("norm", 1.0, "base", per="network")
    header = Header(groups=tuple(Group(n, "SGD", 1, 1, n, clip=clip) for n in (A, B)))
    lines = [Step(i, groups={n: {"clip_factor": 1.0, "grad_norm": 0.1} for n in (A, B)}) for i in range(30)]
    assert Reading(run_of(tmp_path, lines, header)).scopes == {"base of a": [A], "base of b": [B]}


def test_what_the_header_says_is_frozen_is_told_as_frozen_and_is_no_fault(tmp_path: Path) -> None:
    lines = [
        Step(i, groups={A: {"no_grad": 2.0}, B: {"grad_norm": 1.0, "no_grad": 1.0, "update_ratio": 1e-3}})
        for i in range(60)
    ]
    header = Header(groups=(Group(A, "SGD", 2, 2, frozen=2), Group(B, "SGD", 3, 3, frozen=1)))
    run = run_of(tmp_path, lines, header)
    (still,), (orphans,) = said(run, "still"), said(run, "orphans")
    assert (still.tone, still.text) == ("note", "They are frozen: `requires_grad` is False (2 parameters).")
    assert orphans.text == "1 of 3 in 'b': they are frozen."


def test_a_scope_that_nothing_fits_is_clipped_by_parts_and_has_no_joint_norm(tmp_path: Path) -> None:
    header = Header(groups=(Group(A, "SGD", 2, 2, clip=Clip("norm", 1.0, "base")),))
    lines = [Step(i, groups={A: {"clip_factor": 0.9, "grad_norm": 3.0}}) for i in range(30)]
    reading = Reading(run_of(tmp_path, lines, header))
    assert not reading.is_joint("base")


def test_where_no_clip_is_known_and_none_ever_acted_nothing_is_said(tmp_path: Path) -> None:
    lines = [Step(i, groups={A: {"clip_factor": 1.0}}) for i in LONG]
    run = run_of(tmp_path, lines)
    assert not [s for rule in ("clip-seldom", "clip", "clip-often") for s in said(run, rule)]


def shared(tmp_path: Path, share: float, records: int = 3, reached: bool = True) -> Run:
    other = {A: 1 - share} if reached else {B: 1.0}
    return run_of(tmp_path, [Step(i, shares={"x": {A: share}, "y": other}) for i in range(records)])


def test_a_task_owns_a_group_that_others_reach_above_ninety_percent_in_three_records(tmp_path: Path) -> None:
    assert said(shared(tmp_path / "1", 0.95), "owner")
    assert not said(shared(tmp_path / "2", 0.89), "owner")
    assert not said(shared(tmp_path / "3", 0.95, records=2), "owner")
    assert not said(shared(tmp_path / "4", 1.0, reached=False), "owner")
    assert "79 %" in said(shared(tmp_path / "5", 0.79), "no-owner")[0].text
    assert not said(shared(tmp_path / "6", 0.89), "no-owner"), "neither owned nor free"


def test_one_record_below_does_not_end_ownership_and_no_green_sentence_stands_beside_99_percent(tmp_path: Path) -> None:
    parts = [0.99] * 7 + [0.89]
    run = run_of(tmp_path, [Step(i, shares={"x": {A: part}, "y": {A: 1 - part}}) for i, part in enumerate(parts)])
    assert [s.head for s in said(run, "owner")] == ["Task 'x' owns 'a' (99 %)"]
    assert not said(run, "no-owner")


def drowning(tmp_path: Path, small: float, weight: float = 1.0) -> Run:
    def tasks(i: int) -> dict[str, dict[str, float]]:
        return {
            "x": {"loss": 1.4 - small * i / 400, "weight": 1.0},
            "y": {"loss": 740 - 330 * i / 400, "weight": weight},
        }

    return run_of(tmp_path, [Step(i, tasks=tasks(i)) for i in range(400)])


def test_a_loss_that_is_nearly_the_whole_sum_drowns_one_that_hardly_falls(tmp_path: Path) -> None:
    assert [s.head for s in said(drowning(tmp_path / "1", 0.12), "drowned")] == [
        "Task 'y' drowns 'x' (>99 % of the sum)"
    ]
    assert not said(drowning(tmp_path / "2", 1.0), "drowned")
    assert not said(drowning(tmp_path / "3", 0.12, weight=0.002), "drowned"), "weighted, they are level"


def test_a_loud_task_that_is_weighted_down_owns_nothing(tmp_path: Path) -> None:
    def weighted(folder: str, weight: float) -> Run:
        tasks = {"x": {"weight": weight}, "y": {"weight": 1.0}}
        return run_of(
            tmp_path / folder, [Step(i, shares={"x": {A: 0.95}, "y": {A: 0.05}}, tasks=tasks) for i in range(3)]
        )

    assert "95 %" in said(weighted("1", 1.0), "owner")[0].text
    assert "50 %" in said(weighted("2", 1 / 19), "no-owner")[0].text
    assert "task weights included" in said(weighted("3", 1.0), "owner")[0].text


@pytest.mark.parametrize(
    ("cosine", "told"),
    [
        (lambda chance: chance.gauss(0.0, 0.03), None), (lambda chance: chance.gauss(0.0, 0.3), None),
        (lambda chance: chance.gauss(-0.3, 0.2), "look"), (lambda chance: chance.choice([0.4] * 4 + [-0.5]), "note"),
        (lambda chance: chance.uniform(0.01, 0.5), "fine"), (lambda chance: chance.gauss(-0.01, 0.005), None),
    ],
)  # fmt: skip
def test_a_conflict_is_more_than_unrelated_gradients_give(
    tmp_path: Path, cosine: Callable[[random.Random], float], told: str | None
) -> None:
    chance = random.Random(0)
    run = run_of(tmp_path, [Step(i, cosines=[(A, B, cosine(chance))]) for i in range(60)])
    assert [s.tone for rule in ("conflict", "no-conflict") for s in said(run, rule)] == ([] if told is None else [told])


def test_unrelated_tasks_are_silent_in_99_of_100_runs(tmp_path: Path) -> None:
    spoke = 0
    for seed in range(100):
        chance = random.Random(seed)
        steps = [
            Step(i, cosines=[(A, B, chance.gauss(0, 0.2))], conflicting=(A,) * (chance.random() < 0.5))
            for i in range(12)
        ]
        run = run_of(tmp_path / str(seed), steps)
        spoke += bool(said(run, "conflict") or said(run, "conflicting") or said(run, "no-conflict"))
    assert spoke <= 4


def test_a_task_is_hurt_in_more_than_half_of_the_records(tmp_path: Path) -> None:
    lines = [Step(i, cosines=[(A, B, 0.1)], conflicting=(A,) * (i < 70) + (B,) * (i < 55)) for i in range(100)]
    assert [s.head for s in said(run_of(tmp_path, lines), "conflicting")] == [
        "Updates raised the loss of task 'a' in 70 % of the records"
    ]


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


def test_a_norm_that_shrinks_over_the_run_has_no_spike(tmp_path: Path) -> None:
    run = run_of(tmp_path, [Step(i, groups={A: {"grad_norm": math.exp(-i / 10)}}) for i in range(200)])
    assert not said(run, "spike")


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


def test_the_summary_names_what_to_look_at_first_and_counts_every_tone(tmp_path: Path) -> None:
    run = run_of(tmp_path, [Step(i, scalars={"loss": 2.0 - i / 100}) for i in range(100)])
    reading = Reading(run)
    found = verdict(reading)
    assert summary(reading, found) == "The loss fell from 1.98 to 1.06; nothing stands out."
    look = dataclasses.replace(found[0], tone="look", rule="x", head="It burns")
    note = dataclasses.replace(look, tone="note")
    assert summary(reading, (look, *found)) == "The loss fell from 1.98 to 1.06. Look first: It burns."
    assert summary(reading, (look, look, *found)).endswith("Look first: It burns (and 1 more to look at).")
    assert summary(reading, (note, *found)).endswith("nothing needs a look, 1 thing is worth knowing.")


def test_a_run_with_too_few_losses_is_not_said_to_have_none(tmp_path: Path) -> None:
    told = run_of(tmp_path / "told", [Step(step, scalars={"loss": 1.0}) for step in range(5)])
    silent = run_of(tmp_path / "silent", [Step(step, scalars={"batch": 1.0}) for step in range(5)])
    few, none = (summary(Reading(run), verdict(Reading(run))) for run in (told, silent))
    assert few.startswith("5 records, too few losses for a course")
    assert none.startswith("5 records, no loss among them")


TABLE = """group  algorithm  lr             clip    trains
─────  ─────────  ─────────────  ──────  ──────
a      AdamW      {cell:<13}  -       yes
─────  ─────────  ─────────────  ──────  ──────
1 group"""


@pytest.mark.parametrize(
    ("cell", "used", "told"),
    [
        ("0.01", lambda i: 0.01, None), ("0.01", lambda i: 0.01 / (1 + i), "was not the plan's"),
        ("cosine(1e-2)", lambda i: 0.01 * (1 - i / 100), None), ("cosine(1e-2)", lambda i: 0.01, "never moved"),
        ("cosine(1e-2)", lambda i: 0.02 * (1 - i / 100), "was not the plan's"),
        ("cosine(1e-2)", lambda i: 1e-3 * (1 - i / 100), "was not the plan's"), ("one_cycle(1)", lambda i: 0.01, None),
    ],
)  # fmt: skip
def test_rates_are_held_against_the_table_of_the_plan(
    tmp_path: Path, cell: str, used: Callable[[int], float], told: str | None
) -> None:
    header = Header(groups=(Group(A, "AdamW", 1, 1),), table=TABLE.format(cell=cell), total_steps=100)
    run = run_of(tmp_path, [Step(i, values={A: {"lr": used(i)}}) for i in range(100)], header)
    assert [s.head for s in said(run, "rate-other")] == ([] if told is None else [f"The learning rate of 'a' {told}"])


def test_a_rate_that_was_planned_and_not_used_is_told_with_its_step(tmp_path: Path) -> None:
    values = [{"lr": 0.1, **({"lr_planned": 0.2} if i == 30 else {})} for i in range(60)]
    run = run_of(tmp_path, [Step(i, values={A: value}) for i, value in enumerate(values)])
    assert "At step 30 it was 0.1, not 0.2" in said(run, "rate-other")[0].text


def test_values_that_are_written_on_change_are_held_to_the_end(tmp_path: Path) -> None:
    changes = {0: 0.1, 50: 0.0}
    lines = [Step(i, values={A: {"lr": changes[i]}} if i in changes else {}) for i in range(100)]
    assert "from step 50 on" in said(run_of(tmp_path, lines), "rate-zero")[0].head


def test_a_warning_that_was_recorded_is_a_sentence(tmp_path: Path) -> None:
    run = run_of(tmp_path, [Step(0), Event(1, "warning", "The state was not loaded. 4 tensors begin anew.")])
    (sentence,) = said(run, "warning")
    assert (sentence.head, sentence.text) == ("The state was not loaded", "4 tensors begin anew. Recorded at step 1.")
