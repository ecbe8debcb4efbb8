"""What a run's records say, against the run."""

import contextlib
import gc
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from groupwise import GroupwiseError, Plan, Rule, clip_norm
from groupwise.errors import GroupwiseWarning, RecordError
from groupwise.keras import BalancedModel, GroupedOptimizer, Observer, Static
from groupwise.records import Header, Writer, read
from groupwise.report import describe, rendered
from groupwise.schedules import linear
from tests.keras.nets import data, difference, fit, functional, weights
from tests.keras.reference import gradients, joint_norm

PLAN = Plan(
    [
        Rule("*", optimizer="SGD", lr=linear(0.1, 0.0), momentum=0.5, clip=clip_norm(0.1)),
        Rule("head", optimizer="AdamW", lr=0.01, weight_decay=0.1, beta1=0.8),
    ]
)


def compiled(**options: Any) -> Any:
    model = functional()
    model.compile(GroupedOptimizer(PLAN, total_steps=8, **options).bind(model), "mse")
    return model


def test_a_run_holds_the_values_and_norms_of_every_update(tmp_path: Path) -> None:
    model = compiled()
    optimizer = model.optimizer
    optimizer.learning_rate = 0.5
    seen: list[Any] = [weights(model)]
    after = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(_synced(model)))
    fit(model, callbacks=[Observer(tmp_path), after])
    run = read(tmp_path)
    assert list(run.steps) == list(range(8))
    rates = run.series("values", "base", "lr")[1]
    assert np.allclose(rates, [0.5 * linear(0.1, 0.0).at(t, 8) for t in range(8)])
    assert np.allclose(run.series("values", "head", "beta1")[1], 0.8)
    x, y = data()
    for t in range(8):
        rows = slice(8 * (t % 4), 8 * (t % 4) + 8)
        g = gradients(seen[t], x[rows], y[rows])
        moved = {name: seen[t + 1][name] - seen[t][name] for name in g}
        expected = {
            "grad_norm": joint_norm(g, "body"),
            "clip_factor": min(1.0, 0.1 / joint_norm(g)),
            "weight_norm": joint_norm(seen[t], "body"),
            "update_norm": joint_norm(moved, "body"),
            "contribution": -sum((g[name] * moved[name]).sum() for name in g if name.startswith("body")),
            "no_grad": 0.0,
        }
        found = {name: run.series("groups", "base", name)[1][t] for name in expected}
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)


def _synced(model: Any) -> Any:
    if keras.backend.backend() == "jax":
        model.jax_state_sync()
    return weights(model)


def test_looking_changes_nothing_and_what_is_compiled_already_begins_to_measure(tmp_path: Path) -> None:
    watched, alone = compiled(), compiled()
    for model in (watched, alone):
        fit(model, epochs=1)
    fit(watched, epochs=1, callbacks=[Observer(tmp_path)])
    fit(alone, epochs=1)
    assert difference(watched, alone) < 1e-7
    assert min(read(tmp_path).series("groups", "base", "update_norm")[1]) > 0


def test_the_header_says_what_the_groups_are(tmp_path: Path) -> None:
    fit(compiled(), callbacks=[Observer(tmp_path, every=3)])
    run = read(tmp_path)
    assert list(run.steps) == [2, 5]
    names = [(group.name, group.algorithm, group.tensors, group.parameters) for group in run.groups]
    assert names == [("base", "SGD", 2, 25), ("head", "AdamW", 2, 6)]
    assert run.header.total_steps == 8
    assert keras.backend.backend() in run.header.writer
    assert [(event.step, event.event) for event in run.events] == [(8, "finished")]


