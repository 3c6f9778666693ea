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
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Result, Row, Setting, Target, Turns

ROOT = Path(__file__).resolve().parents[1]
PATTERN = "vae"  # the project that the others are made from
SMALL = 64 * 1024  # bytes; larger files (weights, pictures, the notebook) are left out of the copies
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


def main(setting: Setting, few: int = 5, many: int = 500, turns: int = 5) -> Result:
    """Make the repositories and take turns."""
    few, many, turns = setting.size(few, 2), setting.size(many, 4), setting.turns(turns)
    times: dict[int, list[tuple[float, float]]] = {few: [], many: []}
    with tempfile.TemporaryDirectory() as temporary:
        roots = {count: Path(temporary) / str(count) for count in times}
        for count, root in roots.items():
            make(root, count)
            check(root)  # what is read first is slower
        for turn in range(turns):
            for count, root in list(roots.items())[:: 1 if turn % 2 else -1]:
                times[count].append(check(root))
    names = {few: f"one of {few}", many: f"one of {many}"}
    found = Result("referee_check", "What a check of the one project that a submission changes costs")
    for which, what in enumerate(("of the processors", "on the clock")):
        row = Row(
            f"referee check --changed, {what}",
            "s",
            names[many],
            Turns({names[count]: [pair[which] for pair in pairs] for count, pairs in times.items()}),
            {names[few]: ""},
            "the same project changed in a repository of as many projects",
            target=Target(1 / 1.1) if which == 0 else None,  # the clock is disturbed by what else runs
            less_is_better=True,
        )
        found.rows.append(row)
    alone = Row(
        "referee check iwae, on the clock",
        "s",
        "referee check",
        Turns({"referee check": [check(ROOT, "iwae")[1] for _ in range(turns)]}),
        {},
        "this repository",
        target=Target(1.5, "most", "median"),
        less_is_better=True,
    )
    found.rows.append(alone)
    return found
