"""Every paper's evaluation is divided among processes, and comes out as in one, to the bit."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("every_paper.py")

UNDIVIDED = {
    "evaluation_pitfalls": "what it measures is mostly metrics of whole samples, of which every process does all",
}
"""Papers whose `evaluate` deals nothing out, and why."""

PAPERS = sorted({path.stem for path in ROOT.glob("projects/*/*.py") if path.stem == path.parent.name} - {*UNDIVIDED})


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[str, dict]:
    """What one process finds, by paper and run: this one."""
    spec = importlib.util.spec_from_file_location("every_paper", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    folder, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
    torch.set_num_threads(1)
    found = {paper: script.evaluated(paper, folder) for paper in PAPERS}
    torch.set_num_threads(threads)
    return found


@pytest.fixture(scope="module", params=[2, 3])
def together(request, tmp_path_factory) -> list[dict[str, dict]]:
    """What each of some processes finds. Starting them takes seconds: once for all papers."""
    folder = tmp_path_factory.mktemp("together")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "FORK": str(request.param)}
    command = [sys.executable, SCRIPT, folder, *PAPERS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "found.json").read_text())
    assert len(found) == request.param
    return found


@pytest.mark.parametrize("paper", PAPERS)
def test_several_processes_find_what_one_does(paper, alone, together):
    assert any(run["examples"] for run in alone[paper].values())
    for rank, found in enumerate(together):
        for run, expected in alone[paper].items():
            for what in ("scores", "examples", "data"):
                assert found[paper][run][what] == expected[what], f"{run}: process {rank} of {len(together)}"


@pytest.mark.parametrize("paper", PAPERS)
def test_the_work_is_divided(paper, alone):
    batches = {run: found["batches"] for run, found in alone[paper].items()}
    assert max(batches.values()) >= 3, (
        f"{paper}'s evaluate deals nothing out: give what takes long to by_batch or drawn (common.evaluation.shards), "
        f"or list it in UNDIVIDED. Batches: {batches}"
    )
