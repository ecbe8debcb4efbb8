"""Roles: guessed from names and classes, each with its reason."""

import pytest
import torch
from hypothesis import given
from torch import nn

from groupwise.select import ROLES, ParameterInfo, parameters_of
from tests.select.models import (
    Conv1D,
    FrozenBatchNorm2d,
    LlamaRMSNorm,
    NormedLinear,
    ResNet,
    T5LayerNorm,
    ViT,
    WeightNormConv,
    language_model,
    lora,
    named,
)
from tests.select.samplers import infos

NORMS = (
    "LlamaRMSNorm BatchNormAct2d LayerNorm2d GlobalResponseNorm EvoNorm2dB0 LayerNormFp32 SimpleNorm "
    "ConvNextLayerNorm GroupNormAct BatchNormalization RMSNormGated Batchnorm FusedRMSNorm KimiLinearRMSNormGated "
    "ConvNextV2GRN"
)
NO_NORMS = (
    "NormedLinear WeightNormConv WeightNorm SpectralNorm Normalize NormalNoise ConvNormAct Mlp "
    "NormMlpClassifierHead Enormous LinearNorm LayerNormLinear LayerNormMLP"
)
TABLES = (
    "pos_embed position_embeddings positional_embedding class_embedding cls_token dist_token "
    "mask_token register_tokens reg_token relative_position_bias_table rel_pos_h absolute_pos_embed "
    "pos_embed_window time_pos_embed query_embed pos_emb latents codebook prompt soft_prompt no_object_pointer "
    "query_tokens bias_table probe"
)
CONVS = "DeformConv2d SubMConv3d StdConv2dSame Conv2DTranspose"
NO_CONVS = "Conv1D ConvBlock GraphConv"


def roles(model: nn.Module) -> dict[str, set[str]]:
    """Roles by name, with a layer behind the model so that nothing in it is a head."""
    model = named(model=model, last=nn.LayerNorm(1))
    return {i.name.removeprefix("model."): set(i.roles) for i in parameters_of(model) if i.name.startswith("model.")}


@pytest.mark.parametrize(
    "norm",
    [
        *(nn.LayerNorm(4), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm1d(4, affine=True), nn.RMSNorm(4)),
        *(nn.SyncBatchNorm(4), LlamaRMSNorm(4), T5LayerNorm(4), FrozenBatchNorm2d(4)),
    ],
    ids=lambda norm: type(norm).__name__,
)
def test_every_norm_is_one(norm: nn.Module) -> None:
    found = roles(norm)
    assert found["weight"] == {"norm", "weight"}
    assert found.get("bias", {"norm", "bias"}) == {"norm", "bias"}


def class_named(word: str, base: type = nn.Module) -> nn.Module:
    made = type(word, (base,), {})()
    made.weight = nn.Parameter(torch.zeros(4))
    return made


@pytest.mark.parametrize(
    "word",
    NORMS.split(),
)
def test_a_norm_is_known_by_its_name(word: str) -> None:
    assert "norm" in roles(class_named(word))["weight"]


@pytest.mark.parametrize(
    "word",
    NO_NORMS.split(),
)
def test_what_only_sounds_like_a_norm_is_none(word: str) -> None:
    assert "norm" not in roles(class_named(word))["weight"]


def test_a_linear_or_convolution_with_norm_in_its_name_is_none() -> None:
    assert roles(NormedLinear(3, 4))["weight"] == {"weight", "matrix"}
    assert roles(WeightNormConv())["weight"] == {"weight"}


def test_embeddings_are_tables_their_subclasses_and_bags() -> None:
    class WordTable(nn.Embedding):
        pass

    for table in (nn.Embedding(5, 3), nn.EmbeddingBag(5, 3), WordTable(5, 3)):
        assert roles(table)["weight"] == {"weight", "embedding"}
    assert "embedding" in roles(class_named("VocabParallelEmbedding"))["weight"]
    assert "embedding" not in roles(class_named("PatchEmbedding"))["weight"]


