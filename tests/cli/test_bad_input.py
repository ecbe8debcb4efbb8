"""Whatever a plan file holds: one message that names the file and the place, status 2, no traceback, and no torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import MODELS, command, run, written
from tests.house.tree import ROOT

RULE = '[[rule]]\nmatch = "*"\noptimizer = "SGD"\nlr = 0.1\n'
ZOO: dict[str, tuple[str | bytes, str]] = {
    "nothing at all": ("", "the plan is empty"),
    "a comment": ("# rules to come\n", "the plan is empty"),
    "binary": (bytes(range(256)), "not UTF-8 text"),
    "an image": (b"\x89PNG\r\n\x1a\n\0\0\0", "not UTF-8 text"),
    "UTF-16": ('[[rule]]\nmatch = "*"'.encode("utf-16"), "not UTF-8 text"),
    "null bytes": ("\0" * 10, "not valid TOML"),
    "prose": ("Dear optimizer,\nplease be kind.", "not valid TOML"),
    "JSON under another name": ('{"rule": []}', "not valid TOML"),
    "a key said twice": (RULE + "lr = 0.2\n", "not valid TOML"),
    "one rule in single brackets": (RULE.replace("[[rule]]", "[rule]"), "double brackets"),
    "no rules": ("clip = { norm = 1.0 }\n", "no list of rules"),
    "rules that are numbers": ("rule = [1, 2]\n", "rule 1 must be a table"),
    "an unknown table": (RULE + "[schedule]\nlr = 1\n", "unknown table 'schedule'"),
    "a rule without match": (RULE.replace('match = "*"\n', ""), "rule 1: it has no match"),
    "a match that is a number": (RULE.replace('"*"', "3"), "rule 1"),
    "an empty match": (RULE.replace('"*"', '""'), "rule 1"),
    "an unknown selector": (RULE.replace('"*"', '{ rolle = "norm" }'), "rolle"),
    "an unknown role": (RULE.replace('"*"', '{ role = "nrom" }'), "norm"),
    "a bad regex": (RULE.replace('"*"', '{ regex = "(" }'), "rule 1"),
    "a label that is a list": (RULE + "label = [1]\n", "label"),
    "a hostile label": (RULE + 'label = "\\u001b[2J\\n"\ntrainable = 3\n', "trainable"),
    "an optimizer that is a number": (RULE.replace('"SGD"', "3"), "optimizer must be text"),
    "an optimizer that is a command": (RULE.replace("SGD", "os:system"), "'os:system' would import 'os'"),
    "an optimizer that is code": (RULE.replace("SGD", "__import__('os').system('true')"), "optimizer"),
    "an optimizer that is a path": (RULE.replace("SGD", "../../evil:Evil"), "evil"),
    "an optimizer without a class": (RULE.replace("SGD", "torch.optim:"), "optimizer"),
    "a length without a unit": (
        RULE.replace("0.1", "{ cosine = 0.1, warmup = 100 }"),
        "a bare number is never a length",
    ),
    "an unknown unit": (RULE.replace("0.1", '{ cosine = 0.1, warmup = "5 parsecs" }'), "parsecs"),
    "an unknown schedule": (RULE.replace("0.1", "{ cosin = 0.1 }"), "cosin"),
    "two schedules at once": (RULE.replace("0.1", "{ cosine = 0.1, linear = 0.1 }"), "rule 1"),
    "a schedule of text": (RULE.replace("0.1", '{ cosine = "much" }'), "much"),
    "an infinite rate": (RULE.replace("0.1", "inf"), "rule 1"),
    "a rate that is no number": (RULE.replace("0.1", "nan"), "rule 1"),
    "a negative scale": (RULE.replace("0.1", "{ scale = -1.0 }"), "scale"),
    "a decay above one": (RULE.replace("0.1", "{ layer_decay = 1.5 }"), "layer_decay"),
    "a date": (RULE.replace("0.1", "2020-01-01"), "rule 1"),
    "a clip of nothing": (RULE + "clip = { norm = 0.0 }\n", "positive"),
    "an unknown clip": (RULE + "clip = { nrom = 1.0 }\n", "norm"),
    "a clip that is true": (RULE + "clip = true\n", "clip"),
    "trainable text": (RULE + 'trainable = "later"\n', "later"),
    "values that are numbers": (RULE + "[values]\nteacher = 0.9\n", "values.teacher"),
    "weights that are text": (RULE + '[balance]\nweights = { left = "much" }\n', "weights.left"),
    "deep lists": ("rule = " + "[" * 5000 + "]" * 5000, "nested"),
    "deep tables": (RULE + "lr2 = " + "{ a = " * 60 + "1" + " }" * 60, ""),
    "deep schedules": (RULE.replace("0.1", "{ scaled = " * 39 + "{ cosine = 0.1 }" + ", by = 1.0 }" * 39), ""),
    "a long integer": (RULE.replace("0.1", "9" * 5000), ""),
    "a huge exponent": (RULE.replace("0.1", "1e999"), ""),
    "an empty key": (RULE + '"" = 1\n', ""),
    "a key with a newline": (RULE + '"a\\nb" = 1\n', "not the name of a hyperparameter"),
}
FITTING = {
    "an unknown optimizer": (RULE.replace("SGD", "AdamV"), "AdamW"),
    "an unknown hyperparameter": (RULE + "momentun = 0.9\n", "momentum"),
    "a negative rate": (RULE.replace("0.1", "-0.1"), "rule"),
    "a rule that matches nothing": (RULE + '[[rule]]\nmatch = "encoder"\nlr = 0.2\n', "'encoder' matches no parameter"),
    "a rule that is overridden": (RULE + RULE.replace("0.1", "0.2"), "rule 1 'base' has no effect"),
    "a rate that nobody declares": (RULE.replace("lr = 0.1\n", ""), "no declared lr"),
    "an optimizer for true matrices only": (RULE.replace("SGD", "Muon"), "Muon"),
    "an optimizer that wants a closure": (RULE.replace("SGD", "LBFGS"), "LBFGS"),
    "an abstract optimizer": (RULE.replace("SGD", "Optimizer"), "Optimizer"),
    "parameters that nobody owns": (RULE.replace('"*"', '"head"'), "have no optimizer"),
}  # fmt: skip


def one_message(stderr: str) -> None:
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr
    assert "mistake in groupwise" not in stderr
    assert "\x1b" not in stderr


@pytest.mark.parametrize("command", ["show", "explain"])
@pytest.mark.parametrize("animal", ZOO)
def test_a_malformed_plan_is_one_message_with_file_and_place(tmp_path: Path, animal: str, command: str) -> None:
    content, words = ZOO[animal]
    path = tmp_path / "plan.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run(command, path, *(["head.weight"] if command == "explain" else []), "--model", f"{MODELS}:build")
    assert result.exit_code == 2
    assert not result.stdout
    one_message(result.stderr)
    assert f"{path}: " in result.stderr
    assert words in result.stderr


@pytest.mark.parametrize("animal", FITTING)
def test_a_plan_that_does_not_fit_is_one_message_with_the_file(tmp_path: Path, animal: str) -> None:
    content, words = FITTING[animal]
    result = run("show", written(tmp_path, content), "--model", f"{MODELS}:build")
    assert result.exit_code == 2
    assert not result.stdout
    one_message(result.stderr)
    assert "plan.toml: " in result.stderr
    assert words in result.stderr


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("plan.json", "{", "not valid JSON"),
        ("plan.json", "[1]", "a plan is a table"),
        ("plan.json", '{"rule": NaN}', "no list of rules"),
        ("plan.json", "[" * 100_000, "nested"),
        ("plan.yaml", "rule: [", "not valid YAML"),
        ("plan.yaml", "rule: !!python/object/apply:os.system [true]", "not valid YAML"),
        ("plan.yaml", "1: 2", "every key must be text"),
        ("plan.yaml", "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]", "unknown table"),
        ("plan.txt", RULE, "suffix"),
        ("plan", RULE, "suffix"),
    ],
)
def test_the_other_formats_fail_alike(tmp_path: Path, name: str, text: str, words: str) -> None:
    result = run("show", written(tmp_path, text, name), "--model", f"{MODELS}:build")
    assert result.exit_code == 2
    one_message(result.stderr)
    assert f"{name}: " in result.stderr
    assert words in result.stderr


def test_a_file_that_is_not_there_is_one_message(tmp_path: Path) -> None:
    result = run("show", tmp_path / "plan.toml", "--model", f"{MODELS}:build")
    assert result.exit_code == 2
    one_message(result.stderr)
    assert "plan.toml: cannot read the file: No such file or directory" in result.stderr


def test_a_directory_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").mkdir()
    result = run("show", tmp_path / "plan.toml", "--model", f"{MODELS}:build")
    assert result.exit_code == 2
    one_message(result.stderr)
    assert "plan.toml: cannot read the file: Is a directory" in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
def test_an_unreadable_file_is_one_message(tmp_path: Path) -> None:
    written(tmp_path).chmod(0)
    result = run("show", tmp_path / "plan.toml", "--model", f"{MODELS}:build")
    assert result.exit_code == 2
    one_message(result.stderr)


def test_a_plan_whose_file_is_broken_never_loads_torch(tmp_path: Path) -> None:
    paths = []
    for i, (content, _) in enumerate(ZOO.values()):
        paths.append(tmp_path / f"{i}.toml")
        paths[-1].write_bytes(content if isinstance(content, bytes) else content.encode())
    code = """
