"""The batch stream against `DataLoader(TensorDataset)`: the same shuffled uint8 images, batch 128."""

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import Agreement, Result, Row, Setting, Target, take_turns
from common.data import Batches, Split

OURS, PEER = "Batches", "DataLoader(TensorDataset)"
BATCH = 128


def marks(batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """One number an image and its label, sorted: equal for the same pairs in any order."""
    return torch.cat([x.flatten(1).sum(1) * 10 + y for x, y in batches]).sort().values


def main(setting: Setting) -> Result:
    generator = torch.Generator().manual_seed(0)
    n = setting.size(60_000, 10 * BATCH)
    x = torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8, generator=generator)
    y = torch.randint(0, 10, (n,), generator=generator)
    batches = Batches(Split(x, y), BATCH, seed=0)
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True, drop_last=True)
    epoch = 0

    def ours() -> int:
        nonlocal epoch
        seen = 0
        for step in range(epoch * len(batches), (epoch + 1) * len(batches)):
            seen += len(batches(step).x)
        epoch += 1
        return seen

    def theirs() -> int:
        return sum(len(x) for x, _ in loader)

    whole = Batches(Split(x, y), BATCH, seed=0, drop_last=False)
    drawn = marks([whole(step) for step in range(len(whole))])  # type: ignore[misc]
    loaded = marks(list(DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)))
    row = Row(
        "an epoch of shuffled batches",
        "images/s",
        OURS,
        take_turns({OURS: ours, PEER: theirs}, setting.turns(7)),
        {PEER: "torch"},
        f"the same {n:,} images of 28x28 in uint8 with labels, in memory; batch {BATCH}, in random order, one process",
        Agreement("images or labels of an epoch that differ", float((drawn != loaded).sum()), 0.0),
        Target(10),
    )
    return Result("batch_stream", "Shuffled batches of small images, from memory", [row])
