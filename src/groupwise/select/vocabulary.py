"""The words that people give to layers and parameters, and what each says. Class names count with their bases.

Everything here reads text alone, so it serves every framework; what else is known of a parameter is weighed in `roles`.
"""

from __future__ import annotations

import functools
import re

_KIND_OF_NORM = r"(RMS|Rms|Layer|Batch|Group|Instance|Scale|Response)[Nn]orm(alization)?"
_PLAIN_NORM = re.compile(_KIND_OF_NORM + r"((\d?[dD])?|Gated|Act|Layer|[Ff][Pp]\d+)$|GRN$")
_NORM = re.compile(r"(?<!Weight)(?<!Spectral)[Nn]orm(alization)?(?![a-z])")
_NOT_NORM = re.compile(
    r"Linear|Conv|Dense|M[Ll][Pp]|Head|Attention|Block|Encoder|Decoder|LSTM|GRU|RNN|Cell|Embed|Classifier|Residual"
)
_CONV = re.compile(r"Conv(Transpose)?[123N][dD]|Conv[123]DTranspose|ConvLSTM|ShortConvolution$")
_LINEAR = re.compile(r"(Linear|Dense)\d*$")
_MULTIPLYING = re.compile(r"LSTM|GRU|RNN|Cell$|Attention|Bilinear")
_EMBEDDING = re.compile(r"(?<!Patch)Embedding(Bag)?$")
_TABLE = re.compile(  # pos_embed, class_embedding, cls_token, relative_position_bias_table, latents, prompt, codebook
    r"(^|_)pos(ition(al)?)?_?(emb(ed(ding)?)?s?|enc(od(ing|er))?s?|ids?)(_|\d|$)|(^|_)emb(ed(ding)?)?s?(_?\d+)?$"
    r"|(^|_)tokens?(_?\d+)?$|(^|_)(rel(ative)?|abs(olute)?)_pos|(^|_)tables?(_|$)|^lora_embedding"
    r"|(^|_)(latents?(_\d[dD])?|quer(y|ies)|probes?|prompts?|code(book|vector)s?|vocab(ulary)?|cent(er|re|roid)s?|prototypes?|anchors?"
    r"|pointers?(_\w+)?|prefix(es)?|positions?|slots?|memor(y|ies)|lookup)(_?\d+)?$|(^|_)(pos|position|pe|cls|class|label)$"
    r"|^emb(ed(ding)?)?_\w+$|(^|_)embedding_parameter$|(^|_)ape$|(^|_)(newline|separator)$|^(image|view)_(begin|end|sep)$"
    r"|^(cls|mask|class|query|object|prompt|latent|vocab(ulary)?|code(book)?|type_token|segment_token)_\w+$",
    re.IGNORECASE,
)
_NO_TABLE = re.compile(  # latent_scaling_factor, pos_emb_alpha, query_proj: of a table, but no table
    r"(^|_)alphas?(_|$)|(^|_)(scal(e|es|ing|ar)|factors?|gains?|gates?|temperature|const|lambdas?|beta|gamma|norm|heads?|proj(ection)?"
    r"|weights?|kernels?|bias(es)?|mixer|logits?|log_var|log_std|dt)(_?\d+)?$",
    re.IGNORECASE,
)
_SURE_TABLE = re.compile(r"(^|_)tables?(_|$)|^vocab(ulary)?_|^lora_embedding", re.IGNORECASE)
_POSITIONS = re.compile(r"Pos(ition(al)?)?(Embed(ding)?s?|Enc(od(ing|er)s?))$", re.IGNORECASE)
_SCALE = re.compile(  # layer_scale, gamma_1, logit_scale, A_log, D, time_decay, sinks, weight_g, log_std
    r"(^|_)(scales?|scaling|gammas?|lambdas?|lamb|lam|temperatures?|temp|tau|alphas?|betas?|slopes?|sinks?|gains?|decays?|mix"
    r"|maa|mu|log|std|var|vars|sigma|variances?|eps|dt|const(ant)?s?|deltas?|time|freqs?|frequenc(y|ies)|phase|strengths?"
    r"|thresholds?|factors?|coef(f|ficient)?s?|ls|g|rates?|multipliers?|weighting|mask|forget|ratio)(_|\d|$)|^(A|D|u)\d*$",
)
_BIAS = frozenset({"bias", "biases"})
_WEIGHT = frozenset({"weight", "weights", "kernel", "gamma"})
_MATRIX = re.compile(  # in_proj, W_q, wq, w1, lora_A, qkv, token_mixer
    r"(^|_)(weights?|kernels?|proj(ection|ector)?s?|matri(x|ces)|mat|lora|qkv|kv|fc|linear|dense|mixer|mlp|bank|banks|up|down)"
    r"(_|\d|$)|^[wW](_?[a-z]{0,2}\d*)$|^(in|out|up|down|gate)_?proj|proj$",
)
_EXPERTS = re.compile(r"(?<!shared_)(?<!shared)(^|_)experts?(_?\d+)?$")
_EXPERTS_CLASS = re.compile(r"(?<!Shared)Experts?($|[A-Z])")
_ROUTER_CLASS = re.compile(r"Router|(TopK|Top[12]|M[oO]E|Expert)\w*Gate$|^Gate$")
_ROUTER = re.compile(r"(^|_)router(_|\d|$)|(^|_)shared_experts?_gat(e|ing)$")
_GATE = re.compile(r"^(\w+_)?(gat(e|ing)|wg)(_?(network|net|layer|linear|weight|score))?$")
_MIXTURE = re.compile(r"M[oO]E|Mixture|(?<!Shared)Experts")


