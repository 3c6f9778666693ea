"""A repository whose runs take a moment, the command line in it, and a SLURM of this machine's own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import slurm, toys

ROOT = Path(__file__).parents[2]
Referee = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return toys.make(tmp_path / "repository")


@pytest.fixture
def referee(repository: Path) -> Referee:
    """The command line, in the repository: one thread, so that results are the same to the bit."""
    return lambda *arguments: call(repository, *arguments)


def call(repository: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    command = [sys.executable, "-m", "referee", *arguments]
    return subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A SLURM that runs meanwhile, and that this process's commands find; its folder."""
    if missing := slurm.missing():
        pytest.skip(f"SLURM is not installed ({', '.join(missing)}): python tests/cluster/slurm.py install")
    folder = tmp_path_factory.mktemp("slurm")
    try:
        found = slurm.start(folder)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in found.items():
                patch.setenv(name, value)
            yield folder
    finally:
        slurm.stop(folder)


def wait_for(what: Callable[[], object], seconds: float = 240.0) -> None:
    """Until it is so; fails where it does not come to be."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def bits(folder: Path) -> dict[str, bytes]:
    """What of a run's folder must not depend on where and when it was made."""
    return {
        name: (folder / name).read_bytes() for name in ("weights.safetensors", "metrics.jsonl", "examples.safetensors")
    }
