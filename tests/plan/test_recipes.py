"""What people do today by hand, as a few rules each, on models with the names that people use."""

from typing import Any

import pytest
import torch
from torch import nn

from groupwise import Rule, after, exact, layer_decay, scale, unfreeze_down
from groupwise.schedules import cosine, linear, steps
from groupwise.select import depth, kind, name, network, regex, role
from tests.plan.models import (
    Bert,
    LoraLinear,
    Net,
    base,
    group_of,
    optimizer_of,
    parameter,
    resolved,
    text,
    value,
    values,
)

LAYERS = 4


def clip_like() -> dict[str, Any]:
    return {
        "image": nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)),
        "text": nn.Embedding(5, 2),
        "temperature": parameter(),
    }


def test_norms_and_biases_have_no_weight_decay() -> None:
    resolution = resolved(Bert(), base(weight_decay=0.01), Rule(role("norm") | role("bias"), weight_decay=0.0))
    exempt = ("bias", "LayerNorm.weight")
    assert values(resolution, "weight_decay") == {
        n: 0.0 if n.endswith(exempt) else 0.01 for n, _ in Bert().named_parameters()
    }
    assert [group.name for group in resolution.groups] == ["base", "role(norm, bias)"]


def test_the_names_that_people_list_for_no_decay_say_the_same() -> None:
    by_role = resolved(Bert(), base(weight_decay=0.01), Rule(role("norm") | role("bias"), weight_decay=0.0))
    by_name = resolved(Bert(), base(weight_decay=0.01), Rule(["*.bias", "*LayerNorm.weight"], weight_decay=0.0))
    assert values(by_role, "weight_decay") == values(by_name, "weight_decay")


def hugging_face_layer(n: str) -> int:
    """The layer of a parameter as fine-tuning scripts count: embeddings 0, blocks 1 to n, all above n + 1."""
    if "embeddings" in n:
        return 0
    return int(n.split("layer.")[1].split(".", maxsplit=1)[0]) + 1 if "encoder.layer." in n else LAYERS + 1


@pytest.mark.parametrize("decay", [0.95, 0.8])
def test_layer_wise_decay_on_a_hugging_face_encoder(decay: float) -> None:
    resolution = resolved(Bert(LAYERS), base(lr=2e-5), Rule("*", lr=layer_decay(decay)))
    assert values(resolution) == {
        n: 2e-5 * decay ** (LAYERS + 1 - hugging_face_layer(n)) for n, _ in Bert(LAYERS).named_parameters()
    }


def test_electra_counts_one_level_more_between_the_encoder_and_the_head() -> None:
    resolution = resolved(
        Bert(LAYERS), base(lr=1e-4), Rule("*", lr=layer_decay(0.8)), Rule(depth(max=LAYERS), lr=scale(0.8))
    )
    electra = {n: 1e-4 * 0.8 ** (LAYERS + 2 - hugging_face_layer(n)) for n, _ in Bert(LAYERS).named_parameters()}
    heads = {n: 1e-4 for n in electra if hugging_face_layer(n) > LAYERS}
    assert values(resolution) == pytest.approx(electra | heads, rel=1e-12)


def test_a_fresh_head_keeps_its_own_rate_whatever_the_encoder_does() -> None:
    slow = [Rule("bert.*", lr=layer_decay(0.9)), Rule("*", lr=scale(0.5))]
    resolution = resolved(Bert(), base(lr=2e-5), *slow, Rule("classifier", lr=exact(1e-3)))
    assert value(resolution, "classifier.weight") == 1e-3
    assert value(resolution, "bert.pooler.dense.weight") == 2e-5 * 0.5
    assert value(resolution, "bert.encoder.layer.3.output.dense.weight") == pytest.approx(2e-5 * 0.9 * 0.5, rel=1e-15)


def test_discriminative_learning_rates_fall_by_2_6_a_layer() -> None:
    resolution = resolved(Bert(), base(lr=0.01), Rule("bert.encoder.layer.*", lr=layer_decay(1 / 2.6)))
    rates = [value(resolution, f"bert.encoder.layer.{i}.output.dense.bias") for i in range(4)]
    assert rates == pytest.approx([0.01 / 2.6 ** (3 - i) for i in range(4)], rel=1e-12)


