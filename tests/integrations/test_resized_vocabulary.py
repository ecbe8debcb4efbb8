"""transformers' `resize_token_embeddings` in mid-run: the moments of the words that stay, stay."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, scale
from groupwise.errors import GroupwiseWarning
from groupwise.schedules import cosine
from groupwise.select import role

PLAN = Plan([Rule("*", optimizer="AdamW", lr=cosine(1e-2), weight_decay=0.1), Rule(role("embedding"), lr=scale(0.5))])


def llama(tied: bool) -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=30, tie_word_embeddings=tied, **sizes, **heads))


def train(model: Any, optimizer: GroupedOptimizer, scheduler: PlanScheduler, words: int, steps: int = 2) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        ids = torch.randint(0, words, (2, 5), generator=generator)
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_a_vocabulary_that_grows_keeps_the_moments_of_the_old_words_and_trains_the_new_ones(tied: bool) -> None:
    model = llama(tied)
    optimizer = GroupedOptimizer(model, PLAN)
    scheduler = PlanScheduler(optimizer, total_steps=10)
    train(model, optimizer, scheduler, words=30)
    moments = {name: optimizer.state[p]["exp_avg"].clone() for name, p in model.named_parameters()}
    model.resize_token_embeddings(40)
    optimizer.regroup(model=model)
    assert optimizer.load_report is not None
    tables = {"model.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
    assert set(optimizer.load_report.resized) == tables
    for name, p in model.named_parameters():
        rows = 30 if name in tables else len(p)
        assert torch.equal(optimizer.state[p]["exp_avg"][:rows], moments[name])
        assert not optimizer.state[p]["exp_avg"][rows:].any()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, optimizer, scheduler, words=40)
    assert all(not torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_vocabulary_that_shrinks_in_place_starts_afresh_unless_it_is_said_which_words_stayed() -> None:
    for rows in ({}, {"model.embed_tokens.weight": range(20)}):
        model = llama(tied=True)
        optimizer = GroupedOptimizer(model, PLAN)
        scheduler = PlanScheduler(optimizer, total_steps=10)
        train(model, optimizer, scheduler, words=30)
        moment = optimizer.state[model.lm_head.weight]["exp_avg"].clone()
        model.resize_token_embeddings(20)
        if not rows:
            with pytest.warns(GroupwiseWarning, match=r"rows=\{'model\.embed_tokens\.weight'"):
                optimizer.regroup(model=model)
            assert model.lm_head.weight not in optimizer.state
        else:
            optimizer.regroup(model=model, rows=rows)
            assert torch.equal(optimizer.state[model.lm_head.weight]["exp_avg"], moment[:20])
        train(model, optimizer, scheduler, words=20)


def test_a_head_that_comes_untied_starts_from_the_shared_moments() -> None:
    model = llama(tied=True)
    optimizer = GroupedOptimizer(model, PLAN)
    scheduler = PlanScheduler(optimizer, total_steps=10)
    train(model, optimizer, scheduler, words=30)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    optimizer.regroup(model=model)
    assert optimizer.load_report is not None
    assert optimizer.load_report.copied == ("lm_head.weight",)
    train(model, optimizer, scheduler, words=30)
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
