"""The names of torch's operations, by what they do. Where a name ends in `_`, in place, it is the one without.

A name that no row has mixes parameters with data in an unknown way, and is said to tell no role.
"""

from __future__ import annotations

from typing import Final

ADDED_TO: Final = {
    "addmm": "self", "addmv": "self", "addbmm": "self", "baddbmm": "self", "addmm_": "self", "baddbmm_": "self",
    "_addmm_activation": "self", "linear": "bias", "mkldnn_linear": "bias", "_scaled_mm": "bias", "bilinear": "bias",
    "_grouped_mm": "bias",
}  # fmt: skip
BATCHED: Final = frozenset(
    {"bmm", "baddbmm", "baddbmm_", "_grouped_mm", "_scaled_grouped_mm", "_trilinear", "bilinear"}
)
PRODUCTS: Final = frozenset(
    {
        "mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "vdot", "matmul", "linear", "mkldnn_linear",
        "_addmm_activation", "_scaled_mm", "_int_mm", "_grouped_mm", "_scaled_grouped_mm", "_trilinear", "bilinear",
        "_weight_int8pack_mm", "_weight_int4pack_mm", "_sparse_mm", "sparse_sampled_addmm",
    }
)  # fmt: skip
CONVOLUTIONS: Final = frozenset(
    {
        "convolution", "_convolution", "convolution_overrideable", "mkldnn_convolution", "cudnn_convolution",
        "cudnn_convolution_transpose", "miopen_convolution", "miopen_depthwise_convolution", "_conv_depthwise2d",
        "conv_depthwise3d", "slow_conv3d", "thnn_conv2d", "conv1d", "conv2d", "conv3d", "deform_conv2d",
        "cudnn_convolution_relu", "mkldnn_convolution_pointwise",
    }
)  # fmt: skip
NORMS: Final = frozenset(
    {
        "native_layer_norm", "layer_norm", "native_group_norm", "group_norm", "native_batch_norm", "batch_norm",
        "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_batch_norm_with_update",
        "_batch_norm_no_update", "cudnn_batch_norm", "miopen_batch_norm", "batch_norm_elemt", "instance_norm",
        "_fused_rms_norm", "rms_norm", "_fused_layer_norm",
    }
)  # fmt: skip
RECURRENT: Final = frozenset(
    {
        "mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell",
        "rnn_tanh_cell", "rnn_relu_cell", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell", "_lstm_mps",
    }
)  # fmt: skip
LOOKUPS: Final = frozenset(
    {"embedding", "_embedding_bag", "_embedding_bag_forward_only", "embedding_bag", "grid_sampler_2d",
     "grid_sampler_3d", "_cdist_forward", "cdist"}
)  # fmt: skip
GATHERS: Final = frozenset(
    {*LOOKUPS, "index", "_unsafe_index", "index_select", "gather", "take", "take_along_dim", "embedding_renorm"}
)
ELEMENTWISE_PRODUCTS: Final = frozenset({"mul", "div"})
SCALES: Final = frozenset(
    {*ELEMENTWISE_PRODUCTS, "_prelu_kernel", "prelu", "pow", "lerp", "addcmul", "addcdiv", "minimum", "maximum",
     "clamp", "clamp_min", "clamp_max", "true_divide", "fmod", "remainder", "atan2", "xlogy", "gt", "lt", "ge", "le",
     "threshold", "_fake_quantize_learnable_per_tensor_affine", "_fake_quantize_learnable_per_channel_affine"}
)  # fmt: skip
SUMS: Final = frozenset({"add", "sub", "rsub", "logaddexp"})
JOINS: Final = frozenset(
    {
        "cat", "stack", "where", "copy", "index_put", "_index_put_impl", "masked_fill", "masked_scatter", "scatter",
        "slice_scatter", "select_scatter", "index_copy", "scatter_add", "index_add", "index_fill", "fill",
    }
)  # fmt: skip
MEETINGS: Final = frozenset({*PRODUCTS, *SCALES, *SUMS, "cat", "stack", "where"})
TAKEN_AS_DATA: Final = frozenset(
    {
        "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_attention_math", "_scaled_dot_product_fused_attention_overrideable",
        "scaled_dot_product_attention", "_scaled_dot_product_attention_math_for_mps",
    }
)  # fmt: skip
REDUCTIONS: Final = frozenset(
    {
        "mean", "sum", "var", "std", "var_mean", "std_mean", "norm", "linalg_vector_norm", "linalg_norm", "amax",
        "amin", "max", "min", "prod", "nansum", "logsumexp", "norm_except_dim", "linalg_matrix_norm", "cumsum",
    }
)  # fmt: skip

CURVES: Final = frozenset(
    {"exp", "exp2", "expm1", "log", "log2", "log1p", "softplus", "sigmoid", "log_sigmoid_forward", "reciprocal",
     "rsqrt", "sqrt"}
)  # fmt: skip
"""What makes a parameter positive, bounded or an inverse: in such a form it scales others."""

CHOICES: Final = frozenset({"_softmax", "softmax", "_safe_softmax", "topk", "sort", "argsort", "argmax", "multinomial"})
"""What makes a choice, or the weights of a mixture, of scores."""

SCATTERS: Final = frozenset(
    {"index_put", "_index_put_impl", "index_copy", "index_add", "scatter", "scatter_add", "scatter_reduce"}
)
"""Writes to places given by index."""

WEIGHT_NORMS: Final = frozenset({"_weight_norm_interface", "_weight_norm", "_weight_norm_differentiable"})