def test_gradual_unfreezing_starts_at_the_top_and_takes_one_level_an_epoch() -> None:
    resolution = resolved(Bert(), base(), Rule("*", trainable=unfreeze_down("1 epoch")))
    for n, _ in Bert().named_parameters():
        below = 5 - hugging_face_layer(n)
        trained = [group_of(resolution, n).trainable_at(step, steps_per_epoch=10) for step in range(80)]
        assert trained == [step >= 10 * below for step in range(80)]
    assert group_of(resolution, "classifier.weight").freezing == "trainable"
    assert group_of(resolution, "bert.embeddings.LayerNorm.bias").freezing == "after 5 × 1 epoch"


def test_a_head_is_trained_before_the_body() -> None:
    resolution = resolved(Net(), base(), Rule(~role("head"), trainable=after("5 steps")))
    assert [group_of(resolution, n).trainable_at(4) for n in ("head.weight", "norm.weight")] == [True, False]
    assert group_of(resolution, "norm.weight").trainable_at(5)


def test_unfreezing_and_layer_decay_each_take_their_own_rules_top() -> None:
    resolution = resolved(
        Bert(), base(lr=1.0), Rule("bert.encoder.*", trainable=unfreeze_down("2 steps")), Rule("*", lr=layer_decay(0.5))
    )
    last, head = "bert.encoder.layer.3.output.dense.weight", "classifier.weight"
    assert (text(resolution, last), text(resolution, head)) == ("1 × 0.5", "1")
    assert group_of(resolution, last).trainable_at(0)
    assert not group_of(resolution, "bert.encoder.layer.2.output.dense.weight").trainable_at(1)


def test_lora_b_learns_faster_than_lora_a_and_the_base_stays_frozen() -> None:
    model = nn.ModuleDict({"q_proj": LoraLinear(), "v_proj": LoraLinear()})
    resolution = resolved(model, base(lr=2e-4, weight_decay=0.0), Rule("*.lora_B.*", lr=scale(16.0)))
    assert value(resolution, "v_proj.lora_A.default.weight") == 2e-4
    assert text(resolution, "v_proj.lora_B.default.weight") == "2e-4 × 16"
    assert {group.freezing for group in resolution.groups} == {"trainable", "frozen"}
    assert not group_of(resolution, "q_proj.base_layer.weight").trainable_at(0)


def test_a_frozen_base_needs_no_optimizer_of_its_own() -> None:
    model = nn.ModuleDict({"q_proj": LoraLinear()})
    resolution = resolved(model, Rule("*.lora_?.*", optimizer="AdamW", lr=2e-4))
    assert [(group.algorithm, len(group.parameters)) for group in resolution.groups] == [("AdamW", 2), (None, 2)]


def test_muon_takes_the_hidden_matrices_and_adamw_the_rest() -> None:
    muon = Rule(role("matrix"), optimizer="Muon", lr=0.02, momentum=0.95)
    resolution = resolved(Bert(), base(weight_decay=0.01), muon, Rule("*", weight_decay=0.1))
    hidden = {
        n for n, p in Bert().named_parameters() if p.ndim == 2 and "embeddings" not in n and "classifier" not in n
    }
    assert {n for n, _ in Bert().named_parameters() if optimizer_of(resolution, n) == "Muon"} == hidden
    assert set(values(resolution, "weight_decay").values()) == {0.1}


def test_two_networks_of_a_gan_have_their_own_rates_in_one_optimizer() -> None:
    def part() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))

    resolution = resolved(
        {"generator": part(), "discriminator": part()},
        Rule("*", optimizer="Adam", lr=1e-4, betas=(0.5, 0.999)),
        Rule(network("discriminator"), lr=scale(4.0)),
    )
    assert [(group.name, group.network) for group in resolution.groups] == [
        ("base", "generator"),
        ("network(discriminator)", "discriminator"),
    ]
    assert value(resolution, "discriminator.0.weight") == 4e-4


def test_what_two_networks_share_in_treatment_still_makes_two_groups() -> None:
    resolution = resolved({"one": nn.Linear(2, 2), "two": nn.Linear(2, 2)}, base())
    assert [(group.name, group.network) for group in resolution.groups] == [("base/one", "one"), ("base/two", "two")]


def test_layer_decay_counts_in_every_network_from_its_own_top() -> None:
    towers = {"deep": nn.Sequential(*(nn.Linear(2, 2) for _ in range(4))), "flat": nn.Sequential(nn.Linear(2, 2))}
    resolution = resolved(towers, base(lr=1.0), Rule("*", lr=layer_decay(0.5)))
    assert [value(resolution, f"deep.{i}.weight") for i in range(4)] == [0.125, 0.25, 0.5, 1.0]
    assert value(resolution, "flat.0.weight") == 1.0