@functools.lru_cache(maxsize=4096)
def is_conv(kinds: tuple[str, ...]) -> bool:
    """Whether a layer of these classes convolves; GPT-2's `Conv1D` is linear, Keras' has `BaseConv` above it."""
    if "_ConvNd" in kinds or "BaseConv" in kinds:
        return True
    return any(_CONV.search(kind) and kind != "Conv1D" for kind in kinds)


@functools.lru_cache(maxsize=4096)
def is_linear(kinds: tuple[str, ...]) -> bool:
    """Whether a layer of these classes is a dense affine map."""
    return not is_conv(kinds) and any(_LINEAR.search(kind) or kind == "Conv1D" for kind in kinds)


@functools.lru_cache(maxsize=4096)
def multiplies(kinds: tuple[str, ...]) -> str:
    """The class name that tells that a layer multiplies by its weights; empty where none does."""
    if is_linear(kinds):
        return next(kind for kind in kinds if _LINEAR.search(kind) or kind == "Conv1D")
    return next((kind for kind in kinds if _MULTIPLYING.search(kind)), "")


@functools.lru_cache(maxsize=4096)
def norm_kind(kinds: tuple[str, ...]) -> str:
    """The class name that makes a layer a normalisation; empty where none does."""
    if is_conv(kinds) or is_linear(kinds):
        return ""
    return next((kind for kind in kinds if _PLAIN_NORM.search(kind) or _is_other_norm(kind)), "")


def _is_other_norm(kind: str) -> bool:
    return _NORM.search(kind) is not None and not _NOT_NORM.search(kind)


@functools.lru_cache(maxsize=4096)
def embedding_kind(kinds: tuple[str, ...]) -> str:
    """The class name that makes a layer an embedding; empty where none does (PatchEmbed is a convolution)."""
    if is_conv(kinds) or is_linear(kinds):
        return ""
    return next((kind for kind in kinds if _EMBEDDING.search(kind)), "")


def words_of(leaf: str) -> set[str]:
    """The lower-case words in a parameter's own name."""
    return set(re.findall(r"[a-z]+", leaf.lower()))


def says_bias(leaf: str) -> bool:
    """`in_proj_bias`, `gate_up_proj_bias`, `attention_biases`; not `relative_position_bias_table`."""
    return bool(words_of(leaf) & _BIAS) and "table" not in words_of(leaf)


def says_weight(leaf: str) -> bool:
    """`weight_ih_l0`, `recurrent_kernel`, `gamma`."""
    return bool(words_of(leaf) & _WEIGHT) or leaf == "embeddings"


def says_table(leaf: str) -> bool:
    """`pos_embed`, `cls_token`, `codebook`, `latents`: rows that are looked up, or stand beside the data."""
    return _TABLE.search(leaf) is not None and (not _NO_TABLE.search(leaf) or _SURE_TABLE.search(leaf) is not None)


def holds_positions(name: str, kinds: tuple[str, ...]) -> bool:
    """A `position_embeddings`, an `AxialPositionEmbeddings`: what it holds itself are tables."""
    return any(map(_POSITIONS.search, (name.replace("_", ""), *kinds[:1])))


def says_scale(leaf: str) -> bool:
    """`logit_scale`, `A_log`, `gamma_1`, `weight_g`: what multiplies element by element."""
    return _SCALE.search(leaf) is not None


def says_matrix(leaf: str) -> bool:
    """`in_proj`, `W_q`, `lora_A`: what a product multiplies by."""
    return _MATRIX.search(leaf) is not None


def says_bank(leaf: str) -> bool:
    """`attn_bank`: the matrices of several layers in one tensor."""
    return bool(words_of(leaf) & {"bank", "banks"})


def says_experts(name: str, kinds: tuple[str, ...]) -> bool:
    """`experts`, `expert_3`, a `GptOssExperts`: the experts of a mixture, without those that every token passes."""
    return _EXPERTS.search(name.lower()) is not None or any(map(_EXPERTS_CLASS.search, kinds))


def says_router(name: str, kinds: tuple[str, ...]) -> bool:
    """`router`, `shared_expert_gate`, a `MixtralTopKRouter`."""
    return _ROUTER.search(name.lower()) is not None or any(map(_ROUTER_CLASS.search, kinds))


def says_gate(name: str) -> bool:
    """`gate`, `wg`: a router where experts stand beside it."""
    return _GATE.search(name.lower()) is not None


def is_mixture(kinds: tuple[str, ...]) -> bool:
    """A `SparseMoeBlock`, a `MixtureOfExperts`."""
    return any(map(_MIXTURE.search, kinds))
