"""A survey of architectures that nobody prepared: what may be told of a parameter whatever the model is.

`python -m tests.select.zoo.test_survey` walks all of transformers' base models in place of the sample.
"""

import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from groupwise.select import ParameterInfo, parameters_of
from tests.vision import import_torchvision

SAMPLE = [
    "perceiver",
    "sam2_video",
    "seggpt",
    "reformer",
    "vits",
    "phi4_multimodal",
    "rwkv",
    "zamba",
    "jetmoe",
    "recurrent_gemma",
    "xlnet",
    "wavlm",
    "levit",
    "bark",
    "dinov3_convnext",
    "swiftformer",
    "kimi_linear",
    "falcon_mamba",
    "hunyuan_vl_vision",
    "mllama",
    "nllb-moe",
    "fastspeech2_conformer",
]
_SMALL = {"num_hidden_layers": 2, "num_layers": 2, "n_layer": 2, "n_layers": 2}
_DENSE = ("Linear", "Conv1D", "NonDynamicallyQuantizableLinear", "MultiheadAttention", "LSTM", "GRU")
_NAMES_OF_MATRICES = ("proj", "projection", "weight")


def built(config: Any) -> nn.Module | None:
    """The base model of a config on the meta device; None where it cannot be made."""
    import_torchvision()
    from transformers import AutoModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with torch.device("meta"):
                model: nn.Module = AutoModel.from_config(config)
        except Exception:  # whatever a default config lacks
            return None
    return model


def sampled(model_type: str) -> nn.Module | None:
    import_torchvision()
    from transformers import AutoConfig

    config = AutoConfig.for_model(model_type)
    for name, layers in _SMALL.items():
        if isinstance(getattr(config, name, None), int) and not hasattr(config, "layer_types"):
            setattr(config, name, min(layers, getattr(config, name)))
    return built(config) or built(AutoConfig.for_model(model_type))


def doubtful_matrices(model: nn.Module) -> Iterator[ParameterInfo]:
    """Parameters with the role `matrix` that neither a dense layer multiplies by nor a name says to be one."""
    layers = dict(model.named_modules())
    for info in parameters_of(model):
        path, _, own = info.name.rpartition(".")
        dense = any(kind.__name__.endswith(_DENSE) for kind in type(layers.get(path, model)).__mro__)
        if "matrix" in info.roles and (min(info.shape) < 2 or not (dense or own.endswith(_NAMES_OF_MATRICES))):
            yield info


def undecided_vectors(model: nn.Module) -> Iterator[ParameterInfo]:
    """Vectors and numbers that `role("norm", "bias", "scalar", "embedding")` does not take in."""
    for info in parameters_of(model):
        known = {"norm", "bias", "scalar", "embedding", "weight", "router"}  # weight and router: of a Linear(d, 1)
        if sum(size > 1 for size in info.shape) < 2 and not info.roles & known:
            yield info


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", SAMPLE)
def test_a_matrix_is_multiplied_by_and_every_vector_has_a_role_that_a_rule_can_say(model_type: str) -> None:
    model = sampled(model_type)
    if model is None:
        pytest.skip(f"{model_type} has no default model here")
    assert [info.name for info in doubtful_matrices(model)] == []
    assert [info.name for info in undecided_vectors(model)] == []


def survey() -> Iterator[str]:
    """What the laws find over every base model of transformers."""
    import_torchvision()
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    for config in MODEL_MAPPING:
        model = built(config())
        for info in () if model is None else (*doubtful_matrices(model), *undecided_vectors(model)):
            yield f"{config.model_type} {info.name} {info.shape} {sorted(info.roles)}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in survey())
