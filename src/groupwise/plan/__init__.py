"""The cascade: rules, plans, and what a plan means for a model."""

from typing import TYPE_CHECKING

from groupwise import _lazy, _pickling
from groupwise.plan.algorithm import REQUIRED, Algorithm
from groupwise.plan.clip import Clip, ClipScope, clip_adaptive, clip_norm, clip_value
from groupwise.plan.declarations import Exact, Factor, exact, layer_decay, scale
from groupwise.plan.freezing import Timeline, after, unfreeze_down, until
from groupwise.plan.measured_factors import (
    GradientShare,
    MeasuredFactor,
    TrustRatio,
    UpdateRatio,
    gradient_share,
    trust_ratio,
    update_ratio,
)
from groupwise.plan.parts import Parts
from groupwise.plan.plan import Plan
from groupwise.plan.rule import Rule
from groupwise.plan.shape_factors import blocks, fan_in, fan_out

if TYPE_CHECKING:
    from groupwise.plan.difference import Change, Difference, differences, standings
    from groupwise.plan.explanation import Explained, Explanation
    from groupwise.plan.group import Group
    from groupwise.plan.joined import PartFactor, ResolvedPart
    from groupwise.plan.resolution import Resolution
    from groupwise.plan.setting import ScalarSetting, Setting, TupleSetting

__all__ = [
    "REQUIRED",
    "Algorithm",
    "Change",
    "Clip",
    "ClipScope",
    "Difference",
    "Exact",
    "Explained",
    "Explanation",
    "Factor",
    "GradientShare",
    "Group",
    "MeasuredFactor",
    "PartFactor",
    "Parts",
    "Plan",
    "Resolution",
    "ResolvedPart",
    "Rule",
    "ScalarSetting",
    "Setting",
    "Timeline",
    "TrustRatio",
    "TupleSetting",
    "UpdateRatio",
    "after",
    "blocks",
    "clip_adaptive",
    "clip_norm",
    "clip_value",
    "differences",
    "exact",
    "fan_in",
    "fan_out",
    "gradient_share",
    "layer_decay",
    "scale",
    "standings",
    "trust_ratio",
    "unfreeze_down",
    "until",
    "update_ratio",
]

_LAZY = {
    "Change": "difference",
    "Difference": "difference",
    "Explained": "explanation",
    "Explanation": "explanation",
    "Group": "group",
    "PartFactor": "joined",
    "Resolution": "resolution",
    "ResolvedPart": "joined",
    "ScalarSetting": "setting",
    "Setting": "setting",
    "TupleSetting": "setting",
    "differences": "difference",
    "standings": "difference",
}
__getattr__ = _lazy.on_first_use(__name__, _LAZY)


def __dir__() -> list[str]:
    return __all__


_pickling.by_name(__name__, [name for name in __all__ if name not in _LAZY])
