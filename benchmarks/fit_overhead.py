"""`fit` with `sgd_step` against the bare PyTorch loop that does the same steps: what does the bookkeeping cost?"""

import tempfile
from pathlib import Path

import torch

from benchmarks.measure import Comparison, take_turns
from common.data import Batches, Split
from common.experiment import Run
from common.training import State, fit, sgd_step
from projects.iwae.iwae import Config, build, objective

STEPS, BATCH = 4000, 100  # ten seconds: a run that is shorter pays a checkpoint for little training


def main() -> Comparison:
    config = Config(dataset="digits", k=5, stochastic=(50,), hidden=(200,))
    x = torch.randint(0, 2, (20_000, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batches = Batches(Split(x), BATCH, seed=0)

    def parts():  # type: ignore[no-untyped-def]
        model = build(config)
        return model, torch.optim.Adam(model.parameters(), 1e-3, fused=True), torch.Generator().manual_seed(0)

    def loss_of(model, x, generator):  # type: ignore[no-untyped-def]
        return -objective(model.log_weights(x, config.k, generator), "iwae").mean()

    def bare() -> int:
        model, adam, generator = parts()
        for step in range(STEPS):
            loss = loss_of(model, batches(step).x.float(), generator)
            adam.zero_grad()
            loss.backward()
            adam.step()
        return STEPS

    def ours() -> int:
        model, adam, generator = parts()

        def step(state, batch):  # type: ignore[no-untyped-def]
            return sgd_step(lambda x: (loss_of(model, x, generator), {}), adam, batch.x.float())

        with tempfile.TemporaryDirectory() as directory:
            run = Run(Path(directory), torch.device("cpu"), {}, seed=0, progress=False)
            fit(State(model, {"adam": adam}, generator), batches, step, steps=STEPS, run=run)
        return STEPS

    comparison = Comparison(
        "fit_overhead",
        "Training steps: fit and sgd_step against the bare loop (IWAE, k=5, batch 100, 64 pixels)",
        "steps",
        "at least 0.97 (overhead at most 1.03)",
        "fit",
        "bare loop",
        take_turns({"fit": ours, "bare loop": bare}, turns=5),
    )
    comparison.notes["overhead"] = 1 / comparison.ratio
    return comparison
