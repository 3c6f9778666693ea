"""The smallest run with everything in it that `fit` keeps, and how to read what it left."""

import json

import torch
from torch import nn

from common.training import State, sgd_step


def tiny(seed: int = 1):
    """A model, its data, its step: everything a run is built from."""
    torch.manual_seed(seed)
    model = nn.Linear(3, 1)
    sgd = torch.optim.SGD(model.parameters(), lr=0.01)
    state = State(model, {"sgd": sgd}, torch.Generator().manual_seed(2))
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(3))

    class Batches:
        def __call__(self, step):
            return x[step % 5 :: 5]

        def epoch(self, step):
            return step // 5

    def step(state, x):
        def loss(x):
            noise = torch.randn(len(x), generator=state.generator)
            return (model(x).squeeze(1) - noise).square().mean(), {}

        return sgd_step(loss, sgd, x)

    return state, Batches(), step


def weights(state: State) -> bytes:
    return b"".join(p.detach().numpy().tobytes() for p in state.model.parameters())


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