@pytest.mark.parametrize(
    "leaf",
    TABLES.split(),
)
def test_position_tables_and_tokens_held_as_bare_parameters_are_embeddings(leaf: str) -> None:
    assert roles(named(**{leaf: nn.Parameter(torch.zeros(1, 4, 8))}))[leaf] == {"embedding"}
    assert roles(named(**{leaf: nn.Parameter(torch.zeros(4, 1))}))[leaf] == {"embedding"}


SCALES = "temperature logit_scale alpha embed_scale A_log D log_std layer_scale lambda_1 sinks time_decay"
MATRICES = "proj token_mixer in_proj lora_A W_q w1 qkv weight"


@pytest.mark.parametrize("leaf", SCALES.split())
def test_what_is_named_as_a_scale_is_a_scalar_whatever_its_shape(leaf: str) -> None:
    for shape in [(), (4,), (4, 3), (1, 4), (1, 4, 1, 1)]:
        assert roles(named(**{leaf: nn.Parameter(torch.zeros(shape))}))[leaf] == {"scalar"}, shape


@pytest.mark.parametrize("leaf", MATRICES.split())
def test_two_dimensions_make_a_matrix_where_the_name_says_so(leaf: str) -> None:
    assert "matrix" in roles(named(**{leaf: nn.Parameter(torch.zeros(4, 3))}))[leaf]
    for shape in [(4, 1), (1, 4), (4,), (2, 4, 3)]:
        assert "matrix" not in roles(named(**{leaf: nn.Parameter(torch.zeros(shape))}))[leaf], shape


@pytest.mark.parametrize("leaf", ["mystery", "x", "attention_state"])
def test_two_dimensions_alone_say_nothing_and_one_dimension_scales(leaf: str) -> None:
    assert roles(named(**{leaf: nn.Parameter(torch.zeros(4, 3))}))[leaf] == set()
    assert roles(named(**{leaf: nn.Parameter(torch.zeros(4))}))[leaf] == {"scalar"}


@pytest.mark.parametrize(
    "leaf", ["bias", "gate_up_proj_bias", "pos_bias_u", "bias_ih_l0", "attention_biases", "r_w_bias"]
)
@pytest.mark.parametrize("shape", [(4,), (4, 3), (2, 4, 3), (1, 2, 4, 3)])
def test_a_bias_is_a_bias_whatever_its_shape_and_never_a_matrix(leaf: str, shape: tuple[int, ...]) -> None:
    assert roles(named(**{leaf: nn.Parameter(torch.zeros(shape))}))[leaf] == {"bias"}


def test_no_vector_is_left_without_a_word_that_a_rule_against_decay_can_say() -> None:
    model = named(
        norm=nn.LayerNorm(4), act=nn.PReLU(), rms=LlamaRMSNorm(4), scale=nn.Parameter(torch.ones(())),
        gain=nn.Parameter(torch.ones(4, 1, 1)), strange=nn.Parameter(torch.ones(4)),
        dt_bias=nn.Parameter(torch.ones(4)),
        class_embedding=nn.Parameter(torch.ones(4)), fc=nn.utils.parametrizations.weight_norm(nn.Linear(4, 5)),
    )  # fmt: skip
    words = {"norm", "bias", "scalar", "embedding"}
    assert [name for name, found in roles(model).items() if not found & words] == [
        "fc.parametrizations.weight.original1"
    ]


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_weight_norm_has_a_length_that_scales_and_a_direction_that_multiplies() -> None:
    old, new = nn.utils.weight_norm, nn.utils.parametrizations.weight_norm
    for made, length, direction in [
        (new(nn.Linear(4, 5)), "parametrizations.weight.original0", "parametrizations.weight.original1"),
        (old(nn.Linear(4, 5)), "weight_g", "weight_v"),
    ]:
        found = roles(made)
        assert found[length] == {"weight", "scalar"}
        assert found[direction] == {"weight", "matrix"}
    assert "embedding" not in roles(new(nn.Embedding(7, 4)))["parametrizations.weight.original0"]
    assert "matrix" in roles(nn.utils.parametrizations.orthogonal(nn.Linear(4, 4)))["parametrizations.weight.original"]


