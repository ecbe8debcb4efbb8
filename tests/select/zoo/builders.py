"""The models of the zoo, on the meta device: real architectures with few layers."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.vision import import_timm, import_torchvision

_SMALL: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 50,
}  # fmt: skip
_DECODER: dict[str, Any] = _SMALL | {"num_key_value_heads": 2, "head_dim": 16, "pad_token_id": None}
_EXPERTS: dict[str, Any] = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
_IMAGES: dict[str, Any] = {"image_size": 32, "patch_size": 16}


def transformers(model: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    """A model of transformers, of a config with some options."""

    def build() -> nn.Module:
        import_torchvision()
        import transformers as library

        with torch.device("meta"):
            made: nn.Module = getattr(library, model)(getattr(library, config)(**options))
        return made

    return build


def timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A model of timm."""

    def build() -> nn.Module:
        with torch.device("meta"):
            made: nn.Module = import_timm().create_model(name, **options)
        return made

    return build


class Recurrent(nn.Module):
    """A speech recogniser of the old kind: convolution, LSTM, GRU, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(8, 16, 3)
        self.norm = nn.BatchNorm1d(16)
        self.rnn = nn.LSTM(16, 16, num_layers=2, bidirectional=True)
        self.gru = nn.GRU(32, 16)
        self.fc = nn.Linear(16, 10)


class _Double(nn.Module):
    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(into, out, 3), nn.BatchNorm2d(out), nn.ReLU(), nn.Conv2d(out, out, 3), nn.BatchNorm2d(out)
        )


class _Up(nn.Module):
    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(into, out, 2, stride=2)
        self.conv = _Double(into, out)


class UNet(nn.Module):
    """The U-Net of milesial/Pytorch-UNet: one attribute a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.inc = _Double(3, 8)
        self.down1, self.down2 = (nn.Sequential(nn.MaxPool2d(2), _Double(n, 2 * n)) for n in (8, 16))
        self.up1, self.up2 = _Up(32, 16), _Up(16, 8)
        self.outc = nn.Conv2d(8, 2, 1)


BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "Llama": transformers("LlamaForCausalLM", "LlamaConfig", **_DECODER),
    "Qwen3": transformers("Qwen3ForCausalLM", "Qwen3Config", **_DECODER),
    "Qwen3-MoE": transformers("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **_DECODER, **_EXPERTS, num_experts=4),
    "Mixtral": transformers("MixtralForCausalLM", "MixtralConfig", **_DECODER, num_local_experts=4),
    "DeepSeek-V3": transformers(
        "DeepseekV3ForCausalLM", "DeepseekV3Config", **_SMALL, **_EXPERTS, first_k_dense_replace=1, n_routed_experts=4,
        n_group=1, topk_group=1, num_key_value_heads=4, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4,
        qk_nope_head_dim=4, v_head_dim=8, pad_token_id=None,
    ),
    "GPT-OSS": transformers(
        "GptOssForCausalLM", "GptOssConfig", **_DECODER, num_local_experts=4, num_experts_per_tok=2
    ),
    "GPT-2": transformers("GPT2LMHeadModel", "GPT2Config", vocab_size=50, n_embd=64, n_layer=3, n_head=4),
    "Mamba": transformers("MambaForCausalLM", "MambaConfig", vocab_size=50, hidden_size=64, num_hidden_layers=3),
    "Mamba-2": transformers(
        "Mamba2ForCausalLM", "Mamba2Config", vocab_size=50, hidden_size=64, num_hidden_layers=3, num_heads=8,
        head_dim=16, state_size=16, n_groups=1,
    ),
    "BERT": transformers("BertForSequenceClassification", "BertConfig", **_SMALL),
    "T5": transformers(
        "T5ForConditionalGeneration", "T5Config", vocab_size=50, d_model=64, d_ff=96, d_kv=16, num_layers=2, num_heads=4
    ),
    "Whisper": transformers(
        "WhisperForConditionalGeneration", "WhisperConfig", vocab_size=50, d_model=64, encoder_layers=2,
        decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=96, decoder_ffn_dim=96,
        max_source_positions=20, max_target_positions=20, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        decoder_start_token_id=1,
    ),
    "CLIP": transformers(
        "CLIPModel", "CLIPConfig", projection_dim=48, text_config=dict(_SMALL, num_hidden_layers=2),
        vision_config=dict({k: v for k, v in _SMALL.items() if k != "vocab_size"}, **_IMAGES),
    ),
    "DINOv2": transformers(
        "Dinov2ForImageClassification", "Dinov2Config", hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        image_size=28, patch_size=14,
    ),
    "DINOv3": transformers(
        "DINOv3ViTModel", "DINOv3ViTConfig", hidden_size=64, intermediate_size=96, num_hidden_layers=3,
        num_attention_heads=4, num_register_tokens=4, **_IMAGES,
    ),
    "DETR": transformers(
        "DetrForObjectDetection", "DetrConfig", d_model=64, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=96,
        decoder_ffn_dim=96, encoder_attention_heads=4, decoder_attention_heads=4, num_queries=5,
        use_timm_backbone=False, use_pretrained_backbone=False, backbone=None,
        backbone_config={
            "model_type": "resnet", "depths": [1, 1], "hidden_sizes": [16, 32], "embedding_size": 16,
            "layer_type": "basic", "out_features": ["stage2"],
        },
    ),
    "ViT": timm("vit_tiny_patch16_224", depth=3, init_values=1e-5, num_classes=5),
    "ConvNeXt": timm("convnext_atto", depths=(1, 2, 1, 1), dims=(8, 16, 24, 32), num_classes=5),
    "Swin": timm("swin_tiny_patch4_window7_224", depths=(1, 2), embed_dim=24, num_heads=(2, 4), num_classes=5),
    "U-Net": UNet,
    "RNN": Recurrent,
}  # fmt: skip
