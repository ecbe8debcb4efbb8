"""`groupwise show`: every group and value, now and at the end, and the schedules over time, at any width."""

import re
from pathlib import Path

import pytest

from groupwise.cli.picture import BLOCKS
from tests.cli.commands import CONSTANT, MODELS, PLAN, command, run, written

WIDTHS = [40, 80, 100, 140, 240]


def shown(folder: Path, *arguments: str, plan: str = PLAN, model: str = "build", width: int = 140) -> str:
    result = run("show", written(folder, plan), "--model", f"{MODELS}:{model}", *arguments, width=width)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def line(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(start))


@pytest.mark.parametrize("model", ["build", "on_meta", "Tiny", "tiny", "Zoo.build"])
def test_a_model_comes_from_a_function_a_class_an_instance_or_a_dotted_name(tmp_path: Path, model: str) -> None:
    assert "8 groups, 10 tensors, 74 parameters" in shown(tmp_path, model=model)


def test_a_mapping_of_networks_is_shown_with_its_networks_apart(tmp_path: Path) -> None:
    rules = CONSTANT + '[[rule]]\nlabel = "slow"\nmatch = { network = "teacher" }\nlr = { scale = 0.01 }\n'
    text = shown(tmp_path, plan=rules, model="networks")
    assert "slow" in text
    assert "0.1 × 0.01" in text


def test_a_row_has_the_groups_name_algorithm_counts_values_clip_and_freezing(tmp_path: Path) -> None:
    text = shown(tmp_path, "--steps", "200")
    stem = line(text, "body/stem/depth0")
    assert re.search(r"\b1 +12 +AdamW +", stem)
    for cell in ("2.813e-6 → 0", "1e-3 × 0.1 × 0.75²", "0 → 0.1", "norm 0.5 (body)", "after 20 steps"):
        assert cell in stem
    assert "clip over everything, last: norm 1" in text


def test_values_start_where_the_first_update_finds_them_and_end_with_the_run(tmp_path: Path) -> None:
    base = line(shown(tmp_path, "--steps", "200"), "base ")
    assert "5e-5 → 0" in base, "a twentieth of the peak, the warmup being 20 steps"


def test_class_defaults_are_told_once_for_each_algorithm(tmp_path: Path) -> None:
    text = shown(tmp_path, "--steps", "200", width=240)
    assert "AdamW by default: betas (0.9, 0.999), eps 1e-8, amsgrad False" in text


def test_a_default_that_another_group_declares_stands_in_its_column(tmp_path: Path) -> None:
    rules = '[[rule]]\nmatch = "*"\noptimizer = "SGD"\nlr = 0.1\n[[rule]]\nmatch = "head.weight"\nmomentum = 0.9\n'
    text = shown(tmp_path, plan=rules)
    assert re.search(r"head.weight +1 +8 +SGD +0.1 +0.9 +yes", text)
    assert re.search(r"base +9 +66 +SGD +0.1 +0 \(default\) +yes", text)


def test_a_constant_plan_needs_no_length_and_has_no_picture(tmp_path: Path) -> None:
    text = shown(tmp_path, plan=CONSTANT)
    assert "Nothing is scheduled" in text
    assert "--steps" not in text
    assert not set(BLOCKS) & set(text)


def test_without_lengths_it_says_which_rule_needs_which_flag(tmp_path: Path) -> None:
    text = shown(tmp_path)
    assert "peak 1e-4 → ?" in text
    assert "give --steps N" in text
    assert "rule 1 'base': lr = cosine(1e-3, warmup=10%) needs --steps" in text
    assert "values: teacher = cosine(0.996, end=1) needs --steps" in text
    assert "rule 4" not in text, "steps need no length"


def test_a_plan_that_counts_in_epochs_asks_for_their_length(tmp_path: Path) -> None:
    plan = '[[rule]]\nmatch = "*"\noptimizer = "SGD"\nlr = { step_decay = 0.1, gamma = 0.1, every = "2 epochs" }\n'
    assert "needs --epoch-steps" in shown(tmp_path, "--steps", "100", plan=plan)
    partly = shown(tmp_path, "--epoch-steps", "10", plan=plan)
    assert "0.1 → ?" in partly
    assert "give --steps N" in partly
    assert "0.1 → 1e-6" in shown(tmp_path, "--steps", "100", "--epoch-steps", "10", plan=plan)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_line_is_wider_than_the_terminal(tmp_path: Path, width: int) -> None:
    lines = shown(tmp_path, "--steps", "1000", width=width).splitlines()
    body = [text for text in lines[1:] if not text.startswith("  rule")]
    assert max(map(len, body)) <= max(width, 60)


@pytest.mark.parametrize("width", WIDTHS)
def test_at_every_width_everything_is_there(tmp_path: Path, width: int) -> None:
    text = shown(tmp_path, "--steps", "1000", width=width)
    for word in ("AdamW", "weight_decay", "after 20", "0 → 0.1", "8 groups", "teacher", "start", "peak", "1,000 steps"):
        assert word in text


