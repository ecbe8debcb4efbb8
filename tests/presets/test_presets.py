"""Each preset on the architectures that it is for: it says what it is, resolves strictly, and comes to its recipe."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler
from groupwise._spelling import number
from groupwise.balance import Balancer, Uncertainty
from groupwise.errors import PlanError
from groupwise.optim import resolve
from groupwise.plan import Resolution
from groupwise.presets import names, origin, preset
from tests.presets import models
from tests.presets.tables import TABLES

WIDEST = 78
"""Characters of a summary, so that the list of presets has one line for each on a terminal of 100 columns."""

every = pytest.mark.parametrize("name", names())
fitting = pytest.mark.parametrize(
    ("name", "build"),
    [(name, build) for name, builders in models.FITTING.items() for build in builders],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)


def settings_of(resolution: Resolution, property: str) -> Mapping[str, float]:
    """The peak of a hyperparameter by parameter."""
    return {i.name: g.settings[property].peak for g in resolution.groups for i in g.parameters}  # type: ignore[misc]


def lines_of(resolution: Resolution) -> Iterator[str]:
    """The groups as `TABLES` writes them."""
    for group in resolution.groups:
        said = [number(group.settings[key].peak) if key in group.settings else "-" for key in ("lr", "weight_decay")]
        yield " ".join([group.name.replace(" ", "_"), group.algorithm or "-", str(len(group.parameters)), *said])


def test_there_is_a_model_for_every_preset() -> None:
    assert set(models.FITTING) == set(names())


@every
def test_a_preset_says_what_it_is_whence_it_comes_and_what_it_is_for(name: str) -> None:
    found = preset(name)
    assert len(found.summary) <= WIDEST
    assert found.summary.endswith(".")
    for paragraph in (found.source, found.fits, found.expects, found.change):
        assert paragraph.endswith(".")


@every
def test_what_is_handed_out_is_the_plan_and_names_its_preset(name: str) -> None:
    found = preset(name)
    assert Plan.loads(found.text) == found.plan
    assert origin(found.text) == name


@pytest.mark.parametrize(
    "text", ["", "[[rule]]", "# groupwise new\n", "# groupwise new A B\n", "#groupwise new bert\n"]
)
def test_a_plan_that_says_nothing_of_a_preset_has_none(text: str) -> None:
    assert origin(text) is None


def test_a_name_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(PlanError, match="unknown preset 'berd'; did you mean 'bert'"):
        preset("berd")


@fitting
def test_a_preset_fits_without_a_warning_or_a_note(name: str, build: Callable[[], models.Model]) -> None:
    model = build()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve(model, preset(name).plan).notes == ()


@pytest.mark.parametrize(
    ("name", "build"), TABLES, ids=lambda value: value if isinstance(value, str) else value.__name__
)
def test_the_groups_of_a_preset_are_those_counted_by_hand(name: str, build: Callable[[], models.Model]) -> None:
    expected = {line.strip() for line in TABLES[name, build].splitlines() if line.strip()}
    assert set(lines_of(resolve(build(), preset(name).plan))) == expected


def mae_layer(name: str, blocks: int) -> int:
    """MAE's `get_layer_id_for_vit`."""
    if name in ("cls_token", "pos_embed") or name.startswith("patch_embed"):
        return 0
    return int(name.split(".")[1]) + 1 if name.startswith("blocks") else blocks + 1


@pytest.mark.parametrize("build", [models.mae_vit, models.beit, models.dinov3])
def test_the_rates_and_decays_of_a_vision_transformer_are_those_of_maes_code(build: Callable[[], nn.Module]) -> None:
    model, blocks = build(), 12
    resolution = resolve(model, preset("vit-finetune").plan)
    rates, decays = settings_of(resolution, "lr"), settings_of(resolution, "weight_decay")
    for name, parameter in model.named_parameters():
        layer = 0 if name == "reg_token" else mae_layer(name, blocks)
        assert rates[name] == pytest.approx(2e-3 * 0.65 ** (blocks + 1 - layer), rel=1e-12), name
        tables = ("cls_token", "pos_embed", "reg_token", "relative_position_bias_table")  # the last as in timm
        exempt = parameter.ndim == 1 or name.endswith(tables)
        assert decays[name] == (0.0 if exempt else 0.05), name


def nanochat_group(name: str) -> tuple[str, float, tuple[float, float] | None, float]:
    """Algorithm, rate, betas and weight decay of `GPT.setup_optimizer`; Muon's decay is an argument there."""
    if name.startswith("transformer.h."):
        return "Muon", 0.02, None, 0.2
    rows = {
        "lm_head": (0.004, (0.8, 0.96), 0.01),
        "transformer.wte": (0.2, (0.8, 0.995), 0.001),
        "value_embeds": (0.2 * 0.5, (0.8, 0.995), 0.01),
        "resid_lambdas": (0.5 * 0.01, (0.8, 0.95), 0.05),
        "x0_lambdas": (0.5, (0.96, 0.95), 0.0),
    }
    found = next((row for start, row in rows.items() if name.startswith(start)), (0.2, (0.8, 0.95), 0.0))
    return "AdamW", *found


