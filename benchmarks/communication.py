"""What a training step of each paper sends to the other processes, and what follows for N of them.

The bytes are counted, in two processes that train the paper's own `laptop` run on its data. From them and from the time
of a step in one process, the scaling law: with rings, N processes that share a batch take

    t(N) = t(1) / N + 2 (N - 1) / N * bytes / bandwidth

a step, if nothing overlaps (here nothing does: gradients travel when the last is there), a message's latency is left
out, and a part of a batch takes its part of the time. That is on paper: it was not measured on N processors.
"""

import contextlib
import importlib
import pickle
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.measure import Result, Row, Setting, Turns
from benchmarks.processes import Together, obey
from common.errors import DataError
from common.experiment import Run, prepare
from common.training import distributed

OURS, FLOOR = "sent at a step", "the gradients in float32"
RUNS = {  # paper -> the run of its presets that is looked at
    "ddpm": "eps-simple",
    "iwae": "iwae-1l-k50",
    "made": "dna-1",
    "pixelcnn": "gated-mnist",
    "realnvp": "mnist",
    "vae": "mnist-nz20",
    "wgan_gp": "mnist-gp",
}
BANDWIDTHS = {"1 Gbit/s": 0.125e9, "10 Gbit/s": 1.25e9, "100 Gbit/s": 12.5e9, "300 GB/s": 300e9}  # bytes a second
SHOWN = (2, 4, 8)  # processes


class Enough(Exception):
    """As many steps as are looked at have been made."""


@contextlib.contextmanager
def watched(steps: int) -> Iterator[dict[str, float]]:
    """Count what the processes tell each other in `steps` steps of `fit`, but for the first; then leave it.

    A step ends when the processes agree whether to go on (`distributed.agree`).
    """
    found = {"bytes": 0.0, "messages": 0.0, "seconds": 0.0}
    plain = {name: getattr(dist, name) for name in ("all_reduce", "all_gather_object")}
    agree, made, began = distributed.agree, 0, 0.0

    def count(size: int) -> None:
        if made > 0:
            found["bytes"] += size
            found["messages"] += 1

    def all_reduce(tensor: torch.Tensor, *arguments: Any, **how: Any) -> Any:
        count(tensor.numel() * tensor.element_size())
        return plain["all_reduce"](tensor, *arguments, **how)

    def all_gather_object(into: list[Any], value: Any, *arguments: Any, **how: Any) -> Any:
        count(len(pickle.dumps(value)))
        return plain["all_gather_object"](into, value, *arguments, **how)

    def counted(decision: int) -> int:
        nonlocal made, began
        decided = agree(decision)
        if began:
            made += 1
            if made == 1:
                began = time.perf_counter()  # what the first step sets up is not looked at
            if made > steps:
                found["seconds"] = (time.perf_counter() - began) / steps
                raise Enough
        else:
            began = time.perf_counter()  # before the first step: is there a checkpoint?
        return decided

    dist.all_reduce, dist.all_gather_object, distributed.agree = all_reduce, all_gather_object, counted
    try:
        yield found
    finally:
        dist.all_reduce, dist.all_gather_object = plain["all_reduce"], plain["all_gather_object"]
        distributed.agree = agree
        found["bytes"] /= steps
        found["messages"] /= steps


def worker(order: dict[str, Any]) -> dict[str, Any]:
    """A few steps of one paper's training; what was sent at each, and how long it took."""
    paper = importlib.import_module(f"projects.{order['paper']}.{order['paper']}")
    config = paper.PRESETS["laptop"][RUNS[order["paper"]]]
    prepare(config)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), torch.device("cpu"), {}, seed=config.seed, progress=False)
        try:
            with watched(order["steps"]) as found, contextlib.suppress(Enough):
                paper.train(config, run)
        except DataError as error:
            return {"without": str(error).splitlines()[0]}
        return found


def parameters(paper: str, preset: str) -> int:
    module = importlib.import_module(f"projects.{paper}.{paper}")
    model = module.build(module.PRESETS[preset][RUNS[paper]])
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def law(alone_s: float, size: float, bandwidth: float, processes: int) -> float:
    """Seconds a step of that many processes takes, with `size` bytes in a message."""
    return alone_s / processes + 2 * (processes - 1) / processes * size / bandwidth


def main(setting: Setting) -> Result:
    rows, notes = [], dict[str, float | str]()
    steps = setting.size(10, 1)
    two, one = (Together("benchmarks.communication", count, threads=1) for count in (2, 1))
    for paper, name in RUNS.items():
        sent, alone = [], []
        for _ in range(setting.turns(3)):
            found = two.ask({"paper": paper, "steps": steps})
            if "without" in found:
                break
            sent.append(found["bytes"] / 1000)
            alone.append(one.ask({"paper": paper, "steps": steps})["seconds"])
        if "without" in found:
            notes[paper] = f"not looked at: {found['without']}"
            continue
        sent_by, full = sent[0] * 1000, 4 * parameters(paper, "paper")
        least = 4 * parameters(paper, "laptop")
        full_sent, t = full * sent_by / least, min(alone)  # as often in a step as here
        rows.append(
            Row(
                f"{paper}, {name} of its laptop preset: one step",
                "kB",
                OURS,
                Turns({OURS: sent, FLOOR: [least / 1000] * len(sent)}),
                {},
                f"{steps} steps of two processes in {found['messages']:g} messages each; the preset's data, batches",
                less_is_better=True,
            )
        )
        notes[f"{paper}: efficiency of N processes by the law, for a step of {1000 * t:.3g} ms on one core"] = (
            "; ".join(
                f"{speed}: " + ", ".join(f"N = {n}: {t / n / law(t, sent_by, bandwidth, n):.0%}" for n in SHOWN)
                for speed, bandwidth in BANDWIDTHS.items()
            )
        )
        n = max(SHOWN)  # t / (n t(n)) = 0.9 where the messages take a ninth of t / n
        notes[f"{paper}: its paper preset, {full_sent / 1e6:.3g} MB a step; {n} processes are 90 % efficient from"] = (
            "; ".join(
                f"{speed}: t(1) = {1000 * 9 * n * law(0.0, full_sent, bandwidth, n):.3g} ms"
                for speed, bandwidth in BANDWIDTHS.items()
            )
        )
    for group in (two, one):
        group.close()
    notes["the law"] = "t(N) = t(1) / N + 2 (N - 1) / N * bytes / bandwidth, without latency and without overlap"
    notes["not looked at"] = "ddim trains nothing, and what evaluation_pitfalls trains is not its subject"
    question = "What a training step sends to the other processes, and what follows for N of them"
    return Result("communication", question, rows, notes)


if __name__ == "__main__":
    obey(worker)