def mixture(experts: nn.Module, **more: nn.Module) -> nn.Module:
    return named(**more, experts=experts)


def test_the_experts_of_a_mixture_listed_or_stacked() -> None:
    stacked = named(gate_up_proj=nn.Parameter(torch.zeros(3, 8, 4)), gate_up_proj_bias=nn.Parameter(torch.zeros(3, 8)))
    found = roles(mixture(stacked, router=nn.Linear(4, 3)))
    assert found["experts.gate_up_proj"] == {"expert", "stack"}
    assert found["experts.gate_up_proj_bias"] == {"expert", "bias"}
    listed = roles(mixture(nn.ModuleList(nn.Linear(4, 4) for _ in range(2)), gate=nn.Linear(4, 2)))
    assert listed["experts.1.weight"] == {"expert", "weight", "matrix"}
    assert listed["experts.1.bias"] == {"expert", "bias"}
    assert listed["gate.weight"] == {"router", "weight"}
    flat = roles(mixture(named(w1=nn.Parameter(torch.zeros(24, 4)))))
    assert flat["experts.w1"] == {"expert"}


def test_a_router_chooses_among_experts_and_other_gates_do_not() -> None:
    experts = named(up_proj=nn.Parameter(torch.zeros(3, 8, 4)))
    found = roles(
        mixture(experts, gate=nn.Linear(4, 3), shared_expert_gate=nn.Linear(4, 1), shared_expert=nn.Linear(4, 4))
    )
    assert found["gate.weight"] == {"router", "weight"}
    assert found["shared_expert_gate.weight"] == {"router", "weight"}
    assert found["shared_expert.weight"] == {"weight", "matrix"}
    assert roles(named(gate=nn.Linear(4, 4), gate_proj=nn.Linear(4, 4))) == {
        "gate.weight": {"weight", "matrix"}, "gate.bias": {"bias"},
        "gate_proj.weight": {"weight", "matrix"}, "gate_proj.bias": {"bias"},
    }  # fmt: skip
    named_router = type("GptOssTopKRouter", (nn.Linear,), {})(4, 3)
    assert roles(named(mlp=named_router)) == {"mlp.weight": {"router", "weight"}, "mlp.bias": {"router", "bias"}}


def test_batches_of_matrices_are_stacks() -> None:
    assert roles(nn.Bilinear(3, 4, 5))["weight"] == {"weight", "stack"}
    assert roles(named(attn_bank=nn.Parameter(torch.zeros(2, 3, 4, 4))))["attn_bank"] == {"stack"}


def test_patch_embedding_is_a_convolution() -> None:
    assert roles(ViT())["patch_embed.proj.weight"] == {"weight", "conv"}


@pytest.mark.parametrize(
    ("leaf", "shape", "expected"),
    [
        ("bias", (8,), {"bias"}),
        ("in_proj_bias", (24,), {"bias"}),
        ("bias_ih_l0", (8,), {"bias"}),
        ("q_bias", (8,), {"bias"}),
        ("bias_k", (1, 1, 8), {"bias"}),
        ("logit_bias", (), {"bias"}),
        ("bias", (1, 8, 7, 7), {"bias"}),
        ("pos_bias_u", (2, 4), {"bias"}),
        ("in_proj_weight", (24, 8), {"weight", "matrix"}),
        ("weight_hh_l0", (8, 8), {"weight", "matrix"}),
        ("weight_g", (8, 1, 1), {"weight", "scalar"}),
        ("recurrent_kernel", (8, 8), {"weight", "matrix"}),
        ("gamma_1", (8,), {"weight", "scalar"}),
        ("beta", (), {"scalar"}),
    ],
)
def test_weight_and_bias_are_read_from_the_parameters_own_name(leaf: str, shape: tuple[int, ...], expected: set[str]):
    assert roles(named(**{leaf: nn.Parameter(torch.zeros(shape))}))[leaf] == expected


