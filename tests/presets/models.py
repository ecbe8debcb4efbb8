"""The architectures that the presets are for, from the libraries that people take them from, on the meta device.

Small in width and number of blocks, whole in structure: names, classes, ties and shapes are those of the real ones.
What no installed library holds (nanochat, SAGAN's networks, a YOLO, PEFT's wrapping) is written out with its names.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from tests.vision import import_timm, import_torchvision

Model = nn.Module | Mapping[str, nn.Module | torch.Tensor]

_TEXT = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_CAUSAL = _TEXT | {"num_key_value_heads": 1, "intermediate_size": 24, "head_dim": 8, "pad_token_id": 0}
_MIXTURE = _CAUSAL | {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
_ENCODER = _TEXT | {"intermediate_size": 24, "max_position_embeddings": 32, "pad_token_id": 0, "num_labels": 3}


def transformers_model(cls: str, config: str, settings: Mapping[str, Any]) -> nn.Module:
    """A model of transformers from its configuration."""
    import_torchvision()
    import transformers

    with torch.device("meta"):
        made: nn.Module = getattr(transformers, cls)(getattr(transformers, config)(**settings))
    return made


def llama() -> nn.Module:
    return transformers_model("LlamaForCausalLM", "LlamaConfig", _CAUSAL)


def qwen3() -> nn.Module:
    return transformers_model("Qwen3ForCausalLM", "Qwen3Config", _CAUSAL | {"tie_word_embeddings": True})


def qwen2() -> nn.Module:
    """With biases at q, k and v."""
    return transformers_model("Qwen2ForCausalLM", "Qwen2Config", _CAUSAL)


def mixtral() -> nn.Module:
    return transformers_model("MixtralForCausalLM", "MixtralConfig", _MIXTURE)


def qwen3_moe() -> nn.Module:
    return transformers_model("Qwen3MoeForCausalLM", "Qwen3MoeConfig", _MIXTURE)


def bert() -> nn.Module:
    return transformers_model("BertForSequenceClassification", "BertConfig", _ENCODER)


def roberta() -> nn.Module:
    return transformers_model("RobertaForSequenceClassification", "RobertaConfig", _ENCODER)


def deberta() -> nn.Module:
    return transformers_model("DebertaV2ForSequenceClassification", "DebertaV2Config", _ENCODER)


def clip() -> nn.Module:
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = tower | {"image_size": 32, "patch_size": 16}
    text = tower | {"vocab_size": 64, "max_position_embeddings": 16}
    return transformers_model("CLIPModel", "CLIPConfig", {"text_config": text, "vision_config": vision})


def siglip() -> nn.Module:
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = tower | {"image_size": 32, "patch_size": 16}
    text = tower | {"vocab_size": 64, "max_position_embeddings": 16}
    return transformers_model("SiglipModel", "SiglipConfig", {"text_config": text, "vision_config": vision})


def detr() -> nn.Module:
    """On a ResNet-18 of timm."""
    import_timm()
    settings = {"use_timm_backbone": True, "backbone": "resnet18", "use_pretrained_backbone": False}
    size = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 4}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "num_labels": 3}
    return transformers_model("DetrForObjectDetection", "DetrConfig", settings | size | heads)


def timm_vit(name: str, **settings: Any) -> nn.Module:
    """A vision transformer of timm."""
    timm = import_timm()
    with torch.device("meta"):
        made: nn.Module = timm.create_model(name, **settings)
    return made


def mae_vit() -> nn.Module:
    return timm_vit("vit_base_patch16_224", global_pool="avg")


def beit() -> nn.Module:
    return timm_vit("beit_base_patch16_224")


def dinov3() -> nn.Module:
    return timm_vit("vit_small_patch16_dinov3", num_classes=10)


def resnet() -> nn.Module:
    import_torchvision()
    from torchvision.models import resnet18

    with torch.device("meta"):
        made: nn.Module = resnet18()
    return made


def fcos() -> nn.Module:
    import_torchvision()
    from torchvision.models.detection import fcos_resnet50_fpn

    with torch.device("meta"):
        made: nn.Module = fcos_resnet50_fpn(weights=None, weights_backbone=None)
    return made


class Conv(nn.Module):
    """YOLO's convolution, norm and activation."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2, bias=False)
        self.bn = nn.BatchNorm2d(c2)
        self.act = nn.SiLU()


