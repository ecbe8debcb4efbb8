"""Which algorithms may step the parts of a tensor apart from one another: found out by trying."""

import pytest
import pytorch_optimizer
import torch

from groupwise.optim.separable import separable

APART = ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Adamax", "NAdam", "RAdam", "ASGD", "Rprop"]


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("name", APART)
def test_an_algorithm_that_goes_entry_by_entry_is_separable(name: str, rank: int) -> None:
    assert separable(getattr(torch.optim, name), {}, rank)


@pytest.mark.parametrize(("name", "rank"), [("Muon", 2), ("Adafactor", 1), ("Adafactor", 2), ("Adafactor", 4)])
def test_an_algorithm_that_looks_at_the_whole_is_not(name: str, rank: int) -> None:
    assert not separable(getattr(torch.optim, name), {}, rank)


@pytest.mark.parametrize(("name", "apart"), [("Lion", True), ("Lamb", False), ("Prodigy", False), ("SOAP", False)])
def test_algorithms_of_others_are_told_apart(name: str, apart: bool) -> None:
    assert separable(getattr(pytorch_optimizer, name), {}, 2) is apart


@pytest.mark.parametrize("values", [{"lr": 0.0}, {"lr": 1e-9}, {"lr": 1.0, "capturable": True}])
def test_the_learning_rate_and_the_device_of_a_run_change_nothing(values: dict[str, float]) -> None:
    assert separable(torch.optim.AdamW, values, 2)
    assert not separable(torch.optim.Adafactor, {"lr": values["lr"]}, 2)


def test_a_class_that_refuses_parts_is_taken_for_inseparable() -> None:
    assert not separable(torch.optim.Muon, {}, 1)


def test_trying_draws_no_random_number() -> None:
    before = torch.get_rng_state()
    separable(torch.optim.Muon, {}, 2)
    assert torch.equal(before, torch.get_rng_state())
