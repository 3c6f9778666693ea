"""The batch stream against `DataLoader(TensorDataset)`: the same shuffled uint8 images, batch 128."""

import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measure import Comparison, take_turns
from common.data import Batches, Split


def main() -> Comparison:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (60_000, 1, 28, 28), dtype=torch.uint8, generator=generator)
    y = torch.randint(0, 10, (60_000,), generator=generator)
    batches = Batches(Split(x, y), 128, seed=0)
    loader = DataLoader(TensorDataset(x, y), batch_size=128, shuffle=True, drop_last=True)
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

    return Comparison(
        "batch_stream",
        "Shuffled batches of 128 images, 28x28 uint8, one epoch of 60,000",
        "images",
        "at least 10",
        "Batches",
        "DataLoader(TensorDataset)",
        take_turns({"Batches": ours, "DataLoader(TensorDataset)": theirs}, turns=7),
    )
