"""Real architectures on the meta device, against tables written by hand.

`tables` says how they are read.
"""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from groupwise.look import parameters_of
from tests.look.networks import noise, renamed
from tests.look.tables import differences
from tests.vision import import_torchvision

IDS = torch.arange(8)[None]
PIXELS = torch.ones(1, 3, 64, 64)
SMALL = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
}  # fmt: skip
ROUTED = SMALL | {"num_key_value_heads": 2}
SEEN = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48, "patch_size": 8}
EARS = {
    "vocab_size": 64, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_mel_bins": 8,
    "max_source_positions": 10, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip
EYES = {
    "use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None, "d_model": 32,
    "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_queries": 5,
}  # fmt: skip
STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}

DECODER = """
model.embed_tokens.weight            0    embedding weight
model.layers.#.mlp.experts.*bias     n+1  bias expert
model.layers.#.mlp.experts.*         n+1  expert stack weight
model.layers.#.mlp.router.weight     n+1  router weight
model.layers.#.mlp.router.bias       n+1  bias router
model.layers.#.mlp.gate.weight       n+1  router weight
model.layers.#.self_attn.sinks       n+1  scalar
model.layers.#.*norm.weight          n+1  norm weight
model.layers.#.*bias                 n+1  bias
model.layers.#.*weight               n+1  matrix weight
model.norm.weight                    4    norm weight
lm_head.weight                       4    head weight
"""
ENCODER = """
*.embeddings.cls_token               0    embedding
*.embeddings.mask_token              0    embedding
*.embeddings.position_embeddings     0    embedding
*.embeddings.patch_*.weight          0    conv weight
*.embeddings.patch_*.bias            0    bias conv
*.embeddings.LayerNorm.weight        0    norm weight
*.embeddings.LayerNorm.bias          0    bias norm
*.embeddings.*weight                 0    embedding weight
*layer*.#.*lambda1                   n+1  scalar
*layer*.#.*LayerNorm.weight          n+1  norm weight
*layer*.#.*LayerNorm.bias            n+1  bias norm
*layer*.#.*norm*.weight              n+1  norm weight
*layer*.#.*norm*.bias                n+1  bias norm
*layer*.#.*weight                    n+1  matrix weight
*layer*.#.*bias                      n+1  bias
*.layernorm.weight                   4    norm weight
*.layernorm.bias                     4    bias norm
*.pooler.dense.weight                4    matrix weight
*.pooler.dense.bias                  4    bias
classifier.weight                    4    head weight
classifier.bias                      4    bias head
"""