class Detect(nn.Module):
    """YOLOv8's heads at two scales, and the kernel that its box loss never trains."""

    def __init__(self, channels: tuple[int, ...], classes: int = 3) -> None:
        super().__init__()
        self.cv2 = nn.ModuleList(nn.Sequential(Conv(c, 16), nn.Conv2d(16, 64, 1)) for c in channels)
        self.cv3 = nn.ModuleList(nn.Sequential(Conv(c, 16), nn.Conv2d(16, classes, 1)) for c in channels)
        self.dfl = nn.Conv2d(16, 1, 1, bias=False).requires_grad_(False)


class Yolo(nn.Module):
    """YOLOv8's list of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(Conv(3, 8, 3, 2), Conv(8, 16, 3, 2), Conv(16, 32, 3, 2), Detect((16, 32)))


def yolo() -> nn.Module:
    with torch.device("meta"):
        return Yolo()


class LoraLinear(nn.Module):
    """PEFT's wrapping of a linear layer, with DoRA's magnitude if asked for."""

    def __init__(self, base: nn.Linear, rank: int = 4, dora: bool = False) -> None:
        super().__init__()
        self.base_layer = base.requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base.in_features, rank, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(rank, base.out_features, bias=False)})
        self.lora_embedding_A = nn.ParameterDict({})
        self.lora_magnitude_vector = nn.ModuleDict({})
        if dora:
            magnitude = nn.Module()
            magnitude.weight = nn.Parameter(torch.ones(base.out_features))
            self.lora_magnitude_vector["default"] = magnitude


def adapted(dora: bool = False) -> nn.Module:
    """Llama with adapters at q and v, under the names that PEFT gives."""
    model = llama().requires_grad_(False)
    with torch.device("meta"):
        for layer in model.get_submodule("model.layers").children():
            attention = layer.get_submodule("self_attn")
            for name in ("q_proj", "v_proj"):
                base = attention.get_submodule(name)
                attention.add_module(name, LoraLinear(base, dora=dora))  # type: ignore[arg-type]
    return nn.ModuleDict({"base_model": nn.ModuleDict({"model": model})})


def lora() -> nn.Module:
    return adapted()


def dora() -> nn.Module:
    return adapted(dora=True)


class NanoBlock(nn.Module):
    """A block of nanochat: attention, with a gate for value embeddings in every second one, and an MLP."""

    def __init__(self, width: int, gated: bool) -> None:
        super().__init__()
        self.attn = nn.ModuleDict(
            {name: nn.Linear(width, width, bias=False) for name in ("c_q", "c_k", "c_v", "c_proj")}
        )
        if gated:
            self.attn["ve_gate"] = nn.Linear(12, 2, bias=False)
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width, bias=False), "c_proj": nn.Linear(4 * width, width, bias=False)}
        )


class Nanochat(nn.Module):
    """nanochat's GPT: its parameters, in its order."""

    def __init__(self, width: int = 32, blocks: int = 4, words: int = 64) -> None:
        super().__init__()
        gated = [i % 2 == 1 for i in range(blocks)]
        layers = nn.ModuleList(NanoBlock(width, gate) for gate in gated)
        self.transformer = nn.ModuleDict({"wte": nn.Embedding(words, width), "h": layers})
        self.lm_head = nn.Linear(width, words, bias=False)
        self.resid_lambdas = nn.Parameter(torch.ones(blocks))
        self.x0_lambdas = nn.Parameter(torch.zeros(blocks))
        self.smear_gate = nn.Linear(24, 1, bias=False)
        self.smear_lambda = nn.Parameter(torch.zeros(1))
        self.backout_lambda = nn.Parameter(0.2 * torch.ones(1))
        self.value_embeds = nn.ModuleDict({str(i): nn.Embedding(words, width) for i in range(blocks) if gated[i]})


def nanochat() -> nn.Module:
    with torch.device("meta"):
        return Nanochat()


def gan() -> Mapping[str, nn.Module]:
    """DCGAN's two networks, with spectral norm in the discriminator as SAGAN has it."""
    with torch.device("meta"):
        up = nn.Sequential(
            nn.ConvTranspose2d(8, 16, 4), nn.BatchNorm2d(16), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1)
        )
        return {"generator": up, "discriminator": _spectral(nn.Conv2d(3, 16, 4, 2, 1), nn.Conv2d(16, 1, 4))}


