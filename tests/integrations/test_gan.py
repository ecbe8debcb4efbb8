"""A small real GAN on scikit-learn's digits: two networks, one optimizer, one scheduler, one scaler, one checkpoint."""

import functools
from typing import NamedTuple

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from groupwise import GroupedOptimizer, Plan, PlanScheduler, Rule, clip_norm, scale
from groupwise.schedules import linear

ROUNDS, CRITIC_STEPS, SIZE, NOISE = 400, 2, 64, 16

PLAN = Plan(
    [
        Rule("*", optimizer="Adam", lr=linear(2e-3, 0.0), betas=(0.0, 0.99)),
        Rule("critic", lr=scale(1.5), clip=clip_norm(1.0)),
    ]
)


@functools.cache
def digits() -> torch.Tensor:
    """The images, shape [1797, 64], in [-1, 1]."""
    return torch.tensor(load_digits().data, dtype=torch.float32) / 8 - 1


class Gan:
    """Everything that a run consists of."""

    def __init__(self, scaled: bool = True, rounds: int = ROUNDS) -> None:
        torch.manual_seed(0)
        self.generator = nn.Sequential(
            nn.Linear(NOISE, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 64), nn.Tanh()
        )
        self.critic = nn.Sequential(
            nn.Linear(64, 96), nn.LeakyReLU(0.2), nn.Linear(96, 96), nn.LeakyReLU(0.2), nn.Linear(96, 1)
        )
        self.optimizer = GroupedOptimizer({"generator": self.generator, "critic": self.critic}, PLAN)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, enabled=scaled)
        self.scheduler = PlanScheduler(self.optimizer, total_steps=rounds, scaler=self.scaler)
        self.random = torch.Generator().manual_seed(1)

    def samples(self, count: int) -> torch.Tensor:
        return self.generator(torch.randn(count, NOISE, generator=self.random))

    def update(self, network: str, loss: torch.Tensor) -> float:
        """One update of one network; the scaler unscales what that network's view shows, once."""
        view = self.optimizer.only(network)
        self.scaler.scale(loss).backward()
        self.scaler.step(view)
        self.scaler.update()
        view.zero_grad()
        return loss.item()

    def round(self) -> float:
        """k updates of the critic, one of the generator, one tick. Returns the critic's last loss."""
        for _ in range(CRITIC_STEPS):
            with self.optimizer.only("critic"):
                real = digits()[torch.randint(len(digits()), (SIZE,), generator=self.random)]
                loss = nn.functional.softplus(-self.critic(real)) + nn.functional.softplus(
                    self.critic(self.samples(SIZE))
                )
                critic_loss = self.update("critic", loss.mean())
        with self.optimizer.only("generator"):
            self.update("generator", nn.functional.softplus(-self.critic(self.samples(SIZE))).mean())
        self.scheduler.step()
        return critic_loss


class Distance(NamedTuple):
    """How far the samples' pixels are from the data's, on average over the 64 pixels."""

    mean: float
    deviation: float


@torch.no_grad()
def distance(gan: Gan) -> Distance:
    fake, real = gan.samples(1000), digits()
    return Distance((fake.mean(0) - real.mean(0)).abs().mean().item(), (fake.std(0) - real.std(0)).abs().mean().item())


def test_it_learns_the_mean_and_the_spread_of_the_pixels() -> None:
    gan = Gan()
    before = distance(gan)
    losses = [gan.round() for _ in range(ROUNDS)]
    after = distance(gan)
    assert losses[0] > 1.1  # 2 ln 2 for a critic that knows nothing
    assert sum(losses[-20:]) / 20 < 0.9
    assert after.mean < 0.4 * before.mean
    assert after.deviation < 0.4 * before.deviation
    assert gan.scheduler.last_epoch == ROUNDS
    assert {group["lr"] for group in gan.optimizer.param_groups} == {0.0}


def test_the_scaler_changes_nothing_but_rounding() -> None:
    scaled, unscaled = Gan(), Gan(scaled=False)
    for gan in (scaled, unscaled):
        for _ in range(5):
            gan.round()
    for p, q in zip(scaled.generator.parameters(), unscaled.generator.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-4)


def test_two_steps_of_one_view_without_an_update_of_the_scaler_are_refused() -> None:
    gan = Gan()
    view = gan.optimizer.only("critic")
    gan.scaler.scale(gan.critic(digits()[:8]).mean()).backward()
    gan.scaler.step(view)
    with pytest.raises(RuntimeError, match=r"step\(\) has already been called since the last update"):
        gan.scaler.step(view)


def test_both_views_may_share_one_update_of_the_scaler() -> None:
    shared, separate = Gan(), Gan()
    for gan in (shared, separate):
        for network in ("critic", "generator"):
            with gan.optimizer.only(network) as view:
                gan.scaler.scale(gan.critic(gan.samples(8)).mean()).backward()
                gan.scaler.step(view)
                if gan is separate:
                    gan.scaler.update()
        if gan is shared:
            gan.scaler.update()
    for p, q in zip(shared.critic.parameters(), separate.critic.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_network_that_overflows_is_skipped_alone_and_the_round_still_ticks() -> None:
    gan = Gan()
    before = [p.detach().clone() for p in gan.critic.parameters()]
    with gan.optimizer.only("critic"):
        gan.update("critic", gan.critic(digits()[:8]).mean() * float("inf"))
    with gan.optimizer.only("generator"):
        gan.update("generator", gan.critic(gan.samples(8)).mean())
    gan.scheduler.step()
    assert all(torch.equal(p, q) for p, q in zip(gan.critic.parameters(), before, strict=True))
    assert gan.scheduler.last_epoch == 1


@pytest.mark.parametrize("stop", [1, 7])
def test_it_resumes_exactly_from_one_checkpoint(stop: int) -> None:
    whole, half, again = Gan(rounds=12), Gan(rounds=12), Gan(rounds=12)
    for _ in range(12):
        whole.round()
    for _ in range(stop):
        half.round()
    for name in ("generator", "critic", "optimizer", "scheduler", "scaler"):
        getattr(again, name).load_state_dict(getattr(half, name).state_dict())
    again.random.set_state(half.random.get_state())
    for _ in range(12 - stop):
        again.round()
    for name in ("generator", "critic"):
        for p, q in zip(getattr(whole, name).parameters(), getattr(again, name).parameters(), strict=True):
            assert torch.equal(p, q)
