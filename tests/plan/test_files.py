"""Plan files as people write them: what is read, and what is said about each mistake."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from groupwise import Plan, Rule, clip_adaptive, clip_norm, exact, layer_decay, scale, unfreeze_down, until
from groupwise.errors import PlanError
from groupwise.schedules import cosine, linear
from groupwise.select import depth, kind, role

HEAD = '[[rule]]\nmatch = "*"\noptimizer = "AdamW"\n'

DECLARED: dict[str, Rule] = {
    "lr = 0.1": Rule("*", lr=0.1),
    'lr = "1e-3"': Rule("*", lr=1e-3),
    "lr = { scale = 0.1 }": Rule("*", lr=scale(0.1)),
    'lr = { scale = "1e-1", layer_decay = "0.75" }': Rule("*", lr=scale(0.1) * layer_decay(0.75)),
    'lr = { scale = { linear = 0, end = 1, over = "10%" } }': Rule("*", lr=scale(linear(0.0, end=1.0, over="10%"))),
    'lr = { cosine = "3e-4", warmup = "5%" }': Rule("*", lr=cosine(3e-4, warmup="5%")),
    "lr = { exact = 0.1 }": Rule("*", lr=exact(0.1)),
    "lr = { exact = { cosine = 0.1 } }": Rule("*", lr=exact(cosine(0.1))),
    "betas = [0.9, 0.95]": Rule("*", betas=(0.9, 0.95)),
    "betas = [{ linear = 0.85, end = 0.95 }, 0.98]": Rule("*", betas=(linear(0.85, end=0.95), 0.98)),
    "betas = { exact = [0.9, 0.95] }": Rule("*", betas=exact((0.9, 0.95))),
    "amsgrad = true": Rule("*", amsgrad=True),
    'adjust_lr_fn = "original"': Rule("*", adjust_lr_fn="original"),
    "trainable = false": Rule("*", trainable=False),
    'trainable = { until = "2 epochs" }': Rule("*", trainable=until("2 epochs")),
    'trainable = { unfreeze_down = "100 steps" }': Rule("*", trainable=unfreeze_down("100 steps")),
    "clip = false": Rule("*", clip=False),
    'clip = { norm = 1, per = "module" }': Rule("*", clip=clip_norm(1.0, per="module")),
    'clip = { adaptive = "1e-2", eps = "1e-4" }': Rule("*", clip=clip_adaptive(0.01, eps=1e-4)),
    "optional = true\nlr = 1": Rule("*", optional=True, lr=1),
    'label = "all"\nlr = 1': Rule("*", label="all", lr=1),
}
MISTAKES: dict[str, tuple[str, str]] = {
    "empty": ("", "the plan is empty"),
    "comments alone": ("# nothing\n", "the plan is empty"),
    "no TOML": ("[[rule", r"not valid TOML: Expected '\]\]' .*end of document"),
    "a path": ("plan.toml", "not valid TOML"),
    "no rules": ("clip = { norm = 1.0 }", r"the plan has no list of rules: add a \[\[rule\]\]"),
    "single brackets": ('[rule]\nmatch = "*"', r"no list of rules: write \[\[rule\]\], in double brackets, once per"),
    "a list of numbers": ("rule = [1]", "rule 1 must be a table, not 1"),
    "a misspelt table": ('[[rules]]\nmatch = "*"', r"unknown table 'rules'; did you mean 'rule'\? \(there is: rule,"),
    "a strange table": (f"{HEAD}[options]", "unknown table 'options'"),
    "no match": ("[[rule]]\nlr = 1", r'rule 1: it has no match: write match = "\*" for every parameter'),
    "a match that is a number": ("[[rule]]\nmatch = 3\nlr = 1", "rule 1: .*give a glob, a table of name, regex, .*"),
    "a match with a strange key": ('[[rule]]\nmatch = { rol = "norm" }\nlr = 1', "rule 1: unknown key 'rol'; did you"),
    "a match with a strange role": ('[[rule]]\nmatch = { role = "nrm" }\nlr = 1', "role: unknown role 'nrm'; did you"),
    "a match that is empty": ("[[rule]]\nmatch = []\nlr = 1", "rule 1: an empty list selects nothing"),
    "a rule that says nothing": ('[[rule]]\nmatch = "*"', "rule 1: rule 'base': it declares nothing"),
    "the same key twice": (f"{HEAD}lr = 1\nlr = 2", "not valid TOML: Cannot overwrite a value"),
    "nan": (f"{HEAD}lr = nan", "rule 1: .*lr must be finite, got nan"),
    "an infinity": (f"{HEAD}lr = inf", "rule 1: .*lr must be finite, got inf"),
    "text that spells nan": (f'{HEAD}lr = "nan"', "lr must be finite, got nan"),
    "a date": (f"{HEAD}lr = 2020-01-01", r"rule 1: lr: a value is a number, text, .*, not datetime.date\(2020, 1, 1\)"),
    "an empty table": (f"{HEAD}lr = {{}}", "rule 1: lr: the table is empty: name a schedule or a factor in it"),
    "two schedules": (f"{HEAD}lr = {{ cosine = 1, linear = 1 }}", "lr: a table names one schedule; this one names"),
    "a schedule and a factor": (f"{HEAD}lr = {{ cosine = 1, scale = 1 }}", "lr: cosine: unknown key 'scale'"),
    "exact and a factor": (f"{HEAD}lr = {{ exact = 1, scale = 1 }}", r"factors \(scale, .*\), or exact; not exact"),
    "a misspelt schedule": (f"{HEAD}lr = {{ cosin = 1 }}", "rule 1: lr: unknown schedule 'cosin'; did you mean"),
    "a misspelt argument": (f"{HEAD}lr = {{ cosine = 1, warmpu = '5%' }}", "cosine: unknown key 'warmpu'; did you"),
    "a bare length": (f"{HEAD}lr = {{ cosine = 1, warmup = 5 }}", "warmup: a bare number is never a length"),
    "a factor that is a list": (f"{HEAD}lr = {{ scale = [1] }}", r"rule 1: lr: scale must be a finite number, not"),
    "a layer decay above one": (f"{HEAD}lr = {{ layer_decay = 2 }}", r"rule 1: lr: layer_decay must lie in \(0, 1\],"),
    "a clip that is true": (f"{HEAD}clip = true", "rule 1: clip: it is a table such as { norm = 1.0 }, or false, not"),
    "a clip that is a number": (f"{HEAD}clip = 1.0", "clip: it is a table such as .*, not 1.0"),
    "a misspelt clip": (f"{HEAD}clip = {{ nrom = 1.0 }}", "clip: it names one of norm, value, adaptive, not nrom"),
    "two clips": (f"{HEAD}clip = {{ norm = 1, value = 1 }}", "clip: it names one of norm, .*, not norm, value"),
    "a clip's option": (f"{HEAD}clip = {{ norm = 1, pre = 'rule' }}", "clip: unknown option of clip norm 'pre'; did"),
    "a clip's scope": (f"{HEAD}clip = {{ norm = 1, per = ['x'] }}", r"clip: unknown per \"\['x'\]\" \(there is:"),
    "a clip's bound": (f"{HEAD}clip = {{ norm = 'much' }}", "clip: clip_norm must be a finite number, not 'much'"),
    "trainable as text": (f"{HEAD}trainable = 'no'", 'trainable: it is true, false or a table such as { after = "2'),
    "trainable twice": (f"{HEAD}trainable = {{ after = '5%', until = '9%' }}", "trainable: it names one of after,"),
    "trainable misspelt": (f"{HEAD}trainable = {{ aftr = '5%' }}", "unknown timeline 'aftr'; did you mean 'after'"),
    "trainable without a unit": (f"{HEAD}trainable = {{ after = 5 }}", "trainable: a bare number is never a length"),
    "optional as text": (f"{HEAD}optional = 'yes'", "rule 1: optional must be true or false, not 'yes'"),
    "a label that is a number": (f"{HEAD}label = 3", "rule 1: label must be text that is not empty, got 3"),
    "an optimizer that is a number": ('[[rule]]\nmatch = "*"\noptimizer = 3', "rule 1: optimizer must be text, not 3"),
    "an optimizer that is no name": ('[[rule]]\nmatch = "*"\noptimizer = ":x"', "optimizer ':x' is not a name: write"),
    "a key of two words": (f'{HEAD}"learning rate" = 1', "'learning rate' is not the name of a hyperparameter: write"),
    "a value that is a number": (f"{HEAD}[values]\nteacher = 1", "values.teacher: a value is a schedule, such as .*,"),
    "a value misspelt": (f"{HEAD}[values]\nteacher = {{ cosin = 1 }}", "values.teacher: unknown schedule 'cosin'"),
    "values as a list": (f"{HEAD}[[values]]\nteacher = 1", "values must be a table, not"),
    "a method that is a number": (f"{HEAD}[balance]\nmethod = 1", "balance: method must be the name of a balancing"),
    "a weight as text": (f"{HEAD}[balance]\nweights = {{ left = 'x' }}", "balance: weights.left: a task weight .*"),
    "a weight that is nan": (f"{HEAD}[balance]\nweights = {{ left = nan }}", "weights.left: a task weight .*, not nan"),
}  # fmt: skip


@pytest.mark.parametrize("line", DECLARED)
def test_a_line_of_toml_is_the_argument_of_a_rule(line: str) -> None:
    assert Plan.loads(f'[[rule]]\nmatch = "*"\n{line}\n') == Plan([DECLARED[line]])


@pytest.mark.parametrize(("text", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_file_is_told_with_its_place_and_the_way_out(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan.loads(text)


def test_selectors_in_a_file_are_globs_tables_and_lists() -> None:
    match = '["neck.*", { kind = "Conv2d", not = { role = ["norm", "bias"] } }, { depth = { min = 2 } }]'
    plan = Plan.loads(f"[[rule]]\nmatch = {match}\nlr = 1")
    assert plan == Plan([Rule(["neck.*", kind("Conv2d") & ~(role("norm") | role("bias")), depth(min=2)], lr=1)])


def test_the_clip_of_the_plan_stands_at_the_top_and_false_is_none() -> None:
    assert Plan.loads(f"clip = {{ norm = 1 }}\n{HEAD}").clip == clip_norm(1.0)
    assert Plan.loads(f"clip = false\n{HEAD}").clip is None


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "1e-03", ".001", "0.001", "+1e-3"])
def test_what_yaml_takes_for_text_is_the_number_that_it_spells(number: str) -> None:
    text = f"rule:\n- {{match: '*', optimizer: AdamW, lr: {number}, weight_decay: {{scale: {number}}}}}\n"
    rule = Rule("*", optimizer="AdamW", lr=1e-3, weight_decay=scale(1e-3))
    assert Plan.loads(text, format="yaml") == Plan([rule])


def test_an_optimizer_from_a_package_needs_that_package_allowed() -> None:
    text = '[[rule]]\nmatch = "*"\noptimizer = "pytorch_optimizer.lion:Lion"\nlr = 1'
    way_out = r"pass allow=\['pytorch_optimizer'\] \(on the command line --allow pytorch_optimizer\) if you trust it"
    for allow in ((), ["pytorch"], ["pytorch_optimizer.lio"], ["pytorch_optimizer.lion.x"], ["torch", "os"]):
        with pytest.raises(
            PlanError, match=f"'pytorch_optimizer.lion:Lion' would import 'pytorch_optimizer'.*: {way_out}"
        ):
            Plan.loads(text, allow=allow)
    for allow in (["pytorch_optimizer"], ["os", "pytorch_optimizer.lion"]):
        assert Plan.loads(text, allow=allow).rules[0].optimizer == "pytorch_optimizer.lion:Lion"


def test_a_file_is_read_by_its_suffix(tmp_path: Path) -> None:
    texts = {
        "plan.toml": f"\ufeff{HEAD}",
        "plan.YAML": "rule: [{match: '*', optimizer: AdamW}]",
        "plan.yml": "rule: [{match: '*', optimizer: AdamW}]",
        "plan.json": '{"rule": [{"match": "*", "optimizer": "AdamW"}]}',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert Plan.load(tmp_path / name) == Plan([Rule("*", optimizer="AdamW")])


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("[[rule]]\nlr = 1")
    with pytest.raises(PlanError, match=r"plan.toml: rule 1: it has no match"):
        Plan.load(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.toml", "none.toml: cannot read the file: No such file or directory"),
        ("plan.ini", r"unknown suffix of a plan file '.ini' \(there is: .toml, .yaml, .yml, .json\)"),
        ("plan", "unknown suffix of a plan file ''"),
        ("plan.tml", "unknown suffix of a plan file '.tml'; did you mean '.toml'"),
        ("folder.toml", "folder.toml: cannot read the file: Is a directory"),
        ("a\0.toml", "cannot read the file: embedded null byte"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_why(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(PlanError, match=message):
        Plan.load(tmp_path / name)


@pytest.mark.parametrize("given", [None, 3, [Rule("*", lr=1)], {"rule": []}])
def test_what_is_neither_plan_nor_path_is_told_so(given: Any) -> None:
    with pytest.raises(
        PlanError, match=rf"a plan is Plan\(\[Rule\(…\), …\]\) or the path .*, not a {type(given).__name__}"
    ):
        Plan.load(given)


def test_an_unknown_format_is_told_so() -> None:
    with pytest.raises(PlanError, match=r"unknown format 'tml'; did you mean 'toml'\? \(there is: toml, json, yaml\)"):
        Plan.loads(HEAD, format="tml")


def test_loading_a_plan_imports_neither_torch_nor_what_the_plan_names(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(
        '[[rule]]\nmatch = "*"\noptimizer = "antigravity:Fly"\nlr = 1\n[[rule]]\nmatch = "*"\noptimizer = "AdamW"'
    )
    script = (
        "import sys; from groupwise import Plan\n"
        f"plan = Plan.load({str(path)!r}, allow=['antigravity']); plan.dumps()\n"
        "sys.exit(str(sorted({'torch', 'numpy', 'antigravity'} & set(sys.modules))))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.stderr.strip() == "[]"
