"""What a table says of roles that nothing but a shape or a place suggests."""

import torch
from torch import nn

from groupwise.look import parameters_of
from groupwise.plan import Rule
from groupwise.plan.guesses import guesses_of
from groupwise.select import role


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm, self.out = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)
        self.lam = nn.Parameter(torch.ones(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.out(self.norm(self.body(x)) * self.lam)
        return found


def test_a_guess_from_a_shape_or_a_place_is_said_where_a_rule_asks_for_the_role_or_excludes_it() -> None:
    infos = parameters_of(Net())
    (said,) = guesses_of([Rule(role("matrix") & ~role("head"), lr=0.1)], infos)
    assert said == "guessed: out.weight, out.bias are 'head' as a linear layer that nothing follows"
    (said,) = guesses_of([Rule(role("scalar"), lr=0.1)], infos)
    assert said.startswith("guessed: lam is 'scalar' as a vector")


def test_what_a_class_says_or_nobody_asks_for_or_a_forward_showed_is_no_guess() -> None:
    assert not [*guesses_of([Rule(role("norm"), lr=0.1), Rule("*", lr=0.1)], parameters_of(Net()))]
    seen = parameters_of(Net(), example=torch.zeros(1, 4))
    assert not [*guesses_of([Rule(role("head"), lr=0.1), Rule(role("scalar"), lr=0.1)], seen)]
