"""What each preset has to come to on the models that it fits, counted by hand.

A line is a group: its name, its algorithm, its tensors, the peak of its rate and of its weight decay ("-" for none).
"""

from collections.abc import Callable, Mapping

from tests.presets import models

TABLES: Mapping[tuple[str, Callable[[], models.Model]], str] = {
    # two layers of seven matrices; embedding and head; two norms a layer and the last
    ("llm-muon", models.llama): """
        adamw AdamW 7 4.2e-4 0.1
        matrices Muon 14 4.2e-4 0.1
    """,
    # tied, with norms of q and k
    ("llm-muon", models.qwen3): """
        adamw AdamW 10 4.2e-4 0.1
        matrices Muon 14 4.2e-4 0.1
    """,
    # biases of q, k and v
    ("llm-muon", models.qwen2): """
        adamw AdamW 13 4.2e-4 0.1
        matrices Muon 14 4.2e-4 0.1
    """,
    # in each layer four matrices of attention, two stacks of experts, a router; embedding and head
    ("moe-muon", models.mixtral): """
        adamw AdamW 9 4.2e-4 0.1
        matrices Muon 12 4.2e-4 0.1
    """,
    ("moe-muon", models.qwen3_moe): """
        adamw AdamW 13 4.2e-4 0.1
        matrices Muon 12 4.2e-4 0.1
    """,
    # four blocks of six matrices, two of them with a gate; the smear's gate and its two scalars are the base
    ("nanochat", models.nanochat): """
        base AdamW 3 0.2 0
        head AdamW 1 4e-3 0.01
        embeddings AdamW 1 0.2 1e-3
        value_embeddings AdamW 2 0.1 0.01
        residual AdamW 1 5e-3 0.05
        x0 AdamW 1 0.5 0
        matrices Muon 26 0.02 0.2
    """,
    # DETR's own groups: all with decay
    ("detr", models.detr): """
        transformer AdamW 55 1e-4 1e-4
        backbone AdamW 20 1e-5 1e-4
    """,
    # five layers of convolution and norm below and in the heads, two scales of two heads with a last convolution
    ("yolo", models.yolo): """
        kernels SGD 11 0.01 5e-4
        kernels/frozen SGD 1 0.01 5e-4
        no_decay SGD 7 0.01 0
        no_decay/biases SGD 11 0.1 0
    """,
    # a ResNet-50 with norms of batches, four convolutions and norms of groups in each of two heads
    ("yolo", models.fcos): """
        kernels SGD 72 0.01 5e-4
        no_decay SGD 61 0.01 0
        no_decay/biases SGD 80 0.1 0
    """,
    # three tables, two layers of six matrices, pooler, classifier; as many biases, and two norms a layer and one
    ("bert", models.bert): """
        base AdamW 17 2e-5 0.01
        no_decay AdamW 24 2e-5 0
    """,
    ("bert", models.roberta): """
        base AdamW 17 2e-5 0.01
        no_decay AdamW 24 2e-5 0
    """,
    # without types of tokens
    ("bert", models.deberta): """
        base AdamW 16 2e-5 0.01
        no_decay AdamW 24 2e-5 0
    """,
    ("lora", models.lora): """
        adapters AdamW 8 2e-4 0.01
        frozen - 21 - -
    """,
    ("lora", models.dora): """
        adapters AdamW 12 2e-4 0.01
        frozen - 21 - -
    """,
    ("lora-plus", models.lora): """
        A AdamW 4 5e-5 0
        A/B AdamW 4 8e-4 0
        frozen - 21 - -
    """,
    # the magnitudes with B
    ("lora-plus", models.dora): """
        A AdamW 4 5e-5 0
        A/B AdamW 8 8e-4 0
        frozen - 21 - -
    """,
    ("gan", models.gan): """
        generator Adam 6 1e-4 -
        discriminator Adam 4 4e-4 -
    """,
    ("actor-critic", models.agent): """
        actor Adam 5 3e-4 -
        critic Adam 4 1e-3 -
    """,
    ("actor-critic", models.sac): """
        actor Adam 2 3e-4 -
        critic/qf1 Adam 2 1e-3 -
        critic/qf2 Adam 2 1e-3 -
    """,
    **dict.fromkeys(
        [("gaussian-splatting", models.splats), ("gaussian-splatting", models.gaussians)],
        """
        positions Adam 1 1.6e-4 -
        scales Adam 1 5e-3 -
        rotations Adam 1 1e-3 -
        opacities Adam 1 0.05 -
        colours Adam 1 2.5e-3 -
        higher_bands Adam 1 1.25e-4 -
        """,
    ),
    # two towers of two layers of six matrices; two tables; a table, a class token and patches; two projections
    ("clip", models.clip): """
        towers AdamW 30 5e-4 0.2
        no_decay_+_temperature AdamW 48 5e-4 0
    """,
    ("clip", models.siglip): """
        towers AdamW 34 5e-4 0.2
        no_decay_+_temperature AdamW 54 5e-4 0
    """,
    # 20 convolutions and norms of a ResNet-18; two heads of eight convolutions and seven norms
    ("multi-task", models.two_tasks): """
        heads SGD 46 0.01 5e-4
        trunk SGD 60 1e-3 5e-4
    """,
    ("gradual-unfreezing", models.awd_lstm): """
        depth4 Adam 4 0.01 -
        depth3 Adam 4 3.846e-3 -
        depth2 Adam 4 1.479e-3 -
        depth1 Adam 4 5.69e-4 -
        depth0 Adam 1 2.188e-4 -
    """,
    ("recommender", models.recommender): """
        dense Adam 6 1e-3 -
        tables SparseAdam 4 1e-3 -
    """,
}