def test_nanochats_values_are_those_of_its_optimizer() -> None:
    resolution = resolve(models.nanochat(), preset("nanochat").plan)
    for group in resolution.groups:
        for info in group.parameters:
            algorithm, lr, betas, decay = nanochat_group(info.name)
            assert group.algorithm == algorithm
            assert group.settings["lr"].peak == pytest.approx(lr, rel=1e-12), info.name
            assert group.settings["weight_decay"].peak == decay, info.name
            assert betas is None or group.settings["betas"].peak == betas, info.name


def nanochat_course(step: int, total: int) -> tuple[float, float, float]:
    """Multiplier of the rates, Muon's momentum and multiplier of its decay, as `base_train.py` has them."""
    down = round(0.65 * total)
    progress = (total - step) / down
    rate = (step + 1) / 40 if step < 40 else 1.0 if step <= total - down else progress + (1 - progress) * 0.05
    late = (step - (total - down)) / down
    momentum = 0.85 + 0.12 * step / 400 if step < 400 else 0.97 if late < 0 else 0.97 * (1 - late) + 0.9 * late
    return rate, momentum, 0.5 * (1 + math.cos(math.pi * step / total))


@pytest.mark.parametrize("step", [0, 20, 39, 40, 200, 399, 400, 1749, 1750, 3000, 4999])
def test_nanochats_courses_are_those_of_its_training(step: int) -> None:
    groups = {group.name: group for group in resolve(models.nanochat(), preset("nanochat").plan).groups}
    rate, momentum, decay = nanochat_course(step, 5000)
    matrices = groups["matrices"].settings
    assert groups["x0"].settings["lr"].at(step, 5000) == pytest.approx(0.5 * rate, rel=1e-9)
    assert matrices["lr"].at(step, 5000) == pytest.approx(0.02 * rate, rel=1e-9)
    assert matrices["momentum"].at(step, 5000) == pytest.approx(momentum, rel=1e-9)
    assert matrices["weight_decay"].at(step, 5000) == pytest.approx(0.2 * decay, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("build", [models.llama, models.qwen3, models.qwen2, models.mixtral, models.qwen3_moe])
def test_muon_has_the_products_of_a_language_model_and_nothing_else(build: Callable[[], nn.Module]) -> None:
    name = "llm-muon" if build in models.FITTING["llm-muon"] else "moe-muon"
    muon = {i.name for g in resolve(build(), preset(name).plan).groups if g.algorithm == "Muon" for i in g.parameters}
    products = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    parameters = build().named_parameters()
    assert muon == {n for n, p in parameters if n.split(".")[-2] in products or ".experts." in n if p.ndim > 1}


def test_adapters_of_embeddings_have_lora_plus_own_rate() -> None:
    model = models.lora()
    with torch.device("meta"):
        adapter = nn.ParameterDict({"default": nn.Parameter(torch.zeros(4, 64))})
    model.base_model.lora_embedding_A = adapter  # type: ignore[union-attr]
    rates = {
        info.name: group.settings["lr"].peak
        for group in resolve(model, preset("lora-plus").plan).groups
        for info in group.parameters
        if group.algorithm
    }
    assert rates["base_model.lora_embedding_A.default"] == 1e-6


@pytest.mark.parametrize("name", ["lora", "lora-plus"])
def test_a_base_that_still_trains_is_an_error_that_names_it(name: str) -> None:
    model = models.lora()
    head = model.get_parameter("base_model.model.lm_head.weight").requires_grad_(True)
    assert head.requires_grad
    with pytest.raises(ValueError, match=r"1 trainable parameter has no optimizer: base_model\.model\.lm_head\.weight"):
        resolve(model, preset(name).plan)


@pytest.mark.parametrize(
    ("name", "build"), [("nanochat", models.Nanochat), ("recommender", models.Recommender), ("yolo", models.Yolo)]
)
def test_a_preset_runs(name: str, build: Callable[[], nn.Module]) -> None:
    model = build()
    optimizer = GroupedOptimizer(model, preset(name).plan)
    scheduler = PlanScheduler(optimizer, total_steps=1000, steps_per_epoch=10)
    for _ in range(2):
        for layer in model.modules():
            if isinstance(layer, nn.Embedding):
                layer(torch.tensor([1, 2])).sum().backward()
        dense = [p for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        sum((p.square().sum() for p in dense), torch.zeros(())).backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()


def test_the_balance_table_of_the_tasks_preset_is_one_that_a_balancer_reads(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(preset("multi-task").text)
    assert Balancer.load(tmp_path / "plan.toml").method == Uncertainty()
