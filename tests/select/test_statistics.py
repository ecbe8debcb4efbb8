"""Statistics: what they are, on any kind of tensor, and selectors on them."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from groupwise.errors import SelectorError
from groupwise.select import STATISTICS, Occurrence, ParameterInfo, magnitude, parameters_of, select, statistic
from tests.select.models import named


def info_of(tensor: Any) -> ParameterInfo:
    return ParameterInfo((Occurrence("w"),), tuple(tensor.shape), parameter=tensor)


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20))
def test_they_are_what_numpy_says(values: list[float]) -> None:
    array = np.array(values, dtype=np.float64)
    expected = {
        "mean_abs": np.abs(array).mean(),
        "norm": np.linalg.norm(array),
        "rms": np.sqrt((array**2).mean()),
        "std": array.std(),
        "max_abs": np.abs(array).max(),
        "sparsity": (array == 0).mean(),
    }
    for tensor in (torch.tensor(values, dtype=torch.float64), array):
        for name, value in expected.items():
            assert info_of(tensor).statistic(name) == pytest.approx(value, rel=1e-6, abs=1e-12)


def test_the_gradients_are_those_of_the_last_backward() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0, 2.0]))
    info = info_of(weight)
    assert math.isnan(info.statistic("grad_norm"))
    weight.grad = torch.tensor([3.0, 0.0, -4.0])
    assert info.statistic("grad_norm") == 5.0
    assert info.statistic("grad_mean_abs") == pytest.approx(7 / 3)


def test_no_gradient_is_neither_small_nor_large() -> None:
    infos = parameters_of(nn.Linear(2, 2))
    assert select(statistic("grad_norm", below=1e9), infos) == ()
    assert select(statistic("grad_norm", above=-1.0), infos) == ()


def test_a_sparse_gradient_counts_every_row() -> None:
    table = nn.Embedding(10, 2, sparse=True)
    (table(torch.tensor([1, 1, 4])) * 2.0).sum().backward()
    info = parameters_of(table)[0]
    dense = table.weight.grad.to_dense()
    assert info.statistic("grad_norm") == pytest.approx(dense.norm().item())
    assert info.statistic("grad_mean_abs") == pytest.approx(dense.abs().mean().item())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.float8_e4m3fn, torch.complex64])
def test_narrow_integer_and_complex_weights_are_measured(dtype: torch.dtype) -> None:
    info = info_of(torch.full((70000,), 2.0).to(dtype))
    assert info.statistic("mean_abs") == pytest.approx(2.0)
    assert info.statistic("norm") == pytest.approx(2.0 * 70000**0.5)


def test_a_keras_like_variable_is_read_as_numpy() -> None:
    class Variable:
        shape = (2,)

        def numpy(self) -> np.ndarray:
            return np.array([3.0, -4.0])

    assert info_of(Variable()).statistic("norm") == 5.0


@pytest.mark.parametrize("name", STATISTICS)
def test_an_empty_parameter_measures_zero(name: str) -> None:
    weight = nn.Parameter(torch.zeros(0, 3))
    weight.grad = torch.zeros(0, 3)
    assert info_of(weight).statistic(name) == 0.0


def test_measuring_leaves_no_trace() -> None:
    weight = nn.Parameter(torch.ones(3))
    assert info_of(weight).statistic("norm") == pytest.approx(3**0.5)
    assert weight.grad is None
    assert weight.requires_grad


def test_a_value_is_read_anew_each_time() -> None:
    model = nn.Linear(2, 2, bias=False)
    info = parameters_of(model)[0]
    small = magnitude(below=0.5)
    with torch.no_grad():
        model.weight.fill_(0.1)
        assert small.matches(info)
        model.weight.fill_(0.9)
    assert not small.matches(info)


def test_ends_are_excluded() -> None:
    info = info_of(torch.ones(4))
    assert not magnitude(above=1.0).matches(info)
    assert not magnitude(below=1.0).matches(info)
    assert magnitude(above=0.5, below=1.5).matches(info)
    assert magnitude(above=0.5, of="sparsity").matches(info_of(torch.tensor([0.0, 0.0, 1.0])))
    assert str(magnitude(above=0.5, below=1.5, of="norm")) == "statistic(0.5 < norm < 1.5)"


@pytest.mark.parametrize("below", [0.5, 1.0])
def test_an_interval_that_holds_nothing_is_refused(below: float) -> None:
    with pytest.raises(SelectorError, match="above must be less than below"):
        magnitude(above=1.0, below=below)


def test_nan_weights_lie_nowhere() -> None:
    info = info_of(torch.tensor([math.nan, 1.0]))
    assert not magnitude(above=0.0).matches(info)
    assert not magnitude(below=1e9).matches(info)


def test_an_unknown_statistic_is_refused_with_the_nearest() -> None:
    with pytest.raises(SelectorError, match="parameter 'w': unknown statistic 'meanabs'; did you mean 'mean_abs'"):
        info_of(torch.ones(1)).statistic("meanabs")


@pytest.mark.parametrize("name", STATISTICS)
def test_meta_has_no_values(name: str) -> None:
    with torch.device("meta"):
        info = parameters_of(named(fc=nn.Linear(2, 2)))[0]
    with pytest.raises(SelectorError, match=f"parameter 'fc.weight': {name} cannot be measured: it lives on the meta"):
        info.statistic(name)


def test_data_without_a_tensor_has_no_values() -> None:
    with pytest.raises(SelectorError, match="nothing was kept of its tensor"):
        ParameterInfo((Occurrence("w"),), (2,)).statistic("norm")