TABLES: dict[str, tuple[str, str, dict[str, Any], Any, str]] = {
    "Llama": ("LlamaForCausalLM", "LlamaConfig", ROUTED, IDS, DECODER),
    "Qwen3": ("Qwen3ForCausalLM", "Qwen3Config", ROUTED, IDS, DECODER),
    "Qwen3 tied": (
        "Qwen3ForCausalLM", "Qwen3Config", ROUTED | {"tie_word_embeddings": True}, IDS,
        "model.embed_tokens.weight 0 embedding head weight" + DECODER,
    ),
    "Qwen3 MoE": (
        "Qwen3MoeForCausalLM", "Qwen3MoeConfig",
        ROUTED | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}, IDS, DECODER,
    ),
    "Mixtral": ("MixtralForCausalLM", "MixtralConfig", ROUTED | {"num_local_experts": 4}, IDS, DECODER),
    "GPT-OSS": ("GptOssForCausalLM", "GptOssConfig", ROUTED | {"num_local_experts": 4, "head_dim": 8}, IDS, DECODER),
    "DeepSeek-V3": (
        "DeepseekV3ForCausalLM", "DeepseekV3Config",
        SMALL | {"num_key_value_heads": 4, "n_routed_experts": 8, "n_group": 2, "topk_group": 1, "v_head_dim": 8,
                 "num_experts_per_tok": 2, "moe_intermediate_size": 16, "q_lora_rank": 16, "kv_lora_rank": 16,
                 "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "first_k_dense_replace": 1},
        IDS, DECODER,
    ),
    "GPT-2": (
        "GPT2LMHeadModel", "GPT2Config", {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4}, IDS,
        """
transformer.wte.weight     0    embedding head weight
transformer.wpe.weight     0    embedding weight
transformer.h.#.ln_*.weight n+1 norm weight
transformer.h.#.ln_*.bias  n+1  bias norm
transformer.h.#.*weight    n+1  matrix weight
transformer.h.#.*bias      n+1  bias
transformer.ln_f.weight    4    norm weight
transformer.ln_f.bias      4    bias norm
""",
    ),
    "Mamba": (
        "MambaForCausalLM", "MambaConfig", {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3}, IDS,
        """
backbone.embeddings.weight           0    embedding head weight
backbone.layers.#.mixer.A_log        n+1  scalar
backbone.layers.#.mixer.D            n+1  scalar
backbone.layers.#.mixer.conv1d.weight n+1 conv weight
backbone.layers.#.mixer.conv1d.bias  n+1  bias conv
backbone.layers.#.norm.weight        n+1  norm weight
backbone.layers.#.*weight            n+1  matrix weight
backbone.layers.#.*bias              n+1  bias
backbone.norm_f.weight               4    norm weight
""",
    ),
    "BERT": ("BertForSequenceClassification", "BertConfig", SMALL, IDS, ENCODER),
    "ViT": ("ViTForImageClassification", "ViTConfig", SEEN | {"image_size": 64}, PIXELS, ENCODER),
    "DINOv2": ("Dinov2ForImageClassification", "Dinov2Config", SEEN | {"image_size": 64}, PIXELS, ENCODER),
    "Swin": (
        "SwinForImageClassification", "SwinConfig",
        {"image_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [1, 2], "num_heads": [2, 2], "window_size": 4},
        PIXELS,
        """
*.patch_embeddings.*.weight          0    conv weight
*.patch_embeddings.*.bias            0    bias conv
*.embeddings.norm.weight             0    norm weight
*.embeddings.norm.bias               0    bias norm
*.layers.#.*bias_table               n+1  embedding
*.layers.#.*norm*.weight             n+1  norm weight
*.layers.#.*norm*.bias               n+1  bias norm
*.layers.#.*weight                   n+1  matrix weight
*.layers.#.*bias                     n+1  bias
swin.layernorm.weight                3    norm weight
swin.layernorm.bias                  3    bias norm
classifier.weight                    3    head weight
classifier.bias                      3    bias head
""",
    ),
    "Whisper": (
        "WhisperForConditionalGeneration", "WhisperConfig", EARS,
        {"input_features": torch.ones(1, 8, 20), "decoder_input_ids": IDS},
        """
model.decoder.embed_tokens.weight    0    embedding head weight
model.decoder.embed_positions.weight 0    embedding
model.encoder.embed_positions.weight 0    embedding weight
model.encoder.conv#.weight           0    conv weight
model.encoder.conv#.bias             0    bias conv
model.encoder.layer_norm.weight      2    norm weight
model.encoder.layer_norm.bias        2    bias norm
model.decoder.layer_norm.weight      5    norm weight
model.decoder.layer_norm.bias        5    bias norm
model.encoder.layers.#.*norm.weight  n+1  norm weight
model.encoder.layers.#.*norm.bias    n+1  bias norm
model.encoder.layers.#.*weight       n+1  matrix weight
model.encoder.layers.#.*bias         n+1  bias
model.decoder.layers.#.*norm.weight  n+3  norm weight
model.decoder.layers.#.*norm.bias    n+3  bias norm
model.decoder.layers.#.*weight       n+3  matrix weight
model.decoder.layers.#.*bias         n+3  bias
""",
    ),
    "T5": (
        "T5ForConditionalGeneration", "T5Config",
        {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
        {"input_ids": IDS, "decoder_input_ids": IDS},
        """
shared.weight                        0    embedding head weight
encoder.final_layer_norm.weight      2    norm weight
decoder.final_layer_norm.weight      5    norm weight
encoder.block.#.*attention_bias.*    n+1  embedding weight
decoder.block.#.*attention_bias.*    n+3  embedding weight
encoder.block.#.*norm.weight         n+1  norm weight
decoder.block.#.*norm.weight         n+3  norm weight
encoder.block.#.*weight              n+1  matrix weight
decoder.block.#.*weight              n+3  matrix weight
""",
    ),
    "Gemma3": (
        "Gemma3ForCausalLM", "Gemma3TextConfig", ROUTED | {"head_dim": 8}, IDS,
        "model.embed_tokens.weight 0 embedding head weight" + DECODER,
    ),
    "OLMoE": (
        "OlmoeForCausalLM", "OlmoeConfig", SMALL | {"num_experts": 4, "num_experts_per_tok": 2}, IDS, DECODER,
    ),
    "Falcon": (
        "FalconForCausalLM", "FalconConfig",
        {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}, IDS,
        """
transformer.word_embeddings.weight   0    embedding head weight
transformer.h.#.*layernorm.weight    n+1  norm weight
transformer.h.#.*layernorm.bias      n+1  bias norm
transformer.h.#.*weight              n+1  matrix weight
transformer.ln_f.weight              4    norm weight
transformer.ln_f.bias                4    bias norm
""",
    ),
    "RWKV": (
        "RwkvForCausalLM", "RwkvConfig", {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 3}, IDS,
        """
rwkv.embeddings.weight               0    embedding weight
rwkv.blocks.0.attention.time_decay   1    bias scalar
rwkv.blocks.#.attention.time_decay   n+1  bias
rwkv.blocks.#.attention.time_first   n+1  bias
rwkv.blocks.#.*time_mix_*            n+1  scalar
rwkv.blocks.#.*ln*.weight            n+1  norm weight
rwkv.blocks.#.*ln*.bias              n+1  bias norm
rwkv.blocks.#.*weight                n+1  matrix weight
rwkv.ln_out.weight                   4    norm weight
rwkv.ln_out.bias                     4    bias norm
head.weight                          4    head weight
""",
    ),
    "Jamba": (
        "JambaForCausalLM", "JambaConfig",
        ROUTED | {"num_experts": 4, "num_experts_per_tok": 2, "use_mamba_kernels": False, "attn_layer_period": 2,
                  "attn_layer_offset": 1},
        IDS,
        """
model.layers.#.mamba.A_log           n+1  scalar
model.layers.#.mamba.D               n+1  scalar
model.layers.#.mamba.conv1d.weight   n+1  conv weight
model.layers.#.mamba.conv1d.bias     n+1  bias conv
model.layers.#.feed_forward.router.weight n+1 router weight
model.layers.#.feed_forward.experts.* n+1 expert stack weight
model.final_layernorm.weight         4    norm weight
""" + DECODER,
    ),
    "ConvNeXt": (
        "ConvNextForImageClassification", "ConvNextConfig",
        {"hidden_sizes": [8, 16, 24], "depths": [1, 2, 1], "num_stages": 3}, PIXELS,
        """
*.embeddings.patch_embeddings.weight 0    conv weight
*.embeddings.patch_embeddings.bias   0    bias conv
*.embeddings.layernorm.weight        0    norm weight
*.embeddings.layernorm.bias          0    bias norm
*.stages.#.*layer_scale_parameter    n+1  scalar
*.stages.#.*layernorm.weight         n+1  norm weight
*.stages.#.*layernorm.bias           n+1  bias norm
*.stages.#.downsampling_layer.0.weight n+1 norm weight
*.stages.#.downsampling_layer.0.bias n+1  bias norm
*.stages.#.downsampling_layer.1.weight n+1 conv weight
*.stages.#.downsampling_layer.1.bias n+1  bias conv
*.stages.#.*dwconv.weight            n+1  conv weight
*.stages.#.*dwconv.bias              n+1  bias conv
*.stages.#.*weight                   n+1  matrix weight
*.stages.#.*bias                     n+1  bias
convnext.layernorm.weight            4    norm weight
convnext.layernorm.bias              4    bias norm
classifier.weight                    4    head weight
classifier.bias                      4    bias head
""",
    ),
    "PatchTST": (
        "PatchTSTForPrediction", "PatchTSTConfig",
        {"num_input_channels": 2, "context_length": 32, "patch_length": 4, "patch_stride": 4, "d_model": 16,
         "num_attention_heads": 4, "num_hidden_layers": 3, "ffn_dim": 32, "prediction_length": 4},
        {"past_values": torch.ones(2, 32, 2)},
        """
*.input_embedding.weight             0    matrix weight
*.input_embedding.bias               0    bias
*.position_enc                       0    embedding
*.layers.#.*batchnorm.weight         n+1  norm weight
*.layers.#.*batchnorm.bias           n+1  bias norm
*.layers.#.*weight                   n+1  matrix weight
*.layers.#.*bias                     n+1  bias
head.projection.weight               4    head weight
head.projection.bias                 4    bias head
""",
    ),
    "DETR": (
        "DetrForObjectDetection", "DetrConfig", EYES, {"pixel_values": PIXELS},
        """
*.embedder.*.convolution.weight          0    conv weight
*.embedder.*normalization.weight         0    norm weight
*.embedder.*normalization.bias           0    bias norm
*.stages.#.*.convolution.weight          n+1  conv weight
*.stages.#.*normalization.weight         n+1  norm weight
*.stages.#.*normalization.bias           n+1  bias norm
model.input_projection.weight            4    conv weight
model.input_projection.bias              4    bias conv
model.query_position_embeddings.weight   0    embedding
model.decoder.layernorm.weight           9    norm weight
model.decoder.layernorm.bias             9    bias norm
model.encoder.layers.#.*norm.weight      n+5  norm weight
model.encoder.layers.#.*norm.bias        n+5  bias norm
model.encoder.layers.#.*weight           n+5  matrix weight
model.encoder.layers.#.*bias             n+5  bias
model.decoder.layers.#.*norm.weight      n+7  norm weight
model.decoder.layers.#.*norm.bias        n+7  bias norm
model.decoder.layers.#.*weight           n+7  matrix weight
model.decoder.layers.#.*bias             n+7  bias
bbox_predictor.layers.2.weight           9    head weight
bbox_predictor.layers.2.bias             9    bias head
bbox_predictor.layers.#.weight           9    matrix weight
bbox_predictor.layers.#.bias             9    bias
class_labels_classifier.weight           9    head weight
class_labels_classifier.bias             9    bias head
""",
    ),
}  # fmt: skip


@functools.cache
def transformers() -> Any:
    import_torchvision()
    return importlib.import_module("transformers")


def built(model: str, config: str, options: dict[str, Any]) -> nn.Module:
    library = transformers()
    if config == "DetrConfig":
        options = options | {"backbone_config": library.ResNetConfig(**STAGES, out_features=["stage4"])}
    make: Callable[..., nn.Module] = getattr(library, model)
    made = getattr(library, config)(**options)
    with torch.device("meta"):
        return make(made).eval()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TABLES)
def test_roles_and_depth_are_those_written_down(name: str) -> None:
    model, config, options, example, table = TABLES[name]
    module = built(model, config, options)
    assert not differences(module, parameters_of(module, example=example), table)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TABLES)