import json, sys
from groupwise.cli.app import app
statuses = []
for path in sys.argv[1:]:
    try:
        app(["show", path, "--model", "nowhere:at_all", "--plot", "picture.png"])
    except SystemExit as leaving:
        statuses.append(leaving.code)
heavy = [name for name in ("torch", "numpy", "matplotlib", "plotly") if name in sys.modules]
sys.stdout.write(json.dumps([statuses, heavy]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)],
        capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    statuses, heavy = json.loads(done.stdout)
    assert statuses == [2] * len(paths)
    assert heavy == []
    assert done.stderr.count("\n") == len(paths)


def test_a_person_at_a_shell_sees_the_same(tmp_path: Path) -> None:
    written(tmp_path, RULE.replace("SGD", "os:system"))
    done = command("show", "plan.toml", "--model", "nowhere:at_all", cwd=tmp_path)
    assert done.returncode == 2
    assert not done.stdout
    one_message(done.stderr)
    assert done.stderr.startswith("error: plan.toml: rule 1: optimizer 'os:system' would import 'os'")


def test_a_package_is_imported_only_when_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "house_made.py").write_text("from torch.optim import SGD\nclass Mine(SGD): ...\n", encoding="utf-8")
    plan = written(tmp_path, RULE.replace("SGD", "house_made:Mine"))
    arguments = ("show", plan, "--model", f"{MODELS}:build")
    refused = command(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert "--allow house_made" in refused.stderr
    assert not (tmp_path / "__pycache__").exists()
    allowed = command(*arguments, "--allow", "house_made", cwd=tmp_path)
    assert allowed.returncode == 0, allowed.stderr
    assert "house_made:Mine" in allowed.stdout