def test_attention_and_recurrent_layers_are_read_too() -> None:
    attention = roles(nn.MultiheadAttention(8, 2, add_bias_kv=True))
    assert attention["in_proj_weight"] == {"weight", "matrix"}
    assert attention["in_proj_bias"] == attention["bias_k"] == attention["out_proj.bias"] == {"bias"}
    lstm = roles(nn.LSTM(4, 8))
    assert lstm == {
        "weight_ih_l0": {"weight", "matrix"}, "weight_hh_l0": {"weight", "matrix"},
        "bias_ih_l0": {"bias"}, "bias_hh_l0": {"bias"},
    }  # fmt: skip


@pytest.mark.parametrize(
    "conv", [nn.Conv1d(2, 3, 1), nn.Conv2d(2, 3, 1), nn.Conv3d(2, 3, 1), nn.ConvTranspose2d(2, 3, 1)]
)
def test_convolutions_are_conv_their_biases_too(conv: nn.Module) -> None:
    assert roles(conv) == {"weight": {"weight", "conv"}, "bias": {"bias", "conv"}}


@pytest.mark.parametrize(
    ("word", "expected"),
    [*dict.fromkeys(CONVS.split(), True).items(), *dict.fromkeys(NO_CONVS.split(), False).items()],
)
def test_a_convolution_is_known_by_its_name(word: str, expected: bool) -> None:
    assert ("conv" in roles(class_named(word))["weight"]) is expected


def test_gpt2s_conv1d_is_linear() -> None:
    assert roles(Conv1D(3, 4)) == {"weight": {"weight", "matrix"}, "bias": {"bias"}}


def test_lora_names_are_matrices() -> None:
    found = {i.name: i.roles for i in parameters_of(lora())}
    for part in ("base_layer", "lora_A.default", "lora_B.default"):
        assert found[f"layers.0.q_proj.{part}.weight"] == {"weight", "matrix"}
    assert found["layers.0.q_proj.lora_embedding_A.default"] == {"embedding"}
    assert found["layers.0.norm.weight"] == {"weight", "norm"}
    assert found["score.weight"] == {"weight", "head"}


def test_a_tied_decoder_is_embedding_and_head_and_no_matrix() -> None:
    info = next(i for i in parameters_of(language_model()) if len(i.names) == 2)
    assert info.roles == {"weight", "embedding", "head"}
    assert [occurrence.roles for occurrence in info.occurrences] == [{"weight", "embedding"}, {"weight", "head"}]


def test_a_linear_tied_to_a_table_is_no_matrix_in_either_place() -> None:
    model = named(table=nn.Embedding(5, 4), mix=nn.Linear(4, 5, bias=False), norm=nn.LayerNorm(5))
    model.mix.weight = model.table.weight
    info = parameters_of(model)[0]
    assert info.roles == {"weight", "embedding"}


@pytest.mark.parametrize(
    "build", [ViT, ResNet, language_model, lora, lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True)]
)
def test_what_holds_of_roles_in_any_model(build) -> None:
    for info in parameters_of(build()):
        assert (
            info.roles == frozenset().union(*(occurrence.roles for occurrence in info.occurrences)) == set(info.reasons)
        )
        assert info.roles <= set(ROLES)
        dense = info.ndim == 2 and min(info.shape) > 1
        assert ("matrix" in info.roles) is (dense and not info.roles & {"embedding", "head"})
        assert not {"weight", "bias"} <= info.roles
        assert not {"norm", "conv"} <= info.roles
        assert all(len(occurrence.reasons) == len(occurrence.roles) for occurrence in info.occurrences)


@given(infos)
def test_roles_are_the_union_over_the_places(info: ParameterInfo) -> None:
    assert info.roles == {role for occurrence in info.occurrences for role in occurrence.roles} == set(info.reasons)


def test_every_role_has_a_reason_in_one_line() -> None:
    info = next(i for i in parameters_of(ViT()) if i.name == "head.weight")
    assert info.reasons == {"weight": "its own name is 'weight'", "head": "a linear layer that nothing follows"}
    norm = next(i for i in parameters_of(LlamaRMSNorm(3)))
    assert norm.reasons["norm"] == "its layer is a LlamaRMSNorm"
