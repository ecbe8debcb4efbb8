"""Random parameters, tied ones among them, and random selectors over the same small vocabulary."""

from hypothesis import strategies as st

from groupwise.select import (
    ROLES,
    STATISTICS,
    Occurrence,
    ParameterInfo,
    Selector,
    depth,
    inside,
    kind,
    magnitude,
    name,
    ndim,
    network,
    regex,
    role,
    shape,
    size,
    statistic,
    tag,
)
from groupwise.select.selectors import all_of, any_of

CLASSES = ["Linear", "LayerNorm", "Conv2d", "Embedding", "Block"]
WORDS = st.sampled_from(["backbone", "head", "blocks", "0", "1", "10", "attn", "norm", "weight", "bias"])
PATHS = st.lists(WORDS, min_size=1, max_size=4).map(".".join)
NETWORKS = st.sampled_from(["", "generator", "critic"])
TAGS = st.sampled_from(["no_decay", "frozen"])
SMALL = st.integers(0, 4)

occurrences = st.builds(
    Occurrence,
    name=PATHS,
    module=PATHS,
    kinds=st.lists(st.sampled_from(CLASSES), max_size=2, unique=True).map(tuple),
    ancestors=st.frozensets(st.sampled_from(CLASSES), max_size=3),
    network=NETWORKS,
    depth=SMALL,
    aliases=st.lists(PATHS, max_size=1).map(tuple),
    reasons=st.lists(st.sampled_from(ROLES), max_size=3, unique=True).map(lambda rs: tuple((r, "sampled") for r in rs)),
)
infos = st.builds(
    ParameterInfo,
    occurrences=st.lists(occurrences, min_size=1, max_size=3).map(tuple),
    shape=st.lists(SMALL, max_size=4).map(tuple),
    tags=st.frozensets(TAGS),
)
numbers = st.floats(-1e6, 1e6, allow_nan=False)
globs = st.one_of(PATHS, PATHS.map("{}.*".format), PATHS.map("*.{}".format), st.just("*"), st.just("b[lL]ocks.?.*"))


def _ranges(make: type) -> st.SearchStrategy[Selector]:
    ends = st.tuples(SMALL, SMALL).map(sorted)
    return st.one_of(
        SMALL.map(make),
        SMALL.map(lambda low: make(min=low)),
        SMALL.map(lambda high: make(max=high)),
        ends.map(lambda pair: make(min=pair[0], max=pair[1])),
    )


static_atoms: st.SearchStrategy[Selector] = st.one_of(
    globs.map(name),
    PATHS.map(regex),
    st.sampled_from(CLASSES).map(kind),
    st.sampled_from(CLASSES).map(inside),
    st.sampled_from(ROLES).map(role),
    st.sampled_from(["generator", "critic"]).map(network),
    TAGS.map(tag),
    _ranges(ndim),
    _ranges(size),
    _ranges(depth),
    st.lists(st.none() | SMALL, max_size=4).map(shape),
)
value_atoms: st.SearchStrategy[Selector] = st.one_of(
    st.builds(
        lambda of, above: magnitude(above=above, of=of), st.sampled_from(["mean_abs", "norm", "sparsity"]), numbers
    ),
    st.builds(lambda which, below: statistic(which, below=below), st.sampled_from(STATISTICS), numbers),
    st.builds(
        lambda which, low, width: statistic(which, above=low, below=low + width),
        st.sampled_from(STATISTICS),
        numbers,
        st.integers(1, 9),
    ),
)


def _combined(parts: st.SearchStrategy[Selector]) -> st.SearchStrategy[Selector]:
    several = st.lists(parts, min_size=1, max_size=4)
    return st.one_of(several.map(any_of), several.map(all_of), parts.map(lambda part: ~part))


selectors = st.recursive(static_atoms, _combined, max_leaves=8)
fileable = st.recursive(static_atoms | value_atoms, _combined, max_leaves=12)
