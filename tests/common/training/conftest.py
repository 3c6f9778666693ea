import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from common.experiment import Run

sys.path.insert(0, str(Path(__file__).parent))  # the tests here share tiny_run.py


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., Run]:
    """Runs that share a folder, as one that is interrupted and started again does."""

    def make(config: dict | None = None, folder: str = "run", progress: bool = False) -> Run:
        return Run(tmp_path / folder, torch.device("cpu"), config or {"width": 4}, seed=0, progress=progress)

    return make


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
