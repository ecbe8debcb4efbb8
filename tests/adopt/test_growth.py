"""What adopting costs grows hardly faster than the program."""

import pytest
import torch

from groupwise.adopt import adopt
from tests.adopt.programs import Net
from tests.calls import calls_of


def program(blocks: int, layerwise: bool) -> tuple[Net, torch.optim.Optimizer]:
    """No decay on vectors, and a rate for each block by request."""
    net = Net(blocks, tied=False, heads=1)
    groups: dict[tuple[str, bool], list[torch.nn.Parameter]] = {}
    for name, p in net.named_parameters():
        block = name.split(".")[1] if layerwise and name.startswith("blocks.") else ""
        groups.setdefault((block, p.ndim > 1), []).append(p)
    rates = {str(i): 1e-3 * 0.9 ** (blocks - i) for i in range(blocks)}
    return net, torch.optim.AdamW([
        {"params": params, "lr": rates.get(block, 1e-3), "weight_decay": 0.1 if matrices else 0.0}
        for (block, matrices), params in groups.items()
    ])  # fmt: skip


@pytest.mark.parametrize("layerwise", [False, True])
def test_four_times_the_blocks_cost_at_most_six_times_the_calls(layerwise: bool) -> None:
    few, many = (program(blocks, layerwise) for blocks in (8, 32))
    adopt(*few)
    assert calls_of(lambda: adopt(*many)) < 6 * calls_of(lambda: adopt(*few))
