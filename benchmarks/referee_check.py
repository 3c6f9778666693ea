"""What a check costs, alone and in a repository of many projects.

Makes two git repositories of 5 and 500 projects in a temporary folder, changes one project in each, and lets
`referee check --changed main` take turns on both. Other projects must cost nothing: the target is a ratio of at most
1.1. Processor time is compared, which a busy machine disturbs less; the time on the clock is shown beside it. The
target for one check without --run is 1.5 s on the clock, on a quiet machine.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Figures

ROOT = Path(__file__).resolve().parents[1]
PATTERN = "vae"  # the project that the others are made from
SMALL = 64 * 1024  # bytes; larger files (weights, pictures, the notebook) are left out of the copies
RATIO, ALONE = "many against few (ratio of processor times)", "referee check iwae, clock (s)"
RUNS = ("laptop/mnist-nz10", "laptop/frey-nz10")


def make(root: Path, count: int) -> None:
    """A repository of `count` projects, all alike but for their names, with one changed on a branch."""
    (root / "projects").mkdir(parents=True)
    (root / "pyproject.toml").write_text("")
    (root / "projects" / "__init__.py").write_text("")
    shutil.copytree(ROOT / "common", root / "common", ignore=shutil.ignore_patterns("__pycache__"))
    source = ROOT / "projects" / PATTERN
    files = [path for path in source.iterdir() if path.is_file()]
    files += [path for run in RUNS for path in (source / "results" / run).iterdir()]
    contents = {path.relative_to(source).as_posix(): path.read_bytes() for path in files if path.stat().st_size < SMALL}
    for i in range(count):
        name = f"paper{i:03}"
        for path, content in contents.items():
            target = root / "projects" / name / re.sub(rf"\b(test_)?{PATTERN}\b", rf"\g<1>{name}", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if not path.endswith((".png", ".safetensors")):
                content = re.sub(rb"\bvae\b", name.encode(), content)
            target.write_bytes(content)
    git = ["git", "-C", str(root), "-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "all"], ["switch", "-qc", "work"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)
    with (root / "projects" / "paper000" / "README.md").open("a") as readme:
        readme.write("\nA change.\n")
    subprocess.run([*git, "commit", "-qam", "change"], check=True, capture_output=True)


def check(root: Path, paper: str = "") -> tuple[float, float]:
    """Seconds of one check, of a paper or else of what changed: of the processors, and on the clock."""
    before, start = os.times(), time.perf_counter()
    what = [paper] if paper else ["--changed", "main"]
    command = [sys.executable, "-m", "referee", "check", *what, "--format", "json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    took, after = time.perf_counter() - start, os.times()
    (checked,) = json.loads(done.stdout)["papers"]
    assert checked["paper"] == (paper or "paper000")
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, took


def main(few: int = 5, many: int = 500, turns: int = 5) -> Figures:
    """Make the repositories and take turns."""
    measured = Figures("referee_check", "A check of the one project that a submission changes")
    times: dict[int, list[tuple[float, float]]] = {few: [], many: []}
    with tempfile.TemporaryDirectory() as temporary:
        roots = {count: Path(temporary) / str(count) for count in times}
        for count, root in roots.items():
            make(root, count)
            check(root)  # what is read first is slower
        for _ in range(turns):
            for count, root in roots.items():
                times[count].append(check(root))
    for count, pairs in times.items():
        for what, values in zip(("processor", "clock"), zip(*pairs, strict=True), strict=True):
            measured.turns[f"one changed of {count}, {what} (s)"] = list(values)
    measured.turns[RATIO] = [a[0] / b[0] for a, b in zip(times[many], times[few], strict=True)]
    measured.turns[ALONE] = [check(ROOT, "iwae")[1] for _ in range(turns)]
    measured.figures = {name: statistics.median(values) for name, values in measured.turns.items()}
    measured.targets = {RATIO: 1.1, ALONE: 1.5}
    return measured
