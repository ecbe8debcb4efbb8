"""Keras' own optimizer tests pass with ours in place, but for those that ask what a plan says otherwise."""

import keras
import pytest

from tests.keras.keras_own import modules, run

STEP = "calls a part of one class's step, which is one step over all groups here"
EXCLUDE = "excludes from decay after the fact; a plan has a rule for it"
AT_BIND = "expects the constructor to refuse a number, which bind or the build does"
INSIDE = "reads attributes of the class, which the optimizer of a group has"
SAID = "expects the words of Keras' error, or its names"
SPARSE = "watches the assignments of one class; see check_sparse.py for those of a group"

CLASSES = (
    "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "Ftrl", "Lamb", "Lion", "Muon", "Nadam", "RMSprop",
    "SGD", "ScheduleFreeAdamW",
)  # fmt: skip
SPARSE_CASES = (
    "adadelta", "adafactor", "adagrad", "adam", "adam_amsgrad", "adamax", "adamw", "adamw_amsgrad", "ftrl", "lion",
    "loss_scale_optimizer_sgd", "nadam", "rmsprop", "rmsprop_momentum", "rmsprop_momentum_centered", "sgd",
    "sgd_momentum", "sgd_momentum_nesterov",
)  # fmt: skip

REFUSED: dict[str, str] = {
    **{f"{name}Test.{test}": STEP for name in CLASSES for test in ("test_clip_norm", "test_clip_value")},
    **{f"{name}Test.test_weight_decay": EXCLUDE for name in CLASSES if name not in ("Ftrl", "Muon")},
    "AdamWTest.test_weight_decay_is_none": AT_BIND,
    "FtrlTest.test_invalid_initial_accumulator_value": AT_BIND,
    "FtrlTest.test_invalid_l1_regularization_strength": AT_BIND,
    "FtrlTest.test_invalid_l2_regularization_strength": AT_BIND,
    "FtrlTest.test_invalid_l2_shrinkage_regularization_strength": AT_BIND,
    "FtrlTest.test_invalid_learning_rate_power": AT_BIND,
    "LionTest.test_invalid_beta_1": AT_BIND,
    "MuonTest.test_Newton_Schulz": INSIDE,
    "MuonTest.test_adamw_single_step": STEP,
    "MuonTest.test_adamw_weight_decay": STEP,
    "MuonTest.test_lr_adjust_2d": INSIDE,
    "MuonTest.test_lr_adjust_none": INSIDE,
    "MuonTest.test_muon_single_step": STEP,
    "MuonTest.test_muon_weight_decay": STEP,
    "MuonTest.test_should_use_adamw": INSIDE,
    "NadamTest.test_build_with_empty_var_list": INSIDE,
    "OptimizerTest.test_clip_args": SAID,
    "OptimizerTest.test_clip_norm": STEP,
    "OptimizerTest.test_clip_value": STEP,
    "OptimizerTest.test_global_clip_norm": STEP,
    "OptimizerTest.test_optimizer_auto_naming": SAID,
    "OptimizerTest.test_set_weights": SAID,
    "SGDTest.test_invalid_momentum": AT_BIND,
    "SGDTest.test_single_step": INSIDE,
    **{f"OptimizerSparseTest.test_sparse_gradients_{case}": SPARSE for case in SPARSE_CASES},
}
"""The tests that fail by design, and why."""

SLOW = {"jax": {f"OptimizerTest.test_gradient_accumulation_with_weigth_decay{i}" for i in range(11)}}
"""Keras compiles its accumulation anew at each eager step, ten seconds a class: these run without compiling it."""


@pytest.mark.parametrize("module", modules())
def test_what_keras_asks_of_its_optimizers_holds_of_ours(module: str) -> None:
    found = run(module, SLOW.get(keras.backend.backend(), set()))
    unexpected = [trace for test, trace in found.failed.items() if test not in REFUSED]
    assert not unexpected, "\n".join(unexpected)
    assert set(found.failed) == REFUSED.keys() & set(found.ran), "a test that is refused by design passes"
    assert found.made or not found.ran
