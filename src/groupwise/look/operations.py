"""From operations to uses: what each of torch's operations does with the parameters that it is given.

A table by name of operation, since torch has few that matter: products, convolutions, gathers, norms, elementwise
ones, joins, reductions. Arguments of which no one is a parameter only hand on where the data came from; what is
computed from parameters alone stays a form of them, so weight norm, low-rank additions and `exp(logit_scale)` are seen
through. An operation that is in no row and mixes parameters with data is opaque.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, final

import torch

from groupwise.look.flow import Flow, Use
from groupwise.look.provenance import CONSTANT, DATA, As, Value, bits, joined


@final
@dataclass(frozen=True, slots=True)
class Given:
    """One tensor that an operation takes: the argument's name, the tensor, what is known of it."""

    name: str
    tensor: torch.Tensor
    value: Value


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as it ran; `name` is without namespace and overload."""

    name: str
    given: tuple[Given, ...]
    results: tuple[torch.Tensor, ...]

    @property
    def size(self) -> int:
        """The number of entries of the largest result."""
        return max((result.numel() for result in self.results), default=0)


Handler: TypeAlias = Callable[[Operation, Flow], Value]


def observe(operation: Operation, flow: Flow) -> Value:
    """Record what an operation uses; what is known of its results."""
    flow.operation = operation.name
    operation = _with_looked_up_rows(operation, flow)
    if not any(given.value.forms for given in operation.given):
        found = _of_data(operation)
    else:
        found = _TABLE.get(_plain(operation.name), _other)(operation, flow)
    if found.is_data and operation.results and not any(map(_is_real_number, operation.results)):
        found = replace(found, products=0, last=0, width=0)
    return found


def _with_looked_up_rows(operation: Operation, flow: Flow) -> Operation:
    """Rows of a table that meet other parameters are data, as a token's vector that a position's is added to."""
    formed = [given for given in operation.given if given.value.forms]
    if len(formed) < 2 or _plain(operation.name) not in _MEETINGS:
        return operation
    return replace(operation, given=tuple(_looked_up(given, flow) for given in operation.given))


def _looked_up(given: Given, flow: Flow) -> Given:
    tables = [i for i, how in given.value.forms if how == "rows" and len(flow.records[i].shape) == 2]
    if not tables:
        return given
    flow.use(tables, "rows", CONSTANT)
    return replace(given, value=given.value.as_data())


def _plain(name: str) -> str:
    """The name of the operation that is not in place."""
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _is_real_number(tensor: torch.Tensor) -> bool:
    return tensor.dtype.is_floating_point or tensor.dtype.is_complex


def _of_data(operation: Operation) -> Value:
    """Data and constants alone."""
    found, name = joined(given.value for given in operation.given), _plain(operation.name)
    if not operation.given:
        return DATA if name.startswith(("rand", "normal", "bernoulli")) else CONSTANT
    if not found.is_data:
        return found
    if name in _ELEMENTWISE_PRODUCTS:
        return _scaled_by_itself(operation, found)
    if name in _PRODUCTS:
        return replace(found, statistic=False, normed=False, last=0, width=0)
    if name in _REDUCTIONS:
        return replace(found, statistic=True, normed=False)
    if name in _NORMS:
        return replace(found, statistic=False, normed=True)
    return found.through(name)


def _scaled_by_itself(operation: Operation, found: Value) -> Value:
    """`x * rsqrt(mean(x²))`: a product of data and a statistic is normed, and so is what that multiplies."""
    values = [given.value for given in operation.given if given.value.is_data]
    mixed = len({value.statistic for value in values}) == 2
    return replace(found, normed=mixed or any(value.normed for value in values))


def _product(operation: Operation, flow: Flow) -> Value:
    """A product of matrices; of `addmm` and the like the first argument is added."""
    added_name = _ADDED_TO.get(operation.name, "")
    added = [given for given in operation.given if given.name == added_name]
    factors = [given for given in operation.given if given.name != added_name]
    formed = [given for given in factors if given.value.forms]
    if formed and len(formed) == len(factors):
        return _of_parameters(operation, formed, added, flow)
    data = joined(given.value.as_data() for given in factors if not given.value.forms)
    used = _owners(formed, flow)
    for given in formed:
        _multiply(operation, given, data, flow)
    result = _multiplied(operation, formed, data, used) if formed else _of_data(operation)
    return _with_added(added, result, flow)


def _of_parameters(operation: Operation, factors: list[Given], added: list[Given], flow: Flow) -> Value:
    """`B @ A`: still a form of parameters, each of which is multiplied by."""
    if len(factors) == 1:  # a matrix times itself, by way of one argument
        return factors[0].value
    for given in factors:
        chosen = [i for i, how in given.value.forms if how == "itself"]
        flow.multiply([i for i in chosen if len(flow.records[i].shape) > 1], "matrix", CONSTANT)
    return joined([*(given.value for given in factors), *(given.value for given in added)])


def _multiply(operation: Operation, given: Given, data: Value, flow: Flow) -> None:
    for i, how in given.value.forms:
        if how in ("itself", "rows"):
            flow.multiply([i], _kind_of_product(operation, given, how, flow.records[i].shape), data)
        elif how != "statistic":
            flow.use([i], "scale" if how == "scale" else "bias", data)


def _kind_of_product(operation: Operation, given: Given, how: As, shape: tuple[int, ...]) -> Use:
    if len(shape) < 2:
        return "vector"
    if how == "rows" and len(shape) == 2:
        return "rows"
    if len(shape) == 2:
        return "matrix"
    entries = 1
    for size in shape:
        entries *= size
    is_slice = given.tensor.numel() < entries
    return "stack" if how == "rows" or is_slice or operation.name in _BATCHED else "wide"


def _owners(formed: Iterable[Given], flow: Flow) -> int:
    found = 0
    for given in formed:
        found |= flow.owners(given.value.forms)
    return found


def _multiplied(operation: Operation, factors: Iterable[Given], data: Value, used: int) -> Value:
    features = [result.shape[-1] for result in operation.results if result.ndim]
    batch = max((g.tensor.shape[0] for g in factors if operation.name in _BATCHED and g.tensor.ndim > 2), default=1)
    width = max(features, default=1) * batch
    applied = _applied(factors)
    return Value((), True, data.sources | used, data.products | applied, applied, width)


def _applied(factors: Iterable[Given]) -> int:
    return bits(i for given in factors for i, how in given.value.forms if how != "statistic")


def _with_added(added: Iterable[Given], result: Value, flow: Flow, bias: Use = "bias") -> Value:
    for given in added:
        result = _add(given, result, flow, bias) if given.value.forms else joined([result, given.value])
    return result


def _convolution(operation: Operation, flow: Flow) -> Value:
    by_name = {given.name: given for given in operation.given}
    inputs = [given for given in operation.given if given.name not in ("weight", "bias")]
    data = _as_input(inputs, flow)
    weight, bias = by_name.get("weight"), [by_name["bias"]] if "bias" in by_name else []
    if weight is None or not weight.value.forms:
        return _with_added(bias, _of_data(operation), flow, "conv bias")
    used = flow.owners(weight.value.forms)
    for i, how in weight.value.forms:
        if how == "itself":
            flow.multiply([i], "conv" if len(flow.records[i].shape) > 2 else "matrix", data)
        elif how != "statistic":
            flow.use([i], "scale" if how == "scale" else "bias", data)
    width = operation.results[0].shape[1] if operation.results[0].ndim > 1 else 1
    applied = _applied([weight])
    result = Value((), True, data.sources | used, data.products | applied, applied, width)
    return _with_added(bias, result, flow, "conv bias")


def _as_input(given: Iterable[Given], flow: Flow) -> Value:
    """What an operation takes as data: parameters among it are tokens."""
    values = []
    for each in given:
        if each.value.forms:
            flow.use([i for i, how in each.value.forms if how != "statistic"], "token", CONSTANT)
        values.append(each.value.as_data())
    return joined(values)


def _norm(operation: Operation, flow: Flow) -> Value:
    data = _as_input([given for given in operation.given if given.name == "input"], flow)
    for name, use in (("weight", "norm"), ("bias", "norm shift")):
        for given in operation.given:
            if given.name == name:
                flow.use([i for i, _ in given.value.forms], use, data)  # type: ignore[arg-type]
    used = bits(i for given in operation.given if given.name in ("weight", "bias") for i, _ in given.value.forms)
    return replace(data, sources=data.sources | used, normed=True, statistic=False)


def _recurrent(operation: Operation, flow: Flow) -> Value:
    """All of an LSTM in one operation."""
    formed = [given for given in operation.given if given.value.forms]
    data = joined(given.value.as_data() for given in operation.given if not given.value.forms)
    used = 0
    for i in (i for given in formed for i, _ in given.value.forms):
        is_matrix = len(flow.records[i].shape) > 1
        (flow.multiply if is_matrix else flow.use)([i], "matrix" if is_matrix else "bias", data)
        used |= (1 << i) if is_matrix else 0
    return Value((), True, data.sources | used, data.products | used, used)


def _gathered(operation: Operation, flow: Flow) -> Value:
    """Rows by index. From a table that is looked up at once they are data; else what follows tells what they are."""
    tables = [given.value for given in operation.given if given.value.forms]
    data = [given.value for given in operation.given if given.value.is_data]
    if _plain(operation.name) not in _LOOKUPS:
        return joined([value.formed("rows") for value in tables])
    flow.use([i for table in tables for i, how in table.forms if how != "statistic"], "embedding", joined(data))
    return joined([*(table.as_data() for table in tables), *data])


def _added(operation: Operation, flow: Flow) -> Value:
    return _elementwise(operation, flow, _add, "shift")


def _scaled(operation: Operation, flow: Flow) -> Value:
    return _elementwise(operation, flow, _scale, "scale")


def _elementwise(operation: Operation, flow: Flow, apply: Callable[[Given, Value, Flow], Value], smaller: As) -> Value:
    """A parameter with data is used; with constants of no more entries, or with parameters, it stays a form."""
    formed = [given for given in operation.given if given.value.forms]
    others = [given for given in operation.given if not given.value.forms]
    if _is_statistic_of(formed, others):
        return joined(given.value for given in formed)
    if any(given.value.is_data or given.tensor.numel() > _entries(formed) for given in others):
        result = _of_data(replace(operation, given=tuple(others))).as_data()
        for given in formed:
            result = apply(given, result, flow)
        return result
    largest = operation.size
    return joined(
        given.value.formed(smaller) if given.tensor.numel() < largest else given.value for given in formed
    )  # fmt: skip


def _is_statistic_of(formed: Iterable[Given], others: Iterable[Given]) -> bool:
    """Whether the data among `others` comes of the same parameters alone, as the norm that a weight is divided by."""
    data = [given.value for given in others if given.value.is_data]
    sources = joined(data).sources
    return bool(sources) and not sources & ~bits(i for given in formed for i, _ in given.value.forms)


def _entries(formed: Iterable[Given]) -> int:
    return max(given.tensor.numel() for given in formed)


def _add(given: Given, data: Value, flow: Flow, bias: Use = "bias") -> Value:
    used = flow.owners(given.value.forms)
    for i, how in given.value.forms:
        if how == "statistic":
            continue
        record = flow.records[i]
        is_norm = data.normed and record.sides == 1 and how == "itself"
        is_table = record.sides > 1 and how != "shift" and record.numel != data.width
        use: Use = "norm shift" if is_norm else bias
        if is_table:
            use = "rows" if how == "rows" else "table"
        flow.add([i], use if how != "scale" else "scale", data)
    return replace(data, sources=data.sources | used, statistic=False, normed=False)


def _scale(given: Given, data: Value, flow: Flow) -> Value:
    used = flow.owners(given.value.forms)
    for i, how in given.value.forms:
        if how == "statistic":
            continue
        record = flow.records[i]
        is_norm = data.normed and record.sides == 1 and how == "itself"
        use: Use = "norm" if is_norm else "bias" if how == "shift" else "scale"
        if how == "rows" and record.sides > 1:
            use = "rows"
        flow.use([i], use, data)
    return replace(data, sources=data.sources | used, statistic=False)


def _placed(operation: Operation, flow: Flow) -> Value:
    """Parameters that stand beside data, or in places of it: tokens; a number for each head beside scores: scales."""
    data = [given.value for given in operation.given if given.value.is_data]
    if not data:
        return joined(given.value for given in operation.given)
    context = joined(data)
    for given in operation.given:
        is_spread = given.tensor.ndim > 1 and given.tensor.shape[-1] == 1
        for i, how in given.value.forms:
            if how != "statistic":
                flow.use([i], "scale" if is_spread and flow.records[i].sides < 2 else "token", context)
    return joined([context, *(given.value.as_data() for given in operation.given if given.value.forms)])


def _as_data(operation: Operation, flow: Flow) -> Value:
    return replace(_as_input(operation.given, flow), statistic=False, normed=False)


def _reduced(operation: Operation, flow: Flow) -> Value:
    found = joined(given.value for given in operation.given)
    return _other(operation, flow) if found.is_data else found.formed("statistic")


def _weight_norm(operation: Operation, flow: Flow) -> Value:
    """`g * v / |v|` in one operation, of (v, g)."""
    direction, *lengths = operation.given
    return joined([direction.value, *(given.value.formed("scale") for given in lengths)])


def _other(operation: Operation, flow: Flow) -> Value:
    """An operation that is in no row."""
    found = joined(given.value for given in operation.given)
    if not found.is_data:
        return found
    context = joined(given.value for given in operation.given if given.value.is_data)
    flow.opaquely((i for given in operation.given for i, how in given.value.forms if how != "statistic"), context)
    return replace(found, statistic=False, normed=False)


_ADDED_TO: Final = {
    "addmm": "self", "addmv": "self", "addbmm": "self", "baddbmm": "self", "addmm_": "self", "baddbmm_": "self",
    "_addmm_activation": "self", "linear": "bias", "mkldnn_linear": "bias", "_scaled_mm": "bias", "bilinear": "bias",
    "_grouped_mm": "bias",
}  # fmt: skip
_BATCHED: Final = frozenset(
    {"bmm", "baddbmm", "baddbmm_", "_grouped_mm", "_scaled_grouped_mm", "_trilinear", "bilinear"}
)
_PRODUCTS: Final = frozenset(
    {
        "mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "matmul", "linear", "mkldnn_linear",
        "_addmm_activation", "_scaled_mm", "_int_mm", "_grouped_mm", "_scaled_grouped_mm", "_trilinear", "bilinear",
        "_weight_int8pack_mm", "_weight_int4pack_mm", "_sparse_mm", "sparse_sampled_addmm",
    }
)  # fmt: skip
_CONVOLUTIONS: Final = frozenset(
    {
        "convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution", "cudnn_convolution",
        "cudnn_convolution_transpose", "miopen_convolution", "miopen_depthwise_convolution", "_conv_depthwise2d",
        "conv_depthwise3d", "slow_conv3d", "thnn_conv2d", "conv1d", "conv2d", "conv3d", "deform_conv2d",
        "cudnn_convolution_relu", "mkldnn_convolution_pointwise",
    }
)  # fmt: skip
_NORMS: Final = frozenset(
    {
        "native_layer_norm", "layer_norm", "native_group_norm", "group_norm", "native_batch_norm", "batch_norm",
        "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_batch_norm_with_update",
        "_batch_norm_no_update", "cudnn_batch_norm", "miopen_batch_norm", "batch_norm_elemt", "instance_norm",
        "_fused_rms_norm", "rms_norm", "_fused_layer_norm",
    }
)  # fmt: skip
_RECURRENT: Final = frozenset(
    {
        "mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell",
        "rnn_tanh_cell", "rnn_relu_cell", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell", "_lstm_mps",
    }
)  # fmt: skip
_LOOKUPS: Final = frozenset(
    {"embedding", "_embedding_bag", "_embedding_bag_forward_only", "embedding_bag", "grid_sampler_2d",
     "grid_sampler_3d", "_cdist_forward", "cdist"}
)  # fmt: skip
_GATHERS: Final = frozenset(
    {*_LOOKUPS, "index", "_unsafe_index", "index_select", "gather", "take", "take_along_dim", "embedding_renorm"}
)
_ELEMENTWISE_PRODUCTS: Final = frozenset({"mul", "div"})
_SCALES: Final = frozenset(
    {*_ELEMENTWISE_PRODUCTS, "_prelu_kernel", "prelu", "pow", "lerp", "addcmul", "addcdiv", "minimum", "maximum",
     "clamp", "clamp_min", "clamp_max", "true_divide", "fmod", "remainder", "atan2", "xlogy", "gt", "lt", "ge", "le",
     "threshold", "_fake_quantize_learnable_per_tensor_affine", "_fake_quantize_learnable_per_channel_affine"}
)  # fmt: skip
_SUMS: Final = frozenset({"add", "sub", "rsub", "logaddexp"})
_JOINS: Final = frozenset(
    {
        "cat", "stack", "where", "copy", "index_put", "_index_put_impl", "masked_fill", "masked_scatter", "scatter",
        "slice_scatter", "select_scatter", "index_copy", "scatter_add", "index_add", "index_fill", "fill",
    }
)  # fmt: skip
_MEETINGS: Final = frozenset({*_PRODUCTS, *_SCALES, *_SUMS, "cat", "stack", "where"})
_TAKEN_AS_DATA: Final = frozenset(
    {
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_attention_math", "_scaled_dot_product_fused_attention_overrideable",
        "scaled_dot_product_attention", "_scaled_dot_product_attention_math_for_mps",
    }
)  # fmt: skip
_REDUCTIONS: Final = frozenset(
    {
        "mean", "sum", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm", "linalg_norm", "amax",
        "amin", "max", "min", "prod", "nansum", "logsumexp", "norm_except_dim", "linalg_matrix_norm", "cumsum",
    }
)  # fmt: skip

_TABLE: Final[Mapping[str, Handler]] = {
    name: handler
    for names, handler in (
        (_PRODUCTS, _product),
        (_CONVOLUTIONS, _convolution),
        (_NORMS, _norm),
        (_RECURRENT, _recurrent),
        (_GATHERS, _gathered),
        (_SCALES, _scaled),
        (_SUMS, _added),
        (_JOINS, _placed),
        (_TAKEN_AS_DATA, _as_data),
        (_REDUCTIONS, _reduced),
        (frozenset({"_weight_norm_interface", "_weight_norm", "_weight_norm_differentiable"}), _weight_norm),
    )
    for name in names
}
