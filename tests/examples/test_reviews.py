"""Sparse and dense gradients are the same gradient, and a review is the mean of its words."""

import torch

from examples.reviews.compare import sparse
from examples.reviews.train import PLAN, answers, load, networks
from groupwise import Plan


def test_no_review_of_the_test_is_trained_on_or_searched_with() -> None:
    assert [len(load(part).pieces) for part in ("train", "test", "search", "validation")] == [4000, 4000, 3000, 1000]
    assert torch.equal(torch.cat([load("search").stars, load("validation").stars]), load("train").stars)


def test_a_bag_is_the_mean_of_its_pieces() -> None:
    reviews, model, rows = load("train"), networks(seed=0), torch.tensor([5, 0, 9])
    words = model["words"](*reviews.bag(rows))
    for number, row in enumerate(rows.tolist()):
        mean = model["words"].weight[reviews.pieces[row]].mean(0)
        torch.testing.assert_close(words[number], mean)


def test_a_sparse_gradient_is_the_dense_one_and_holds_few_rows() -> None:
    gradients = []
    for by_rows in (True, False):
        model = networks(seed=0, sparse=by_rows)
        answers(model, load("train"), torch.arange(4))["stars"].sum().backward()
        gradients.append(model["words"].weight.grad)
    assert gradients[0].is_sparse
    assert gradients[0].coalesce().indices().numel() < len(model["words"].weight) / 2
    torch.testing.assert_close(gradients[0].to_dense(), gradients[1])


def test_a_random_table_has_the_spread_of_the_pre_trained_one() -> None:
    known, random = (networks(seed=0, pretrained=known)["words"].weight.std().item() for known in (True, False))
    assert abs(random / known - 1) < 0.05


def test_the_plan_file_is_what_was_compared() -> None:
    assert Plan.load(PLAN) == sparse(3e-3, table=1.0)
