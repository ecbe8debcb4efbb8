"""Two trainings do not become one run, and what still records can be reached."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from groupwise.errors import GroupwiseWarning
from groupwise.observe import Observer
from groupwise.records import finished_after, read
from groupwise.report import describe
from tests.observe.nets import groups, net, train


def script(folder: Path, algorithm: type[torch.optim.Optimizer] = torch.optim.AdamW, **given: int) -> Observer:
    model = net()
    with Observer(algorithm(groups(model), lr=1e-3), folder, **given) as observer:  # type: ignore[call-arg, arg-type]
        train(model, observer._recorder._optimizer, observer, 3)
    return observer


@pytest.mark.parametrize("algorithm", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
def test_a_fresh_optimizer_on_a_finished_run_starts_a_folder_of_its_own_and_says_so(
    tmp_path: Path, algorithm: type[torch.optim.Optimizer]
) -> None:
    assert script(tmp_path / "first", algorithm).path == tmp_path / "first"
    for again in ("first-2", "first-3"):
        with pytest.warns(GroupwiseWarning, match=rf"holds a finished run of 3 updates.*is recorded in .*{again}\."):
            assert script(tmp_path / "first", algorithm).path == tmp_path / again
    assert [list(read(tmp_path / name).steps) for name in ("first", "first-2", "first-3")] == [[0, 1, 2]] * 3


def test_the_report_of_a_script_that_ran_twice_is_of_its_first_training_alone(tmp_path: Path) -> None:
    script(tmp_path / "first")
    with pytest.warns(GroupwiseWarning, match="this optimizer has made none"):
        script(tmp_path / "first")
    assert dict(describe(tmp_path / "first").runs[0].facts)["steps"] == "0 to 2"


def test_a_finished_run_goes_on_with_an_optimizer_that_was_loaded_or_a_step_that_is_given(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = script(tmp_path)
        model = net()
        optimizer = torch.optim.AdamW(groups(model), lr=1e-3)
        optimizer.load_state_dict(first._recorder._optimizer.state_dict())
        with Observer(optimizer, tmp_path) as observer:
            train(model, optimizer, observer, 2)
        script(tmp_path, step=5)
    assert list(read(tmp_path).steps) == list(range(8))


def test_a_run_that_broke_off_goes_on(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.AdamW(groups(model), lr=1e-3)
    with pytest.raises(ZeroDivisionError, match="by zero"), Observer(optimizer, tmp_path) as observer:
        train(model, optimizer, observer, 3)
        _ = 1 / 0
    assert finished_after(tmp_path) is None
    with pytest.warns(GroupwiseWarning, match="had no state when the run went on at step 3.*a folder of its own"):
        assert script(tmp_path).path == tmp_path
    assert finished_after(tmp_path) == 6
    assert "had no state" in describe(tmp_path).runs[0].verdict[0].head


def broken_off(folder: Path, algorithm: type[torch.optim.Optimizer]) -> dict[str, Any]:
    """The state of an optimizer whose run was not finished."""
    model = net()
    optimizer = algorithm(groups(model), lr=1e-3)  # type: ignore[call-arg]
    observer = Observer(optimizer, folder)
    train(model, optimizer, observer, 3)
    del observer
    return optimizer.state_dict()


@pytest.mark.parametrize("algorithm", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
@pytest.mark.parametrize("before", [True, False])
def test_a_run_that_broke_off_goes_on_in_silence_with_the_state_that_it_had(
    algorithm: type[torch.optim.Optimizer], before: bool, tmp_path: Path
) -> None:
    state, model = broken_off(tmp_path, algorithm), net()
    optimizer = algorithm(groups(model), lr=1e-3)  # type: ignore[call-arg]
    if before:
        optimizer.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Observer(optimizer, tmp_path) as observer:
            if not before:
                optimizer.load_state_dict(state)
            train(model, optimizer, observer, 2)
    assert list(read(tmp_path).steps) == list(range(5))


def test_observers_that_still_record_can_be_reached_and_closed(tmp_path: Path) -> None:
    held = [Observer(torch.optim.SGD(groups(net()), lr=0.1), path) for path in (tmp_path, None)]
    assert set(held) <= set(Observer.recording())
    for each in Observer.recording():
        each.close()
    assert Observer.recording() == ()