def test_the_picture_has_one_line_for_each_course_with_its_numbers(tmp_path: Path) -> None:
    text = shown(tmp_path, "--steps", "200", width=120)
    picture = text[text.index("\nlr ") :]
    assert re.search(rf"base, norms +[{BLOCKS}]+ +5e-5 +1e-3 +0\n", picture)
    assert re.search(rf"teacher +[{BLOCKS}]+ +0.996 +1 +1\n", picture)
    assert picture.index("\nlr ") < picture.index("\nweight_decay ") < picture.index("\nvalues ")


def test_groups_with_one_course_share_a_line_that_names_them(tmp_path: Path) -> None:
    text = shown(tmp_path, "--steps", "200", width=140)
    assert re.search(rf"base, norms +[{BLOCKS}]+ ", text[text.index("\nlr ") :])


def test_frozen_steps_are_dots(tmp_path: Path) -> None:
    text = shown(tmp_path, "--steps", "40", width=120)
    row = line(text[text.index("\nlr ") :], "body/stem")
    cells = re.search(rf"·+[{BLOCKS}]+", row)
    assert cells is not None
    assert abs(cells[0].count("·") / len(cells[0]) - 0.5) < 0.05


def test_rows_rise_through_the_warmup_and_fall_to_the_end(tmp_path: Path) -> None:
    row = line(shown(tmp_path, "--steps", "1000").split("\nlr ")[1], "base")
    heights = [BLOCKS.index(char) for char in row if char in BLOCKS]
    top = heights.index(max(heights))
    assert heights[:top] == sorted(heights[:top])
    assert heights[top:] == sorted(heights[top:], reverse=True)
    assert heights[-1] == 0


def test_piped_output_is_plain_text_of_a_fixed_width(tmp_path: Path) -> None:
    path = written(tmp_path)
    done = command("show", path, "--model", f"{MODELS}:build", "--steps", "1000", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines()[1:])) == 100


def test_an_encoding_without_blocks_gets_other_marks(tmp_path: Path) -> None:
    arguments = ("show", written(tmp_path), "--model", f"{MODELS}:build", "--steps", "1000")
    done = command(*arguments, cwd=tmp_path, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "1e-3 x 0.1 x 0.75^2" in done.stdout
    assert "@" in done.stdout
    assert "?" not in done.stdout


def test_a_label_cannot_command_the_terminal_nor_be_taken_for_markup(tmp_path: Path) -> None:
    plan = PLAN.replace('label = "norms"', r'label = "[bold]no\u001b[2Jrms\n:smile:"')
    text = shown(tmp_path, "--steps", "100", plan=plan)
    assert "\x1b" not in text
    assert "[bold]no�[2Jrms :smile:" in text


def test_a_model_whose_every_parameter_is_frozen_is_shown_as_it_is(tmp_path: Path) -> None:
    text = shown(tmp_path, plan=CONSTANT, model="frozen")
    assert "74 of them frozen" in text


def test_parameters_that_nobody_optimises_have_a_row_without_values(tmp_path: Path) -> None:
    rest = '[[rule]]\nlabel = "rest"\nmatch = ["stem", "blocks", "norm"]\ntrainable = false\n'
    text = shown(tmp_path, plan=CONSTANT.replace('"*"', '"head"') + rest)
    assert re.search(r"rest +8 +64 +– +– +– +no", text)
    assert "64 of them frozen" in text


def test_gradual_unfreezing_is_a_staircase(tmp_path: Path) -> None:
    plan = CONSTANT + '[[rule]]\nmatch = "blocks"\nlabel = "body"\ntrainable = { unfreeze_down = "25%" }\n'
    text = shown(tmp_path, "--steps", "100", plan=plan)
    assert line(text, "body/depth1").endswith("after 25%")
    assert re.search(r"body/depth1 +·{15,25}█{50,} +0.1 +0.1 +0.1", text)


def test_a_large_model_is_shown(tmp_path: Path) -> None:
    text = shown(tmp_path, "--steps", "1000", plan=PLAN, model="many")
    assert "100 groups, 9,988 tensors, 29,868 parameters" in text


def test_a_plateau_is_drawn_as_if_its_metric_always_improved(tmp_path: Path) -> None:
    plan = '[[rule]]\nmatch = "*"\noptimizer = "SGD"\nlr = { plateau = 0.1, warmup = "10 steps" }\n'
    assert "as if no plateau were met" in shown(tmp_path, "--steps", "100", plan=plan)


def test_what_cannot_be_meant_in_a_run_of_this_length_is_told_under_the_picture(tmp_path: Path) -> None:
    rules = '[[rule]]\nmatch = "*"\noptimizer = "SGD"\nlr = { cosine = 0.1, warmup = "300 steps" }\n'
    late = '[[rule]]\nmatch = "head"\ntrainable = { after = "400 steps" }\n'
    text = " ".join(shown(tmp_path, "--steps", "200", plan=rules + late).split())
    assert "note: the warmup of the lr of base, head takes 300 updates, and the run has total_steps=200" in text
    assert "note: head never trains: 'head' is unfrozen after 400 steps" in text
    assert "note:" not in shown(tmp_path, "--steps", "2000", plan=rules + late)
    assert "note:" not in shown(tmp_path, plan=rules + late)