def _spectral(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*(nn.utils.parametrizations.spectral_norm(layer) for layer in layers))


class Agent(nn.Module):
    """Spinning Up's actor and critic for continuous actions."""

    def __init__(self) -> None:
        super().__init__()
        self.pi = nn.Module()
        self.pi.log_std = nn.Parameter(torch.zeros(2))
        self.pi.mu_net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        self.v = nn.ModuleDict({"v_net": nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))})


def agent() -> nn.Module:
    with torch.device("meta"):
        return Agent()


def sac() -> Mapping[str, nn.Module]:
    """CleanRL's actor and its two critics."""
    with torch.device("meta"):
        return {"actor": nn.Linear(4, 2), "qf1": nn.Linear(6, 1), "qf2": nn.Linear(6, 1)}


def splats() -> Mapping[str, torch.Tensor]:
    """gsplat's attributes."""
    shapes = {
        "means": (9, 3),
        "scales": (9, 3),
        "quats": (9, 4),
        "opacities": (9,),
        "sh0": (9, 1, 3),
        "shN": (9, 15, 3),
    }
    return {name: nn.Parameter(torch.zeros(shape, device="meta")) for name, shape in shapes.items()}


class Gaussians(nn.Module):
    """The attributes under the names of the authors' code."""

    def __init__(self) -> None:
        super().__init__()
        names = {"_xyz": 3, "_features_dc": 3, "_features_rest": 45, "_scaling": 3, "_rotation": 4, "_opacity": 1}
        for name, width in names.items():
            setattr(self, name, nn.Parameter(torch.zeros(9, width)))


def gaussians() -> nn.Module:
    with torch.device("meta"):
        return Gaussians()


def two_tasks() -> nn.Module:
    """A ResNet's stages as the trunk, and DeepLab's head for each of two tasks."""
    import_torchvision()
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead

    with torch.device("meta"):
        trunk = nn.Sequential(*list(resnet().children())[:-2])
        return nn.ModuleDict(
            {"backbone": trunk, "heads": nn.ModuleDict({"seg": DeepLabHead(512, 3), "depth": DeepLabHead(512, 1)})}
        )


class AwdLstm(nn.Module):
    """fastai's AWD-LSTM with a classifier on top."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Embedding(64, 8)
        self.rnns = nn.ModuleList(nn.LSTM(8, 8) for _ in range(3))
        self.head = nn.Sequential(nn.BatchNorm1d(24), nn.Linear(24, 2))


def awd_lstm() -> nn.Module:
    with torch.device("meta"):
        return AwdLstm()


class Recommender(nn.Module):
    """NeuMF, with sparse tables: two for the product, two for the MLP."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("user_gmf", "item_gmf", "user_mlp", "item_mlp"):
            setattr(self, name, nn.Embedding(50, 8, sparse=True))
        self.mlp = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())
        self.predict = nn.Linear(16, 1)


def recommender() -> nn.Module:
    with torch.device("meta"):
        return Recommender()


def names(model: Model) -> Iterator[str]:
    """The names of a model's parameters."""
    parts = model.items() if isinstance(model, Mapping) else [("", model)]
    for key, part in parts:
        if isinstance(part, torch.Tensor):
            yield key
        else:
            yield from (f"{key}.{name}".lstrip(".") for name, _ in part.named_parameters())


FITTING: Mapping[str, tuple[Callable[[], Model], ...]] = {
    "llm-muon": (llama, qwen3, qwen2),
    "moe-muon": (mixtral, qwen3_moe),
    "nanochat": (nanochat,),
    "vit-finetune": (mae_vit, beit, dinov3),
    "detr": (detr,),
    "yolo": (yolo, fcos),
    "bert": (bert, roberta, deberta),
    "lora": (lora, dora),
    "lora-plus": (lora, dora),
    "gan": (gan,),
    "actor-critic": (agent, sac),
    "gaussian-splatting": (splats, gaussians),
    "clip": (clip, siglip),
    "multi-task": (two_tasks,),
    "gradual-unfreezing": (awd_lstm, resnet),
    "recommender": (recommender,),
}
"""By preset, models that it fits."""
