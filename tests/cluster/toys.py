"""A repository with one paper whose runs take a moment, trained by `fit`, so that they are saved and continued."""

from pathlib import Path

PROJECT_YAML = """\
stage: v1
family: vae
paper:
  title: A Paper on Toys
  authors: [Ada Maker]
  venue: ICLR
  year: 2016
  arxiv: "1509.00519"
team: [{handle: team-a, role: everything}]
licence: MIT
claims:
  - id: loss
    kind: value
    source: Table 1
    certainty: seen
    metric: nll
    dataset: toys
    preset: paper
    run: a
    paper_value: 1.0
    direction: lower
    tolerance: 0.5
deviations:
  - {where: §5, paper: all of it, ours: some of it, effect: unknown}
compute:
  hardware: one core
  presets:
    laptop: {cpus: 1, memory_gb: 1, minutes: 10}
"""

TOY = '''\
"""An invented paper."""

import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from common.errors import DataError
from common.records import Score
from common.training import State, distributed, fit, sgd_step


@dataclass(frozen=True)
class Config:
    lr: float = 0.01  # step size
    steps: int = 50  # updates
    fail: bool = False  # break off
    seed: int = 0


PRESETS = {
    "smoke": {"a": Config(), "bad": Config(fail=True), "c": Config(lr=0.03)},
    "laptop": {f"run{i}": Config(lr=0.01 * (i + 1), fail=i == 3, seed=i) for i in range(8)},
    "paper": {f"run{i:03}": Config(steps=1, seed=i) for i in range(100)},
}
PROBES = {}
HERE = Path(__file__).parents[2]


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]


def build(config):
    torch.manual_seed(config.seed)
    return nn.Linear(3, 1)


def train(config, run):
    if config.fail:
        raise DataError("toys: could not be reached.")
    model = build(config)
    while (HERE / "hold-start").exists() and distributed.rank() == 1:  # the first waits for it, in `fit`
        (run.directory / "starting").touch()
        time.sleep(0.02)
    sgd = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=0.9)
    state = State(model, {"sgd": sgd}, torch.Generator().manual_seed(config.seed))
    x_ND = torch.randn(20, 3, generator=torch.Generator().manual_seed(3))

    def step(state, x_BD):
        def loss(x_BD):
            noise = torch.randn(len(x_BD), generator=state.generator)
            return (model(x_BD).squeeze(1) - noise).square().mean(), {}

        if state.step == 20:  # here a test may hold it
            (run.directory / "half").touch()
            before = handlers()  # of which the one that hears a signal is taken away
            while (HERE / "hold").exists() and handlers() == before:
                time.sleep(0.02)
        return sgd_step(loss, sgd, x_BD)

    fit(state, lambda step: x_ND[step % 5 :: 5], step, steps=config.steps, run=run, log_every=10)
    return model


def evaluate(config, model, run):
    if (HERE / "hold-evaluation").exists():
        (run.directory / "evaluating").touch()
        while (HERE / "hold-evaluation").exists():
            time.sleep(0.02)
    values = model(torch.ones(8, 3)).detach().squeeze(1).double()
    run.examples["nll"] = values
    return [Score("nll", float(values.mean()), 0.5, 8, "nats", "bound", "test", "raw", "toys")]


def illustrate(config, model, run):
    (run.directory / "samples.png").write_bytes(b"not a picture")
'''


def make(root: Path) -> Path:
    """Write the repository; returns its folder."""
    toy = root / "projects" / "toy"
    toy.mkdir(parents=True)
    (root / "pyproject.toml").write_text("")
    (root / "projects" / "__init__.py").write_text("")
    (toy / "__init__.py").write_text("")
    (toy / "project.yaml").write_text(PROJECT_YAML)
    (toy / "toy.py").write_text(TOY)
    return root
