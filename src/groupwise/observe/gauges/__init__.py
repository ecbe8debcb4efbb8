"""The statistics of a group: one quantity, one gauge, one file."""

from groupwise.observe.gauges.activation_rms import ACTIVATION_RMS
from groupwise.observe.gauges.clip_factor import CLIP_FACTOR
from groupwise.observe.gauges.contribution import CONTRIBUTION
from groupwise.observe.gauges.dead_units import DEAD_UNITS
from groupwise.observe.gauges.gauge import Gauge, readings
from groupwise.observe.gauges.grad_norm import GRAD_NORM
from groupwise.observe.gauges.gradient_cosine import GRADIENT_COSINE
from groupwise.observe.gauges.no_grad import NO_GRAD
from groupwise.observe.gauges.nonfinite import NONFINITE
from groupwise.observe.gauges.path_contribution import PATH_CONTRIBUTION
from groupwise.observe.gauges.relative_gradient import RELATIVE_GRADIENT
from groupwise.observe.gauges.step_size import STEP_SIZE
from groupwise.observe.gauges.step_size_high import STEP_SIZE_HIGH
from groupwise.observe.gauges.step_size_low import STEP_SIZE_LOW
from groupwise.observe.gauges.update_norm import UPDATE_NORM
from groupwise.observe.gauges.update_ratio import UPDATE_RATIO
from groupwise.observe.gauges.weight_norm import WEIGHT_NORM
from groupwise.observe.gauges.zero import ZERO

GAUGES: tuple[Gauge, ...] = (
    GRAD_NORM,
    CLIP_FACTOR,
    NONFINITE,
    NO_GRAD,
    WEIGHT_NORM,
    RELATIVE_GRADIENT,
    ZERO,
    GRADIENT_COSINE,
    UPDATE_NORM,
    UPDATE_RATIO,
    CONTRIBUTION,
    PATH_CONTRIBUTION,
    STEP_SIZE,
    STEP_SIZE_LOW,
    STEP_SIZE_HIGH,
    ACTIVATION_RMS,
    DEAD_UNITS,
)
"""All of them, in the order of the records."""

__all__ = ["GAUGES", "Gauge", "readings"]
