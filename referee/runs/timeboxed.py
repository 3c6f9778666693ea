"""Runs of several papers, one after the other, within a budget of time: for a machine that is lent for some minutes.

    python -m referee.runs.timeboxed --seconds 540 --out OUT ddpm/paper vae/paper/vae-z20,vae-z2 iwae/paper

Needs torch, numpy, safetensors, tqdm and matplotlib, and nothing else of this project's environment. When the time is
up, the run at hand saves and stops. What came out is packed into two archives, whose paths begin with `runs/`:

    OUT/finished.tar    the folders of finished runs
    OUT/unfinished.tar  the folder of the run that was stopped, with its checkpoint

Unpacked in the repository (`tar -xf finished.tar`), finished runs are found there by `referee run --publish`, which
takes runs of the same settings and code as they are; an unfinished one is continued, here or on a lent machine again.
"""

import argparse
import contextlib
import os
import signal
import sys
import tarfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from referee.project import Project, UsageError, find_project, find_root
from referee.runs.memory import noting_memory
from referee.words import number_of


class TimeIsUp(UserError):
    """The budget is spent."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status: 0 when every run has finished, 3 when the time did not suffice for all."""
    parser = argparse.ArgumentParser(
        prog="python -m referee.runs.timeboxed", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("runs", nargs="+", metavar="PAPER/PRESET[/RUN,...]", help="in this order")
    parser.add_argument("--seconds", type=float, required=True, help="for everything, packing left aside")
    parser.add_argument("--out", type=Path, required=True, help="folder for the archives")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps")
    options = parser.parse_args(arguments)
    try:
        root = find_root()
        done = run(root, options.runs, seconds=options.seconds, device=options.device)
        pack(root, done, options.out)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if all(done.values()) else 3


def run(root: Path, wanted: Sequence[str], *, seconds: float, device: str) -> dict[Path, bool]:
    """Carry out the runs as far as the time goes: folder of each run that has begun -> whether it has finished.

    A run that fails says why, and does not keep the next from beginning.

    Raises:
        UsageError, ConfigError: a paper, preset or run that is not there; nothing has been run.
    """
    from common.experiment import execute
    from common.training import pick_device

    place, end = pick_device(device), time.monotonic() + seconds
    tasks = [task for each in wanted for task in _tasks(root, each)]
    done: dict[Path, bool] = {}
    for number, (project, preset, name, config) in enumerate(tasks, start=1):
        folder, label = project.runs / preset / name, f"[{number}/{len(tasks)}] {project.name} {preset} {name}"
        left = end - time.monotonic()
        if left <= 0:
            print(f"{label}: not begun, the time is up", flush=True)
            done.setdefault(folder, False)
            continue
        print(f"{label}: {left:.0f} s left", flush=True)
        done[folder] = False
        try:
            with _at_most(left), noting_memory(folder, place):
                record, reused = execute(project.module(), project.name, preset, name, config, folder, place)
        except Exception as error:  # whatever it is, the runs after it have nothing to do with it
            print(f"{label}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            continue
        done[folder] = True
        scores = ", ".join(f"{s.name} {s.value:.4g}" for s in record.scores)
        print(f"{label}: {'as before' if reused else f'{record.wall_s:.0f} s'}; {scores}", flush=True)
    return done


def pack(root: Path, done: dict[Path, bool], out: Path) -> None:
    """Write the archives of finished and unfinished runs; one that would be empty is left out."""
    out.mkdir(parents=True, exist_ok=True)
    for kind, finished in (("finished", True), ("unfinished", False)):
        folders = [folder for folder, has in done.items() if has is finished and folder.is_dir()]
        if not folders:
            continue
        part = out / f".{kind}.part"
        with tarfile.open(part, "w") as archive:
            for folder in folders:
                archive.add(folder, arcname=folder.relative_to(root).as_posix())
        os.replace(part, out / f"{kind}.tar")
        size = (out / f"{kind}.tar").stat().st_size
        print(f"{kind}.tar: {number_of(len(folders), 'run')}, {size / 2**20:.1f} MiB", flush=True)


def _tasks(root: Path, wanted: str) -> Iterator[tuple[Project, str, str, Any]]:
    """ "ddpm/paper/a,b" -> (project, preset, run, configuration) of each run."""
    paper, _, rest = wanted.partition("/")
    preset, _, names = rest.partition("/")
    if not preset:
        raise UsageError(f"'{wanted}': give paper/preset, or paper/preset/run,run.")
    from common.experiment import pick_runs

    project = find_project(root, paper)
    for name, config in pick_runs(project.module(), preset, names.split(",") if names else None).items():
        yield project, preset, name, config


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """After so many seconds, what SIGTERM does: training saves and stops, anything else ends with `TimeIsUp`."""

    def end(_number: int, _frame: Any) -> None:
        raise TimeIsUp("the time is up")

    def ask(_number: int, _frame: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end), signal.signal(signal.SIGALRM, ask)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGALRM, before[1])


if __name__ == "__main__":
    sys.exit(main())
