"""`fit` with `sgd_step` against the bare PyTorch loop that does the same steps: what does the bookkeeping cost?"""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.measure import Agreement, Result, Row, Setting, Target, take_turns
from common.data import Batch, Batches, Split
from common.experiment import Run
from common.training import State, fit, sgd_step
from projects.iwae.iwae import Config, build, objective

STEPS, BATCH = 4000, 100  # ten seconds: a run that is shorter pays a checkpoint for little training
OURS, PEER = "fit", "bare loop"


def main(setting: Setting) -> Result:
    config = Config(dataset="digits", k=5, stochastic=(50,), hidden=(200,))
    x = torch.randint(0, 2, (20_000, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batches, steps = Batches(Split(x), BATCH, seed=0), setting.size(STEPS, 20)
    trained: dict[str, Tensor] = {}

    def parts() -> tuple[nn.Module, torch.optim.Optimizer, torch.Generator]:
        torch.manual_seed(0)
        model = build(config)
        return model, torch.optim.Adam(model.parameters(), 1e-3, fused=True), torch.Generator().manual_seed(0)

    def loss_of(model: nn.Module, x: Tensor, generator: torch.Generator) -> Tensor:
        return -objective(model.log_weights(x, config.k, generator), "iwae").mean()  # type: ignore[operator]

    def weights(model: nn.Module) -> Tensor:
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    def bare() -> int:
        model, adam, generator = parts()
        for step in range(steps):
            loss = loss_of(model, batches(step).x.float(), generator)
            adam.zero_grad()
            loss.backward()
            adam.step()
        trained[PEER] = weights(model)
        return steps

    def ours() -> int:
        model, adam, generator = parts()

        def step(state: State, batch: Batch) -> dict[str, Tensor]:
            return sgd_step(lambda x: (loss_of(model, x, generator), {}), adam, batch.x.float())

        with tempfile.TemporaryDirectory() as directory:
            run = Run(Path(directory), torch.device("cpu"), {}, seed=0, progress=False)
            fit(State(model, {"adam": adam}, generator), batches, step, steps=steps, run=run)
        trained[OURS] = weights(model)
        return steps

    measured = take_turns({OURS: ours, PEER: bare}, setting.turns(5))
    row = Row(
        "training steps of an IWAE",
        "steps/s",
        OURS,
        measured,
        {PEER: "torch"},
        f"{steps:,} steps of one network (k = 5, batch {BATCH}, 64 pixels), Adam, batches, noise and first weights",
        Agreement("largest difference of a trained weight", float((trained[OURS] - trained[PEER]).abs().max()), 1e-6),
        Target(0.97),
    )
    return Result("fit_overhead", "What fit and sgd_step cost beside the bare loop that does the same steps", [row])