class Interruption(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Ctrl-C after the third batch."""

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            raise KeyboardInterrupt("enough")


def test_a_fit_that_was_interrupted_does_not_hold_the_folder(tmp_path: Path) -> None:
    model, left = compiled(), Observer(tmp_path)
    with pytest.raises(KeyboardInterrupt, match="enough"):
        fit(model, epochs=1, callbacks=[left, Interruption()])
    fit(compiled(), callbacks=[Observer(tmp_path)])
    run = read(tmp_path)
    assert list(run.steps) == list(range(8))
    assert [(event.step, event.event) for event in run.events] == [(0, "resumed"), (8, "finished")]


class Failing(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Raises at one of the moments of a fit."""

    def __init__(self, moment: str) -> None:
        super().__init__()
        setattr(self, moment, self._fail)

    def _fail(self, *_: Any, **__: Any) -> None:
        raise ArithmeticError("enough")


MOMENTS = ["on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_epoch_end"]


@pytest.mark.filterwarnings("ignore:the run went on past its end")
@pytest.mark.parametrize(
    ("moment", "first"),
    [
        *((moment, i % 2 == 0) for i, moment in enumerate(MOMENTS)),
        ("on_train_end", False),
        ("on_train_end", True),
        ("", True),
    ],
)
def test_measuring_ends_with_the_fit_that_is_observed_however_that_ends(
    moment: str, first: bool, tmp_path: Path
) -> None:
    model, twin = compiled(), compiled()
    optimizer = model.optimizer
    fit(model, epochs=1)
    fit(twin, epochs=1)
    observers = [Observer(tmp_path / "one"), Observer(tmp_path / "two", every=2)]
    others = [Failing(moment)] if moment else []
    with contextlib.suppress(ArithmeticError):
        fit(model, epochs=1, callbacks=[*others, *observers] if first else [*observers, *others])
    with contextlib.suppress(ArithmeticError):
        fit(twin, epochs=1, callbacks=others)
    assert not optimizer.measuring
    before = optimizer.measured
    fit(model, epochs=1)  # nobody observes it
    fit(twin, epochs=1)
    assert optimizer.measured == before
    assert not optimizer.measuring
    assert difference(model, twin) < 1e-6
    assert type(model.train_function).__name__ == type(twin.train_function).__name__
    for folder, every in (("one", 1), ("two", 2)):
        fit(model, epochs=1, callbacks=[Observer(tmp_path / folder, every=every)])
        norms = read(tmp_path / folder).series("groups", "base", "update_norm")[1]
        assert min(norms) > 0
    assert optimizer.measured != before


def test_a_batch_that_is_trained_by_hand_is_not_measured(tmp_path: Path) -> None:
    model = compiled()
    fit(model, epochs=1, callbacks=[Observer(tmp_path)])
    before = model.optimizer.measured
    x, y = (array.astype("float32")[:8] for array in data())
    model.train_on_batch(x, y)
    assert model.optimizer.measured == before


@pytest.mark.filterwarnings("ignore:the run went on past its end")
def test_several_fits_that_are_observed_measure_in_all_of_them(tmp_path: Path) -> None:
    model = compiled()
    for _ in range(3):
        fit(model, epochs=1, callbacks=[Observer(tmp_path)])
    norms = read(tmp_path).series("groups", "base", "update_norm")[1]
    assert len(norms) == 12
    assert len(set(norms)) == 12


def test_a_model_that_is_compiled_anew_is_measured_as_it_is_then(tmp_path: Path) -> None:
    model = compiled()
    fit(model, epochs=1, callbacks=[Observer(tmp_path)])
    model.compile(model.optimizer, "mae")
    history = fit(model, epochs=1, callbacks=[Observer(tmp_path)])
    x, y = (array.astype("float32") for array in data())
    found = float(np.abs(model.predict(x, verbose=0) - y).mean())
    assert history.history["loss"][0] == pytest.approx(found, rel=0.2)
    assert len(read(tmp_path).series("groups", "base", "update_norm")[1]) == 8


def test_the_writer_of_an_observer_that_is_dropped_lets_go(tmp_path: Path) -> None:
    model, left = compiled(), Observer(tmp_path)
    with pytest.raises(KeyboardInterrupt, match="enough"):
        fit(model, epochs=1, callbacks=[left, Interruption()])
    del left, model
    gc.collect()
    Writer(tmp_path, Header()).close()


def test_an_observer_that_was_interrupted_writes_what_it_had_when_it_goes_on(tmp_path: Path) -> None:
    model, observer = compiled(), Observer(tmp_path)
    with pytest.raises(KeyboardInterrupt, match="enough"):
        fit(model, epochs=1, callbacks=[observer, Interruption()])
    fit(model, epochs=1, callbacks=[observer])
    assert list(read(tmp_path).steps) == list(range(7))


def test_a_full_disk_does_not_end_a_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, lines = compiled(), []

    def full(self: Writer, record: Any) -> None:
        lines.append(record)
        if len(lines) > 2:
            raise RecordError("cannot write part-000001.jsonl: No space left on device")

    monkeypatch.setattr(Writer, "write", full)
    with pytest.warns(GroupwiseWarning, match="recording stops at step 2: cannot write") as said:
        history = fit(model, callbacks=[Observer(tmp_path)])
    assert len(history.epoch) == 2
    assert sum(each.category is GroupwiseWarning for each in said) == 1
    assert len(lines) == 3


def test_a_second_fit_goes_on_in_the_same_run(tmp_path: Path) -> None:
    model = compiled()
    for _ in range(2):
        fit(model, epochs=1, callbacks=[Observer(tmp_path)])
    run = read(tmp_path)
    assert list(run.steps) == list(range(8))
    assert [(event.step, event.event) for event in run.events] == [(4, "resumed"), (8, "finished")]


def test_an_accumulated_update_is_one_step(tmp_path: Path) -> None:
    fit(compiled(gradient_accumulation_steps=2), callbacks=[Observer(tmp_path)])
    assert list(read(tmp_path).steps) == list(range(4))


def test_losses_and_validation_are_scalars_and_balanced_tasks_are_tasks(tmp_path: Path) -> None:
    inputs = keras.Input((4,))
    outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in ("near", "far")}
    model = BalancedModel(keras.Model(inputs, outputs), Static({"near": 0.25, "far": 1.0}))
    model.compile(GroupedOptimizer(Plan([Rule("*", optimizer="SGD", lr=0.1)])).bind(model), "mse")
    x, y = (array.astype("float32") for array in data())
    both = {"near": y, "far": 2 * y}
    history = model.fit(x, both, validation_data=(x, both), batch_size=8, verbose=0, callbacks=[Observer(tmp_path)])
    run = read(tmp_path)
    assert run.tasks == ["near", "far"]
    assert list(run.series("tasks", "near", "weight")[1]) == [0.25] * 4
    assert run.series("tasks", "far", "loss")[1][-1] == pytest.approx(history.history["far_loss"][0], rel=1e-5)
    assert run.series("scalars", "loss")[1][-1] == pytest.approx(history.history["loss"][0])
    assert run.series("scalars", "val_loss")[1][-1] == pytest.approx(history.history["val_loss"][0])


def test_what_cannot_be_recorded_says_why(tmp_path: Path) -> None:
    model = functional()
    model.compile("sgd", "mse")
    with pytest.raises(GroupwiseError, match=r"compiled with groupwise\.keras\.GroupedOptimizer, not with SGD"):
        fit(model, callbacks=[Observer(tmp_path)])
    with pytest.raises(GroupwiseError, match="positive whole number of batches, not 0"):
        Observer(tmp_path, every=0)


def test_a_page_advises_nothing_that_an_observer_of_keras_has_no_way_to_do(tmp_path: Path) -> None:
    fit(compiled(), callbacks=[Observer(tmp_path)])
    said = rendered(describe(tmp_path), "md")
    assert re.search(r"observer's|observer\.|Observer\(", said) is None
    assert "The records hold no `noise_scale`: an observed fit of Keras does not tell it." in said.replace("\\", "")
    assert "What Keras logs are running means over the epoch." in said