def test_they_are_the_same_whatever_the_names(name: str) -> None:
    model, config, options, example, table = TABLES[name]
    module = built(model, config, options)
    of = {id(parameter): name for name, parameter in module.named_parameters()}
    assert not differences(module, parameters_of(renamed(module, noise(0)), example=example), table, of)


@pytest.mark.filterwarnings("ignore")
def test_two_towers_stand_side_by_side_and_what_joins_them_on_top() -> None:
    library = transformers()
    texts = SMALL | {"num_hidden_layers": 2}
    config = library.CLIPConfig(text_config=texts, vision_config=SEEN | {"image_size": 64})
    with torch.device("meta"):
        model = library.CLIPModel(config).eval()
    infos = {i.name: i for i in parameters_of(model, example={"input_ids": IDS, "pixel_values": PIXELS})}
    levels = {name: info.depth for name, info in infos.items()}
    assert [levels[f"text_model.encoder.layers.{i}.mlp.fc1.weight"] for i in range(2)] == [1, 2]
    assert [levels[f"vision_model.encoder.layers.{i}.mlp.fc1.weight"] for i in range(3)] == [1, 2, 3]
    assert (levels["text_projection.weight"], levels["visual_projection.weight"], levels["logit_scale"]) == (3, 4, 4)
    heads = {name for name, info in infos.items() if "head" in info.roles}
    assert heads == {"text_projection.weight", "visual_projection.weight"}


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "beit_base_patch16_224"])
def test_levels_are_timms_where_timm_counts_blocks(timm: Any, name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, global_pool="avg")
    theirs = timm.models.group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    assert {i.name: i.depth for i in parameters_of(model, example=torch.ones(1, 3, 224, 224))} == theirs
