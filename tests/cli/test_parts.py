"""Parts of a parameter on the command line: in the table, in an explanation, in a difference."""

from pathlib import Path

from tests.cli.commands import CONSTANT, MODELS, run, written

PARTS = '[[parts]]\nmatch = "blocks.0.weight"\ninto = ["up", "down"]\n\n'
SLOW = '\n[[rule]]\nlabel = "slow"\nmatch = "*@up"\nlr = { scale = 0.5 }\n'
PLAN = f"{PARTS}{CONSTANT}{SLOW}"


def test_parts_stand_below_their_group_in_the_table(tmp_path: Path) -> None:
    shown = run("show", written(tmp_path, PLAN), "--model", f"{MODELS}:build").stdout.splitlines()
    place = next(i for i, line in enumerate(shown) if line.startswith("base "))
    assert shown[place + 1].startswith("  @up")
    assert "0.1 × 0.5" in shown[place + 1]
    assert shown[place + 2].startswith("  @down")


def test_a_part_is_explained_by_its_name_and_the_whole_lists_its_parts(tmp_path: Path) -> None:
    plan = written(tmp_path, PLAN)
    part = run("explain", plan, "blocks.0.weight@up", "--model", f"{MODELS}:build", width=120).stdout
    assert "part of blocks.0.weight: 0:" in part
    assert "slow" in part
    assert "also known as" not in part
    whole = run("explain", plan, "blocks.0.weight", "--model", f"{MODELS}:build", width=120).stdout
    assert "part blocks.0.weight@up" in whole
    assert "lr × 0.5 of the group's" in whole
    assert "slow" not in whole.split("momentum", maxsplit=1)[0].split("lr =")[1]


def test_a_part_that_is_none_is_answered_with_the_nearest(tmp_path: Path) -> None:
    done = run("explain", written(tmp_path, PLAN), "blocks.0.weight@upp", "--model", f"{MODELS}:build", width=200)
    assert done.exit_code == 2
    assert "blocks.0.weight@up" in done.stderr


def test_a_difference_names_the_part(tmp_path: Path) -> None:
    before, after = tmp_path / "before.toml", tmp_path / "after.toml"
    before.write_text(PLAN)
    after.write_text(PLAN.replace("0.5", "0.25"))
    done = run("diff", before, after, "--model", f"{MODELS}:build", width=120).stdout
    assert "lr of @up  × 0.5 → × 0.25" in done


def test_parts_that_do_not_fit_are_an_error_of_the_file(tmp_path: Path) -> None:
    plan = PLAN.replace('into = ["up", "down"]', 'into = ["up", "down"]\nsizes = [1, 1]')
    done = run("show", written(tmp_path, plan), "--model", f"{MODELS}:build", width=200)
    assert done.exit_code == 2
    assert "the sizes 1 + 1 make 2" in done.stderr
