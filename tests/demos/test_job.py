"""The demos with one loss: same data and start for everybody, words that the numbers choose, a report at the end."""

import io
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from groupwise.demos import DEMOS, find
from groupwise.demos.characters import CharacterModel, Characters, load_text
from groupwise.demos.initial import initialised
from groupwise.demos.job import Job, Result, compare, train, words
from groupwise.demos.shift import Network, Shift, scans
from groupwise.errors import GroupwiseError
from groupwise.optim import resolve
from groupwise.plan import Plan
from groupwise.records import read


class Untrained(Shift):
    """The shift without its training on clean scans."""

    def model(self, seed: int) -> torch.nn.Module:
        return initialised(Network, seed)


JOBS = [Characters(), Untrained()]
every_job = pytest.mark.parametrize("job", JOBS, ids=lambda job: type(job).__name__)


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@every_job
def test_every_entry_begins_with_the_same_weights_and_sees_the_same_batches(job: Job) -> None:
    one, other = job.model(3).state_dict(), job.model(3).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
    for batch, again in zip(job.batches(3, 2), job.batches(3, 2), strict=True):
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(batch, again, strict=True))


@every_job
def test_a_training_does_not_touch_the_model_that_it_is_given(job: Job) -> None:
    model = job.model(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for entry in job.entries():
        train(job, entry, model, 0, 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


@every_job
def test_a_job_leaves_torchs_global_generator_alone(job: Job) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    train(job, job.entries()[0], job.model(0), 0, 1)
    assert torch.equal(torch.rand(1), expected)


@every_job
def test_the_screen_shows_plan_table_and_words_and_leaves_a_run_of_each_and_a_report(job: Job, tmp_path: Path) -> None:
    console = quiet()
    results = compare(job, 1, 2, console, tmp_path / "out")
    text = shown(console)
    assert text.index("comes to this") < text.index(f"{job.judged.name[1:]}:") < text.index("•")
    assert "±" not in text
    assert [len(found) for found in results.values()] == [1] * len(job.entries())
    for entry in job.entries():
        assert len(read(tmp_path / "out" / entry.key)) == 2
    assert "<html" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_several_seeds_show_their_spread() -> None:
    console = quiet()
    compare(Untrained(), 2, 1, console)
    assert "mean ± sd of 2 seeds" in shown(console)


@pytest.mark.parametrize(("seeds", "steps"), [(0, 1), (1, 0)])
def test_no_seed_or_no_step_is_refused(seeds: int, steps: int) -> None:
    with pytest.raises(GroupwiseError, match="at least one"):
        compare(Untrained(), seeds, steps, quiet())


@pytest.mark.parametrize(
    ("ours", "theirs", "said"), [(1.9, 2.3, "is ahead of"), (2.3, 2.31, "is level with"), (2.5, 2.3, "is behind")]
)
def test_a_loss_is_better_the_smaller_it_is(ours: float, theirs: float, said: str) -> None:
    sentence, moral = words(Characters(), {"the plan": [Result(ours, 1.0)], "one AdamW": [Result(theirs, 1.0)]})
    assert sentence.startswith(f'"the plan" {said} "one AdamW"')
    assert moral


@pytest.mark.parametrize("job", [Characters(), Shift()], ids=lambda job: type(job).__name__)
def test_every_outcome_has_its_moral(job: Job) -> None:
    assert len({job.moral(place) for place in ("ahead", "level", "behind")}) == 3


def test_muon_gets_the_matrices_and_neither_embeddings_nor_head() -> None:
    job = Characters()
    resolution = resolve(job.model(0), Plan.load(job.plan()))
    algorithms = {info.name: group.algorithm for group in resolution.groups for info in group.parameters}
    assert {name for name, algorithm in algorithms.items() if algorithm == "Muon"} == {
        f"blocks.{block}.{part}.weight" for block in range(3) for part in ("q", "k", "v", "out", "up", "down")
    }


def test_the_character_model_sees_no_later_character() -> None:
    model = initialised(lambda: CharacterModel(10), 0)
    text = torch.randint(10, (1, 20), generator=torch.Generator().manual_seed(0))
    changed = text.clone()
    changed[0, 15:] = (changed[0, 15:] + 1) % 10
    same, other = model(text), model(changed)
    torch.testing.assert_close(same[:, :15], other[:, :15])
    assert not torch.allclose(same[:, 15:], other[:, 15:])


def test_the_character_model_has_the_size_that_its_docstring_claims() -> None:
    parameters = sum(parameter.numel() for parameter in CharacterModel(load_text().kinds).parameters())
    assert 0.35e6 < parameters < 0.37e6


def test_a_few_steps_on_text_are_better_than_chance() -> None:
    job = Characters()
    result = train(job, job.entries()[0], job.model(0), 0, 20)
    assert result.score < 0.9 * torch.tensor(load_text().kinds).log()


def test_scans_that_are_judged_by_are_none_that_trained() -> None:
    found = scans(0)
    assert [len(part.digits) for part in found] == [900, 60, 837]
    seen = {image.mul(0.15).add(0.7).numpy().tobytes() for image in found.clean.images}
    seen |= {image.numpy().tobytes() for image in found.labelled.images}
    repeated = sum(image.numpy().tobytes() in seen for image in found.unseen.images)
    assert repeated <= 2, "scikit-learn has a few scans twice"


def test_the_plan_of_the_shift_moves_the_first_block_alone() -> None:
    job = Untrained()
    model = job.model(0)
    optimizer, _ = job.entries()[0].build(model, 5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    job.loss(model, next(job.batches(0, 1))).backward()
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if name.startswith("blocks.0.")}


def test_without_the_help_pages_the_demo_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    load_text.cache_clear()
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(GroupwiseError, match="groupwise demo two-digits"):
        load_text()


def test_an_unknown_demo_is_answered_with_the_nearest() -> None:
    with pytest.raises(GroupwiseError, match="did you mean 'characters'"):
        find("character")
    assert list(DEMOS) == ["two-digits", "characters", "shift"]
