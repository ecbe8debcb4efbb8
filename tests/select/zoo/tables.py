"""What every parameter of the zoo is for, and on which level it stands: written by hand, one row for parameters alike.

A row is a pattern of names, roles, a level. In a pattern `#` is a number, `*` one part of a name or a piece of it, and
`{a,b}` is a or b; a level of `#+1` is the pattern's first number plus one.
"""

_ATTENTION = "model.layers.#.self_attn.{q,k,v,o}_proj.weight         matrix weight     #+1"
_GATED = "model.layers.#.mlp.{gate,up,down}_proj.weight              matrix weight     #+1"
_EXPERTS = """
    model.layers.#.mlp.experts.{gate_up,down}_proj                   expert stack      #+1
    model.layers.#.mlp.gate.weight                                   router weight     #+1
"""
_AROUND = """
    model.embed_tokens.weight                                        embedding weight  0
    model.layers.#.{input,post_attention}_layernorm.weight           norm weight       #+1
    model.norm.weight                                                norm weight       4
    lm_head.weight                                                   head weight       4
"""

TABLES = {
    "Llama": _AROUND + _ATTENTION + "\n" + _GATED,
    "Qwen3": _AROUND + _ATTENTION + "\n" + _GATED + """
        model.layers.#.self_attn.{q,k}_norm.weight                   norm weight       #+1
    """,
    "Qwen3-MoE": _AROUND + _ATTENTION + _EXPERTS + """
        model.layers.#.self_attn.{q,k}_norm.weight                   norm weight       #+1
    """,
    "Mixtral": _AROUND + _ATTENTION + _EXPERTS,
    "DeepSeek-V3": _AROUND + _GATED + _EXPERTS + """
        model.layers.#.self_attn.{q_a,q_b,kv_b,o}_proj.weight        matrix weight     #+1
        model.layers.#.self_attn.kv_a_proj_with_mqa.weight           matrix weight     #+1
        model.layers.#.self_attn.{q,kv}_a_layernorm.weight           norm weight       #+1
        model.layers.#.mlp.shared_experts.{gate,up,down}_proj.weight matrix weight     #+1
    """,
    "GPT-OSS": _AROUND + _ATTENTION + """
        model.layers.#.self_attn.{q,k,v,o}_proj.bias                 bias              #+1
        model.layers.#.self_attn.sinks                               scalar            #+1
        model.layers.#.mlp.experts.{gate_up,down}_proj               expert stack      #+1
        model.layers.#.mlp.experts.{gate_up,down}_proj_bias          bias expert       #+1
        model.layers.#.mlp.router.weight                             router weight     #+1
        model.layers.#.mlp.router.bias                               bias router       #+1
    """,
    "GPT-2": """
        transformer.wte.weight                                       embedding head weight  0
        transformer.wpe.weight                                       embedding weight  0
        transformer.h.#.ln_*.weight                                  norm weight       #+1
        transformer.h.#.ln_*.bias                                    bias norm         #+1
        transformer.h.#.{attn,mlp}.c_*.weight                        matrix weight     #+1
        transformer.h.#.{attn,mlp}.c_*.bias                          bias              #+1
        transformer.ln_f.weight                                      norm weight       4
        transformer.ln_f.bias                                        bias norm         4
    """,
    "Mamba": """
        backbone.embeddings.weight                                   embedding head weight  0
        backbone.layers.#.norm.weight                                norm weight       #+1
        backbone.layers.#.mixer.{A_log,D}                            scalar            #+1
        backbone.layers.#.mixer.conv1d.weight                        conv weight       #+1
        backbone.layers.#.mixer.conv1d.bias                          bias conv         #+1
        backbone.layers.#.mixer.{in,x,dt,out}_proj.weight            matrix weight     #+1
        backbone.layers.#.mixer.dt_proj.bias                         bias              #+1
        backbone.norm_f.weight                                       norm weight       4
    """,
    "Mamba-2": """
        backbone.embeddings.weight                                   embedding weight  0
        backbone.layers.#.{norm,mixer.norm}.weight                   norm weight       #+1
        backbone.layers.#.mixer.{A_log,D}                            scalar            #+1
        backbone.layers.#.mixer.dt_bias                              bias              #+1
        backbone.layers.#.mixer.conv1d.weight                        conv weight       #+1
        backbone.layers.#.mixer.conv1d.bias                          bias conv         #+1
        backbone.layers.#.mixer.{in,out}_proj.weight                 matrix weight     #+1
        backbone.norm_f.weight                                       norm weight       4
        lm_head.weight                                               head weight       4
    """,
    "BERT": """
        bert.embeddings.*_embeddings.weight                          embedding weight  0
        bert.embeddings.LayerNorm.weight                             norm weight       0
        bert.embeddings.LayerNorm.bias                               bias norm         0
        bert.encoder.layer.#.attention.self.*.weight                 matrix weight     #+1
        bert.encoder.layer.#.attention.self.*.bias                   bias              #+1
        bert.encoder.layer.#.{attention.output,intermediate,output}.dense.weight  matrix weight  #+1
        bert.encoder.layer.#.{attention.output,intermediate,output}.dense.bias    bias           #+1
        bert.encoder.layer.#.{attention.output,output}.LayerNorm.weight           norm weight    #+1
        bert.encoder.layer.#.{attention.output,output}.LayerNorm.bias             bias norm      #+1
        bert.pooler.dense.weight                                     matrix weight     4
        bert.pooler.dense.bias                                       bias              4
        classifier.weight                                            head weight       4
        classifier.bias                                              bias head         4
    """,
    "T5": """
        shared.weight                                                embedding head weight  0
        encoder.block.#.layer.*.SelfAttention.?.weight               matrix weight     #+1
        encoder.block.#.layer.*.SelfAttention.relative_attention_bias.weight  embedding weight  #+1
        encoder.block.#.layer.*.layer_norm.weight                    norm weight       #+1
        encoder.block.#.layer.*.DenseReluDense.w?.weight             matrix weight     #+1
        encoder.final_layer_norm.weight                              norm weight       2
        decoder.block.#.layer.*.{Self,EncDec}Attention.?.weight      matrix weight     #+3
        decoder.block.#.layer.*.SelfAttention.relative_attention_bias.weight  embedding weight  #+3
        decoder.block.#.layer.*.layer_norm.weight                    norm weight       #+3
        decoder.block.#.layer.*.DenseReluDense.w?.weight             matrix weight     #+3
        decoder.final_layer_norm.weight                              norm weight       5
    """,
    "Whisper": """
        model.encoder.conv?.weight                                   conv weight       0
        model.encoder.conv?.bias                                     bias conv         0
        model.encoder.embed_positions.weight                         embedding weight  0
        model.encoder.layers.#.self_attn.*_proj.weight               matrix weight     #+1
        model.encoder.layers.#.self_attn.*_proj.bias                 bias              #+1
        model.encoder.layers.#.*_layer_norm.weight                   norm weight       #+1
        model.encoder.layers.#.*_layer_norm.bias                     bias norm         #+1
        model.encoder.layers.#.fc?.weight                            matrix weight     #+1
        model.encoder.layers.#.fc?.bias                              bias              #+1
        model.encoder.layer_norm.weight                              norm weight       2
        model.encoder.layer_norm.bias                                bias norm         2
        model.decoder.embed_tokens.weight                            embedding head weight  2
        model.decoder.embed_positions.weight                         embedding weight  2
        model.decoder.layers.#.{self,encoder}_attn.*_proj.weight     matrix weight     #+3
        model.decoder.layers.#.{self,encoder}_attn.*_proj.bias       bias              #+3
        model.decoder.layers.#.*_layer_norm.weight                   norm weight       #+3
        model.decoder.layers.#.*_layer_norm.bias                     bias norm         #+3
        model.decoder.layers.#.fc?.weight                            matrix weight     #+3
        model.decoder.layers.#.fc?.bias                              bias              #+3
        model.decoder.layer_norm.weight                              norm weight       5
        model.decoder.layer_norm.bias                                bias norm         5
    """,
    "CLIP": """
        logit_scale                                                  scalar            0
        *_model.embeddings.{token,position}_embedding.weight         embedding weight  0
        vision_model.embeddings.class_embedding                      embedding         0
        vision_model.embeddings.patch_embedding.weight               conv weight       0
        vision_model.pre_layrnorm.weight                             norm weight       0
        vision_model.pre_layrnorm.bias                               bias norm         0
        *_model.encoder.layers.#.self_attn.*_proj.weight             matrix weight     #+1
        *_model.encoder.layers.#.self_attn.*_proj.bias               bias              #+1
        *_model.encoder.layers.#.layer_norm?.weight                  norm weight       #+1
        *_model.encoder.layers.#.layer_norm?.bias                    bias norm         #+1
        *_model.encoder.layers.#.mlp.fc?.weight                      matrix weight     #+1
        *_model.encoder.layers.#.mlp.fc?.bias                        bias              #+1
        text_model.final_layer_norm.weight                           norm weight       3
        text_model.final_layer_norm.bias                             bias norm         3
        vision_model.post_layernorm.weight                           norm weight       4
        vision_model.post_layernorm.bias                             bias norm         4
        {visual,text}_projection.weight                              head weight       4
    """,
    "DINOv2": """
        dinov2.embeddings.{cls_token,mask_token,position_embeddings} embedding         0
        dinov2.embeddings.patch_embeddings.projection.weight         conv weight       0
        dinov2.embeddings.patch_embeddings.projection.bias           bias conv         0
        dinov2.encoder.layer.#.norm?.weight                          norm weight       #+1
        dinov2.encoder.layer.#.norm?.bias                            bias norm         #+1
        dinov2.encoder.layer.#.attention.?_proj.weight               matrix weight     #+1
        dinov2.encoder.layer.#.attention.?_proj.bias                 bias              #+1
        dinov2.encoder.layer.#.layer_scale?.lambda1                  scalar            #+1
        dinov2.encoder.layer.#.mlp.fc?.weight                        matrix weight     #+1
        dinov2.encoder.layer.#.mlp.fc?.bias                          bias              #+1
        dinov2.layernorm.weight                                      norm weight       4
        dinov2.layernorm.bias                                        bias norm         4
        classifier.weight                                            head weight       4
        classifier.bias                                              bias head         4
    """,
    "DINOv3": """
        embeddings.{cls_token,mask_token,register_tokens}            embedding         0
        embeddings.patch_embeddings.weight                           conv weight       0
        embeddings.patch_embeddings.bias                             bias conv         0
        model.layer.#.norm?.weight                                   norm weight       #+1
        model.layer.#.norm?.bias                                     bias norm         #+1
        model.layer.#.attention.?_proj.weight                        matrix weight     #+1
        model.layer.#.attention.?_proj.bias                          bias              #+1
        model.layer.#.layer_scale?.lambda1                           scalar            #+1
        model.layer.#.mlp.{up,down}_proj.weight                      matrix weight     #+1
        model.layer.#.mlp.{up,down}_proj.bias                        bias              #+1
        norm.weight                                                  norm weight       4
        norm.bias                                                    bias norm         4
    """,
    "DETR": """
        model.backbone.model.embedder.embedder.convolution.weight    conv weight       0
        model.backbone.model.encoder.stages.#.layers.*.layer.*.convolution.weight   conv weight  #+1
        model.backbone.model.encoder.stages.#.layers.*.shortcut.convolution.weight  conv weight  #+1
        model.query_position_embeddings.weight                       embedding weight  2
        model.input_projection.weight                                conv weight       2
        model.input_projection.bias                                  bias conv         2
        model.encoder.layers.#.self_attn.?_proj.weight               matrix weight     #+3
        model.encoder.layers.#.self_attn.?_proj.bias                 bias              #+3
        model.encoder.layers.#.*_layer_norm.weight                   norm weight       #+3
        model.encoder.layers.#.*_layer_norm.bias                     bias norm         #+3
        model.encoder.layers.#.mlp.fc?.weight                        matrix weight     #+3
        model.encoder.layers.#.mlp.fc?.bias                          bias              #+3
        model.decoder.layers.#.{self,encoder}_attn.?_proj.weight     matrix weight     #+5
        model.decoder.layers.#.{self,encoder}_attn.?_proj.bias       bias              #+5
        model.decoder.layers.#.*_layer_norm.weight                   norm weight       #+5
        model.decoder.layers.#.*_layer_norm.bias                     bias norm         #+5
        model.decoder.layers.#.mlp.fc?.weight                        matrix weight     #+5
        model.decoder.layers.#.mlp.fc?.bias                          bias              #+5
        model.decoder.layernorm.weight                               norm weight       7
        model.decoder.layernorm.bias                                 bias norm         7
        class_labels_classifier.weight                               head weight       7
        class_labels_classifier.bias                                 bias head         7
        bbox_predictor.layers.{0,1}.weight                           matrix weight     7
        bbox_predictor.layers.{0,1}.bias                             bias              7
        bbox_predictor.layers.2.weight                               head weight       7
        bbox_predictor.layers.2.bias                                 bias head         7
    """,
    "ViT": """
        {cls_token,pos_embed}                                        embedding         0
        patch_embed.proj.weight                                      conv weight       0
        patch_embed.proj.bias                                        bias conv         0
        blocks.#.norm?.weight                                        norm weight       #+1
        blocks.#.norm?.bias                                          bias norm         #+1
        blocks.#.attn.{qkv,proj}.weight                              matrix weight     #+1
        blocks.#.attn.{qkv,proj}.bias                                bias              #+1
        blocks.#.ls?.gamma                                           scalar weight     #+1
        blocks.#.mlp.fc?.weight                                      matrix weight     #+1
        blocks.#.mlp.fc?.bias                                        bias              #+1
        norm.weight                                                  norm weight       4
        norm.bias                                                    bias norm         4
        head.weight                                                  head weight       4
        head.bias                                                    bias head         4
    """,
    "ConvNeXt": """
        stem.0.weight                                                conv weight       0
        stem.0.bias                                                  bias conv         0
        stem.1.weight                                                norm weight       0
        stem.1.bias                                                  bias norm         0
        stages.#.blocks.*.gamma                                      scalar weight     #+1
        stages.#.blocks.*.{conv_dw,mlp.fc1,mlp.fc2}.weight           conv weight       #+1
        stages.#.blocks.*.{conv_dw,mlp.fc1,mlp.fc2}.bias             bias conv         #+1
        stages.#.blocks.*.norm.weight                                norm weight       #+1
        stages.#.blocks.*.norm.bias                                  bias norm         #+1
        stages.#.downsample.0.weight                                 norm weight       #+1
        stages.#.downsample.0.bias                                   bias norm         #+1
        stages.#.downsample.1.weight                                 conv weight       #+1
        stages.#.downsample.1.bias                                   bias conv         #+1
        head.norm.weight                                             norm weight       5
        head.norm.bias                                               bias norm         5
        head.fc.weight                                               head weight       5
        head.fc.bias                                                 bias head         5
    """,
    "Swin": """
        patch_embed.proj.weight                                      conv weight       0
        patch_embed.proj.bias                                        bias conv         0
        patch_embed.norm.weight                                      norm weight       0
        patch_embed.norm.bias                                        bias norm         0
        layers.#.blocks.*.norm?.weight                               norm weight       #+1
        layers.#.blocks.*.norm?.bias                                 bias norm         #+1
        layers.#.blocks.*.attn.relative_position_bias_table          embedding         #+1
        layers.#.blocks.*.attn.{qkv,proj}.weight                     matrix weight     #+1
        layers.#.blocks.*.attn.{qkv,proj}.bias                       bias              #+1
        layers.#.blocks.*.mlp.fc?.weight                             matrix weight     #+1
        layers.#.blocks.*.mlp.fc?.bias                               bias              #+1
        layers.#.downsample.norm.weight                              norm weight       #+1
        layers.#.downsample.norm.bias                                bias norm         #+1
        layers.#.downsample.reduction.weight                         matrix weight     #+1
        norm.weight                                                  norm weight       3
        norm.bias                                                    bias norm         3
        head.fc.weight                                               head weight       3
        head.fc.bias                                                 bias head         3
    """,
    "U-Net": """
        inc.double_conv.{0,3}.weight                                 conv weight       1
        inc.double_conv.{0,3}.bias                                   bias conv         1
        inc.double_conv.{1,4}.weight                                 norm weight       1
        inc.double_conv.{1,4}.bias                                   bias norm         1
        down#.1.double_conv.{0,3}.weight                             conv weight       #+1
        down#.1.double_conv.{0,3}.bias                               bias conv         #+1
        down#.1.double_conv.{1,4}.weight                             norm weight       #+1
        down#.1.double_conv.{1,4}.bias                               bias norm         #+1
        up#.up.weight                                                conv weight       #+3
        up#.up.bias                                                  bias conv         #+3
        up#.conv.double_conv.{0,3}.weight                            conv weight       #+3
        up#.conv.double_conv.{0,3}.bias                              bias conv         #+3
        up#.conv.double_conv.{1,4}.weight                            norm weight       #+3
        up#.conv.double_conv.{1,4}.bias                              bias norm         #+3
        outc.weight                                                  conv weight       6
        outc.bias                                                    bias conv         6
    """,
    "RNN": """
        conv.weight                                                  conv weight       1
        conv.bias                                                    bias conv         1
        norm.weight                                                  norm weight       1
        norm.bias                                                    bias norm         1
        rnn.weight_*                                                 matrix weight     2
        rnn.bias_*                                                   bias              2
        gru.weight_*                                                 matrix weight     3
        gru.bias_*                                                   bias              3
        fc.weight                                                    head weight       4
        fc.bias                                                      bias head         4
    """,
}  # fmt: skip
