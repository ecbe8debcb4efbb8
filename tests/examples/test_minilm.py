"""The encoder is BERT's, what is not there has no say, and each row slows what it says."""

import pytest
import torch
from torch import nn

from examples.minilm.compare import BY_PLAN, DECAYED, plain, plan, planned
from examples.minilm.train import BATCH, HEADS, LENGTH, PARTS, PLAN, STEPS, Layer, load, networks, train
from groupwise import Plan
from groupwise.optim import resolve


def test_no_review_has_two_uses() -> None:
    own = sorted((start, end) for name, start, end in PARTS.values() if name == "train")
    assert [start for start, _ in own[1:]] == [end for _, end in own[:-1]]
    assert own[0][1] - own[0][0] == STEPS * BATCH


def test_a_layer_is_that_of_torch_with_its_norms_behind() -> None:
    torch.manual_seed(0)
    width = 2 * HEADS
    ours, torchs = Layer(width).double(), nn.TransformerEncoderLayer(
        width, HEADS, 4 * width, dropout=0.0, activation="gelu", layer_norm_eps=1e-12, batch_first=True
    ).double()  # fmt: skip
    parts, out = ours.attention["self"], ours.attention["output"]
    with torch.no_grad():
        for what in ("weight", "bias"):
            joint = torch.cat([getattr(parts[name], what) for name in ("query", "key", "value")])
            getattr(torchs.self_attn, f"in_proj_{what}").copy_(joint)
            pairs = {
                torchs.self_attn.out_proj: out["dense"], torchs.norm1: out["LayerNorm"],
                torchs.linear1: ours.intermediate["dense"], torchs.linear2: ours.output["dense"],
                torchs.norm2: ours.output["LayerNorm"],
            }  # fmt: skip
            for theirs, own in pairs.items():
                getattr(theirs, what).copy_(getattr(own, what))
    x, there = torch.randn(3, 5, width, dtype=torch.float64), torch.ones(3, 5, dtype=torch.bool)
    there[1, 3:] = False
    torch.testing.assert_close(ours(x, there)[there], torchs(x, src_key_padding_mask=~there)[there])


def test_what_is_not_there_has_no_say() -> None:
    model, reviews = networks(seed=0).eval(), load("search")
    changed = torch.where(reviews.there, reviews.pieces, reviews.pieces + 5)
    assert reviews.pieces.shape[1] == LENGTH
    assert not torch.equal(changed, reviews.pieces)
    torch.testing.assert_close(model(changed, reviews.there), model(reviews.pieces, reviews.there))


def test_the_word_table_is_kept_and_the_rest_is_trained() -> None:
    model = networks(seed=0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer, scheduler = planned(model, 1e-3, 2, rules=BY_PLAN[DECAYED])
    train(model, optimizer, scheduler, load("search"), 2, seed=0)
    kept = {name for name, value in model.named_parameters() if value.equal(before[name])}
    assert kept == {"encoder.embeddings.word_embeddings.weight"}


def test_the_baseline_is_the_plan_without_a_rule_of_its_own() -> None:
    """By their logits: a bias of the keys has no gradient but round-off, which AdamW makes large."""
    logits, reviews = [], load("search")
    for build in (plain, lambda *given: planned(*given, rules=())):
        model = networks(seed=1)
        optimizer, scheduler = build(model, 1e-3, 10)
        train(model, optimizer, scheduler, reviews, 4, seed=1)
        logits.append(model(reviews.pieces, reviews.there))
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-4)


def test_each_level_of_the_encoder_has_its_power_of_a_tenth() -> None:
    model = networks(seed=0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = resolve(model, plan(1.0, BY_PLAN[DECAYED])).torch_groups()
    rates = {names[id(weight)]: group["lr"] for group in groups for weight in group["params"]}
    for name, rate in rates.items():
        if name.startswith("head"):
            assert rate == pytest.approx(1.0)
        elif "embeddings" not in name:
            assert rate == pytest.approx(0.1 * 0.8 ** (5 - int(name.split(".")[3])))
        else:
            assert rate == pytest.approx(0.1 * 0.8**6)


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan.load(PLAN) == plan(3e-3, BY_PLAN[DECAYED])
