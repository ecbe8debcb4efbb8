"""Tasks that regularise others, by their names: a divergence from a prior, the balance of experts, a penalty.

Such a term is at its least where a network says nothing, so it begins there, pulls against what is learnt, and need not
fall. That it does not is no fault of a run; that it owns a part of the model is.
"""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = re.compile(
    r"(?:^|[^a-z])(?:kld?|kl_?div(?:ergence)?|reg|regulari[sz](?:er|ation|ing)|aux|auxiliary|(?:load_?)?balanc(?:e|ing)"
    r"|penalty|prior|(?<!cross )(?<!cross_)(?<!cross-)entropy|z_?loss|commit(?:ment)?|sparsity|smoothness|l1|l2|gp|tv"
    r"|orthogonality|diversity)(?:$|[^a-z])",
    re.IGNORECASE,
)

WHY: Final = "A term that regularises begins where it is least, and need not fall."


def regularizes(task: str) -> bool:
    """Whether a task's name says that it regularises others."""
    return _NAMES.search(task) is not None