def test_a_lone_temperature_has_its_own_rate_and_no_decay() -> None:
    rules = [base(lr=5e-4, weight_decay=0.2), Rule("temperature", lr=scale(0.1), weight_decay=0.0)]
    resolution = resolved(clip_like(), *rules)
    alone = group_of(resolution, "temperature")
    assert [info.name for info in alone.parameters] == ["temperature"]
    assert (text(resolution, "temperature"), value(resolution, "temperature", "weight_decay")) == ("5e-4 × 0.1", 0.0)
    assert value(resolution, "text.weight", "weight_decay") == 0.2


def test_a_rate_that_grows_with_the_width_is_a_function() -> None:
    def by_fan_in(info: Any) -> float:
        return 1.0 / info.shape[1] if info.ndim == 2 else 1.0

    resolution = resolved(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2)), base(lr=1.0), Rule("*", lr=scale(by_fan_in)))
    assert values(resolution) == {"0.weight": 0.125, "0.bias": 1.0, "1.weight": 0.25, "1.bias": 1.0}


def test_a_schedule_as_a_factor_warms_one_part_up_later() -> None:
    late = scale(linear(0.0, end=1.0, over=steps(4)))
    resolution = resolved(Net(), base(lr=cosine(1.0, end=0.5, over=steps(8))), Rule("embed", lr=late))
    assert [value(resolution, "embed.weight", step=t) for t in (0, 4, 8)] == [0.0, pytest.approx(0.75), 0.5]
    assert value(resolution, "head.weight", step=0) == 1.0


def test_weight_decay_is_not_multiplied_by_what_multiplies_the_rate() -> None:
    resolution = resolved(Net(), base(weight_decay=0.1), Rule("backbone", lr=scale(0.1)))
    assert value(resolution, "backbone.0.weight", "weight_decay") == 0.1


def test_four_sentences_stand_for_the_groups_of_their_product() -> None:
    resolution = resolved(
        Net(),
        base(lr=cosine(3e-4, warmup="5%"), weight_decay=0.05),
        Rule("backbone.*", lr=scale(0.1)),
        Rule("backbone.*", lr=layer_decay(0.75)),
        Rule("embed.*", optimizer="SGD", lr=cosine(0.1), momentum=0.9, weight_decay=0.0),
        Rule(role("norm") | role("bias"), weight_decay=0.0),
    )
    assert text(resolution, "backbone.0.weight") == "cosine(3e-4, warmup=5%) × 0.1 × 0.75"
    assert text(resolution, "backbone.1.bias") == "cosine(3e-4, warmup=5%) × 0.1"
    assert optimizer_of(resolution, "embed.weight") == "SGD"
    assert {info.name for info in group_of(resolution, "norm.weight").parameters} == {
        "norm.weight",
        "norm.bias",
        "head.bias",
    }
    assert len(resolution.groups) == 7


def test_tied_tables_are_treated_once_by_whatever_speaks_of_either_name() -> None:
    model = nn.ModuleDict({"wte": nn.Embedding(5, 4), "block": nn.Linear(4, 4), "lm_head": nn.Linear(4, 5, bias=False)})
    model["lm_head"].weight = model["wte"].weight
    resolution = resolved(model, base(), Rule("lm_head", lr=0.5), Rule(kind("Embedding"), weight_decay=0.0))
    table = group_of(resolution, "lm_head.weight")
    assert [info.names for info in table.parameters] == [("wte.weight", "lm_head.weight")]
    assert (value(resolution, "wte.weight"), value(resolution, "wte.weight", "weight_decay")) == (0.5, 0.0)
    assert group_of(resolution, "wte.weight") is table
    untied = resolved(model, base(), Rule(~name("lm_head"), lr=0.5), Rule(regex(r"wte\..*"), lr=0.25))
    assert value(untied, "lm_head.weight") == 0.25
    assert sum(group.numel for group in resolution.groups) == sum(p.numel() for p in model.parameters())


def test_a_resolution_on_meta_is_that_on_the_cpu() -> None:
    with torch.device("meta"):
        meta = resolved(Bert(), base(), Rule("*", lr=layer_decay(0.8)))
    real = resolved(Bert(), base(), Rule("*", lr=layer_decay(0.8)))
    assert str(meta) == str(real)
