"""Where the tools are, and how they are run: those of requirements.lock, beside the interpreter that runs the tests."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def tool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run one of the tools in a folder; its exit status and what it printed, both streams together."""

    def run(name: str, *arguments: object, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
        program = shutil.which(name, path=BIN)
        if program is None:
            pytest.fail(f"{name} is not installed beside {sys.executable}: run 'make setup'")
        environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "NO_COLOR": "1"}
        return subprocess.run(
            [program, *map(str, arguments)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )

    return run
