"""What happens under torchrun, written down by process 0 as JSON; alone, the same in one process.

torchrun --standalone --nproc-per-node 2 two_processes.py FOLDER PART ...
"""

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from forked import start
from torch import Tensor, nn

from common.errors import NonFiniteError
from common.evaluation.shards import by_batch, drawn
from common.training import EMA, Interrupted, State, distributed, fit, sgd_step

STEPS = 12


class Autoencoder(nn.Module):
    """A loss that is no forward(), and a part that only some steps use."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder, self.critic = nn.Linear(4, 3), nn.Linear(3, 4), nn.Linear(4, 1)
        self.unused = nn.Linear(2, 2)
        self.register_buffer("scale", torch.rand(1, dtype=torch.float64))
        self.double()

    def reconstruction_error(self, x: Tensor) -> Tensor:
        return (self.decoder(self.encoder(x).tanh()) - x).square().sum(1)


def new_state(seed: int) -> State:
    torch.manual_seed(seed)
    model = Autoencoder()
    autoencoder = [*model.encoder.parameters(), *model.decoder.parameters(), *model.unused.parameters()]
    optimizers = {
        "autoencoder": torch.optim.Adam(autoencoder, lr=0.02),
        "critic": torch.optim.Adam(model.critic.parameters(), lr=0.01),
    }
    return State(model, optimizers, torch.Generator().manual_seed(5), EMA(model, 0.9))


def batches(step: int) -> Tensor:
    """This process's part of a global batch of 10, 7 or 1 examples: equal, uneven, and none for the second."""
    data = torch.randn(10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
    world, size = distributed.world_size(), (10, 7, 1)[step % 3]
    cuts = [-(-size * r // world) for r in range(world + 1)]
    return data[:size][cuts[distributed.rank()] : cuts[distributed.rank() + 1]]


def step(state: State, x: Tensor) -> dict[str, Tensor]:
    model = state.model

    def autoencoder_loss(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        errors = model.reconstruction_error(x)
        return errors.mean(), {"worst": errors.sqrt().mean()}

    def critic_loss(x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            made = model.decoder(model.encoder(x).tanh())
        return (model.critic(made) - model.critic(x)).squeeze(1).square().mean() * model.scale.squeeze(), {}

    metrics = sgd_step(autoencoder_loss, state.optimizers["autoencoder"], x, micro=2, clip=1.0)
    critic = sgd_step(critic_loss, state.optimizers["critic"], x)
    return {**metrics, "critic": critic["loss"]}


def noisy_step(state: State, x: Tensor) -> dict[str, Tensor]:
    noise = torch.randn(4, generator=state.generator).double() + torch.rand(4)
    state.noise.append(noise.tolist())
    return step(state, x + noise)


def flat(state: State) -> list[float]:
    return torch.cat([p.detach().reshape(-1) for p in state.model.parameters()]).tolist()


def new_run(folder: Path) -> SimpleNamespace:
    return SimpleNamespace(
        directory=folder, device=torch.device("cpu"), config={}, seed=0, progress=False, steps=0, timings_s={}
    )


def same_everywhere(value: object) -> bool:
    return all(each == value for each in distributed.gather(value))


def curve(folder: Path, seed: int) -> dict:
    """Train; the processes start from different weights unless somebody shares them."""
    state = new_state(seed + distributed.rank())
    fit(state, batches, step, steps=STEPS, run=new_run(folder), log_every=1)
    unused = state.model.unused.weight
    average = torch.cat([p.reshape(-1) for p in state.ema.model.parameters()]).tolist()
    return {
        "weights": flat(state),
        "average": average,
        "same_everywhere": same_everywhere((flat(state), average)),
        "unused_without_gradient": unused.grad is None and unused not in state.optimizers["autoencoder"].state,
        "log": [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()],
    }


def resumed(folder: Path) -> dict:
    """12 steps at once and in two sessions, with noise of each process's own."""
    ends = []
    for name, stages in (("whole", [STEPS]), ("halves", [5, STEPS])):
        noise: list = []
        for steps in stages:
            state = new_state(0)
            state.noise = noise
            torch.manual_seed(1)
            fit(state, batches, noisy_step, steps=steps, run=new_run(folder / name), log_every=5)
        ends.append((flat(state), noise))
    noises = distributed.gather(ends[0][1])
    return {
        "same_bits": all(distributed.gather(ends[0] == ends[1])),
        "same_log": (folder / "whole/metrics.jsonl").read_bytes() == (folder / "halves/metrics.jsonl").read_bytes(),
        "own_noise": noises[0] != noises[1],
    }


def stopped(folder: Path) -> dict:
    """SIGTERM reaches only the second process."""
    state = new_state(0)

    def hit(state: State, x: Tensor) -> dict[str, Tensor]:
        if state.step == 4 and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(state, x)

    try:
        fit(state, batches, hit, steps=STEPS, run=new_run(folder))
        told = ""
    except Interrupted as error:
        told = str(error)
    return {"steps": distributed.gather(state.step), "told": distributed.gather(told)}


def not_a_number(folder: Path) -> dict:
    """Only the second process sees a NaN."""
    state = new_state(0)

    def bad(state: State, x: Tensor) -> dict[str, Tensor]:
        metrics = step(state, x)
        if state.step == 6 and distributed.rank() == 1:
            metrics["worst"] = metrics["worst"] * float("nan")
        return metrics

    try:
        fit(state, batches, bad, steps=STEPS, run=new_run(folder), log_every=10)
        told = ""
    except NonFiniteError as error:
        told = str(error)
    return {"told": distributed.gather(told), "saved": (folder / "checkpoint.pt").exists()}


def shards(folder: Path) -> dict:
    """Batches and samples divided among the processes, as bytes: uneven, and fewer batches than processes."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(23, 3, generator=torch.Generator().manual_seed(3))
    own = []

    def noisy(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        own.append(len(x))
        return model(x + torch.randn(x.shape, generator=generator)) + y[:, None]

    def odd(x: Tensor) -> Tensor:
        """Values that an ordinary sum would not keep: of zero times the rest only -0.0 and NaN are not +0.0."""
        return torch.where(x[:, :2] > 0.5, torch.nan, torch.where(x[:, :2] > 0, -0.0, -x[:, :2].double() / 3))

    def sample(n: int, generator: torch.Generator) -> Tensor:
        return model(torch.randn(n, 3, generator=generator))

    values = {
        "noisy": by_batch(noisy, x, torch.arange(23.0), batch_size=4, seed=7),
        "odd": by_batch(odd, x, batch_size=5),
        "large": by_batch(lambda x: (x[:, 0] * 1e9).long() * 10**9, x, batch_size=6),
        "flags": by_batch(lambda x: x > 0, x, batch_size=1),
        "one batch": by_batch(noisy, x[:3], torch.zeros(3), batch_size=4, seed=7),
        "drawn": drawn(sample, 10, chunk=3, seed=8),
    }
    found = {name: [str(v.dtype), list(v.shape), v.view(-1).view(torch.uint8).tolist()] for name, v in values.items()}
    return {"values": found, "same_everywhere": same_everywhere(found), "sizes": distributed.gather(own)}


def recorded(folder: Path) -> None:
    """A run from its start to its record, which nobody stops."""
    import together

    together.carry_out(folder)


PARTS = {"curve": lambda folder: curve(folder, seed=0)} | {
    part.__name__: part for part in (resumed, stopped, not_a_number, shards, recorded)
}


def main(folder: Path, parts: list[str]) -> None:
    torch.set_num_threads(1)
    distributed.start(torch.device("cpu"))
    result = {"world": distributed.world_size()} | {part: PARTS[part](folder / part) for part in parts}
    if distributed.is_main():
        (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    start(lambda: main(Path(sys.argv[1]), sys.argv[2:]))
