"""What is found by shape alone on the meta device is what torch gives there."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groupwise.look.shapes import Unknown, by_shape

aten = torch.ops.aten
SIZES = st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=3)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.int64])
UNARY = [aten.relu, aten.gelu, aten.silu, aten.sigmoid, aten.exp, aten.neg, aten.rsqrt]
BINARY = [aten.add, aten.sub, aten.mul, aten.div]


def same(known: object, right: object) -> bool:
    """Equal shapes, strides and dtypes."""
    one, other = (given if isinstance(given, tuple) else (given,) for given in (known, right))
    return [(t.shape, t.stride(), t.dtype) for t in one] == [(t.shape, t.stride(), t.dtype) for t in other]


@settings(max_examples=40)
@given(SIZES, SIZES, DTYPES, DTYPES, st.sampled_from(BINARY), st.booleans())
def test_two_tensors(one: list[int], other: list[int], dtype: torch.dtype, second: torch.dtype, op: object, t: bool):
    a, b = torch.empty(one, dtype=dtype, device="meta"), torch.empty(other, dtype=second, device="meta")
    a = a.mT if t and a.ndim > 1 else a
    known = by_shape(op.Tensor, (a, b), {})
    if known is not Unknown:
        right = op(a, b)
        assert (known.shape, known.dtype) == (right.shape, right.dtype)
        assert a.shape != b.shape or known.stride() == right.stride()
    elif dtype == second and dtype.is_floating_point:
        with pytest.raises(RuntimeError, match=r"size|dimension"):
            op(a, b)


@settings(max_examples=20)
@given(SIZES, st.sampled_from(UNARY), st.sampled_from([2, 0.5]))
def test_one_tensor(sizes: list[int], op: object, number: float) -> None:
    x = torch.empty(sizes, device="meta")
    assert same(by_shape(op.default, (x,), {}), op(x))
    assert same(by_shape(aten.mul.Tensor, (x, number), {}), x * number)
    assert by_shape(op.default, (x.long(),), {}) is Unknown


@settings(max_examples=20)
@given(SIZES, st.integers(1, 3), st.integers(1, 3))
def test_layer_norms_and_affine_products(sizes: list[int], inner: int, outer: int) -> None:
    x, w = torch.empty([*sizes, inner], device="meta"), torch.empty(inner, device="meta")
    assert same(by_shape(aten.native_layer_norm.default, (x, [inner], w, w, 1e-5), {}),
                torch.native_layer_norm(x, [inner], w, w, 1e-5))  # fmt: skip
    assert by_shape(aten.native_layer_norm.default, (x, [inner + 1], None, None, 1e-5), {}) is Unknown
    flat, matrix = x.reshape(-1, inner), torch.empty(outer, inner, device="meta").t()
    added = torch.empty(outer, device="meta")
    assert same(by_shape(aten.addmm.default, (added, flat, matrix), {}), torch.addmm(added, flat, matrix))
    assert by_shape(aten.addmm.default, (added, flat, flat), {}) is Unknown or inner == len(flat)
