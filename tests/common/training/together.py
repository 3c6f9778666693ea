"""A paper of seconds, carried out under torchrun from its start to its record; one process may be killed on the way.

torchrun --standalone --nproc-per-node 2 together.py FOLDER [RANK WHERE]
"""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from forked import start
from torch import Tensor, nn

from common.data import Batches, Split
from common.errors import UserError
from common.evaluation.likelihood import mean_score
from common.evaluation.shards import by_batch, drawn
from common.experiment import Run, execute
from common.records import Score
from common.training import State, distributed, fit, sgd_step

TO_KILL: list[str] = []


@dataclass(frozen=True)
class Config:
    steps: int = 12
    seed: int = 0


def build(config: Config) -> nn.Module:
    torch.manual_seed(config.seed)
    return nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4)
    )  # keeps averages of its batches


def data() -> Tensor:
    return torch.randn(29, 4, generator=torch.Generator().manual_seed(1))  # in eights, and 5: two and three


def train(config: Config, run: Run) -> nn.Module:
    model = build(config)
    adam = torch.optim.Adam(model.parameters(), lr=0.01)
    state = State(model, {"adam": adam}, torch.Generator().manual_seed(config.seed))

    def step(state: State, batch: tuple[Tensor, None]) -> dict[str, Tensor]:
        die_if(f"step {state.step}")
        noise = torch.randn(batch[0].shape, generator=state.generator)
        return sgd_step(lambda x: ((model(x + noise[: len(x)]) - x).square().mean(), {}), adam, batch[0])

    batches = Batches(Split(data(), None), batch_size=8, seed=config.seed, drop_last=False)
    fit(state, batches, step, steps=config.steps, run=run, log_every=5, checkpoint_every_s=0.0)
    return model


def evaluate(config: Config, model: nn.Module, run: Run) -> list[Score]:
    def error(x: Tensor, generator: torch.Generator) -> Tensor:
        die_if("evaluate")
        return (model(x + torch.randn(x.shape, generator=generator)) - x).square().mean(1)

    x = data()[:9]
    (run.directory / f"evaluated-{distributed.rank()}").touch()
    run.examples["error"] = by_batch(error, x, batch_size=2, seed=config.seed)
    run.examples["drawn"] = drawn(lambda n, g: model(torch.randn(n, 4, generator=g)), 7, chunk=3, seed=0).mean(1)
    how = {"unit": "nats", "kind": "estimate", "split": "test", "protocol": "a toy"}
    return [mean_score(values, name, **how) for name, values in run.examples.items()]


def illustrate(config: Config, model: nn.Module, run: Run) -> None:
    again = drawn(lambda n, g: model(torch.randn(n, 4, generator=g)), 7, chunk=3, seed=0).mean(1)
    same = torch.equal(again, run.examples["drawn"])  # the first does now all by itself what both had done together
    (run.directory / f"illustrated-{os.environ['RANK']}").write_text(f"{distributed.world_size()} {same}")


def die_if(place: str) -> None:
    if [str(distributed.rank()), place] == TO_KILL:
        os.kill(os.getpid(), signal.SIGKILL)


def carry_out(folder: Path) -> None:
    execute(sys.modules[__name__], "toy", "smoke", "run", Config(), folder, torch.device("cpu"), progress=False)


def main() -> None:
    torch.set_num_threads(1)
    distributed.start(torch.device("cpu"))
    try:
        carry_out(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"told by {distributed.rank()}: {error}")


if __name__ == "__main__":
    TO_KILL += sys.argv[2:]
    start(main)
