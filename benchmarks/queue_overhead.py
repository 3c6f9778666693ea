"""What queueing and collecting a hundred runs costs over the scheduler's own time.

Starts a SLURM of one node with eight processors on this machine, which the runs share with it. In turn it carries out,
as one array of a hundred jobs, eight at a time: `true`; Python that imports what every run needs and does nothing; and
`referee run --on slurm` of a hundred runs of one update each, from the command to its last line, with every record
read and every score shown. What the latter takes beyond the bare Python jobs is the overhead. The target is 60 s.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Result, Row, Setting, Target, Turns
from tests.cluster import slurm, toys

OURS = "referee run --on slurm, queued and collected"
PYTHON, TRUE = "the scheduler alone: Python and its imports", "the scheduler alone: true"
IMPORTS = "import submitit, torch, torch._dynamo, common.experiment, referee.runs.scheduling"
"""What a job imports; _dynamo is what an optimiser brings."""
WHY = "The runs' own work, and that of the command, take the processors from each other."


def unavailable() -> str:
    """Why this cannot be measured here, '' if it can."""
    missing = slurm.missing()
    return (
        f"it needs SLURM, and {', '.join(missing)} cannot be found here; 'make slurm' installs it." if missing else ""
    )


def main(setting: Setting, jobs: int = 100, turns: int = 1) -> Result:
    """Start the cluster and let them take turns."""
    jobs = setting.size(jobs, 8)
    took: dict[str, list[float]] = {OURS: [], PYTHON: [], TRUE: []}
    with tempfile.TemporaryDirectory() as temporary, cluster(Path(temporary) / "slurm"):
        python = f"{sys.executable} -c '{IMPORTS}'"
        for turn in range(setting.turns(turns)):
            took[TRUE].append(array(Path(temporary), "true", jobs))
            took[PYTHON].append(array(Path(temporary), python, jobs))
            took[OURS].append(ours(toys.make(Path(temporary) / f"turn{turn}"), jobs))
    over = [a - b for a, b in zip(took[OURS], took[PYTHON], strict=True)]
    equal_on = f"{jobs} jobs of one array on one node, eight at a time, one processor each"
    rows = [
        Row(
            f"{jobs} runs of one update, beyond the same jobs that only start Python",
            "s",
            "overhead",
            Turns({"overhead": over}),
            {},
            equal_on,
            target=Target(60.0, "most", "median"),
            why=WHY,
            less_is_better=True,
        ),
        Row("from the command to the last job's end", "s", OURS, Turns(took), {}, equal_on, less_is_better=True),
    ]
    return Result("queue_overhead", "What queueing and collecting runs costs over the scheduler's own time", rows)


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """A SLURM meanwhile, which the commands of this process find."""
    before = dict(os.environ)
    folder.mkdir()
    try:
        os.environ.update(slurm.start(folder), OMP_NUM_THREADS="1", PYTHONPATH=os.getcwd())
        yield
    finally:
        slurm.stop(folder)
        os.environ.clear()
        os.environ.update(before)


def array(folder: Path, command: str, jobs: int) -> float:
    """Seconds that an array of jobs takes, from sbatch until the queue is empty."""
    start = time.perf_counter()
    options = [f"--array=0-{jobs - 1}%8", "--cpus-per-task=1", "--output=/dev/null", f"--wrap=srun {command}"]
    subprocess.run(["sbatch", *options], cwd=folder, check=True, capture_output=True)
    while subprocess.run(["squeue", "-h", "-t", "PENDING,RUNNING"], check=True, capture_output=True).stdout.strip():
        time.sleep(0.5)
    return time.perf_counter() - start


def ours(repository: Path, jobs: int) -> float:
    """Seconds that the command takes, with as many runs, every one of which must have left its record."""
    only = ",".join(f"run{i:03}" for i in range(jobs))
    flags = ["--preset", "paper", "--only", only, "--on", "slurm", "--array", "8", "--cpus", "1"]
    start = time.perf_counter()
    command = [sys.executable, "-m", "referee", "run", "toy", *flags]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{jobs} done" in done.stdout
    assert len(list(repository.glob("runs/toy/paper/*/record.json"))) == jobs
    return seconds
