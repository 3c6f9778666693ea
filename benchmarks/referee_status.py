"""What a look at 500 projects costs.

Makes a folder of 500 projects at v1, each with the claims of this repository's largest project, two reviews of twenty
findings and a response, and lets `referee status` look at it. The target is 5 s on the clock, on a quiet machine.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Result, Row, Setting, Target, Turns

ROOT = Path(__file__).resolve().parents[1]
OURS = "referee status"
REVIEW = "---\n---\n" + "".join(f"### F{n} · major · `a.py:{n}`\n\nWhat is wrong.\n\n" for n in range(1, 21))
RESPONSE = "---\n---\n" + "".join(f"### {h}/F{n} · fixed\n\n" for h in ("ada", "bo") for n in range(1, 20))


def make(root: Path, count: int) -> None:
    """A folder of `count` projects under review."""
    project = max((path.read_text() for path in ROOT.glob("projects/*/project.yaml")), key=len)
    files = {"pyproject.toml": "", "course.yaml": (ROOT / "course.yaml").read_text()}
    names = [f"paper{i:03}" for i in range(count)]
    for name in names:
        files[f"projects/{name}/project.yaml"] = project
        files |= {f"reviews/{name}/{handle}.md": REVIEW for handle in ("ada", "bo")}
        files[f"reviews/{name}/response.md"] = RESPONSE
    reviewers = "".join(f"  {name}: [ada, bo]\n" for name in names)
    files["reviews/assignment.yaml"] = f"seed: 1\ninputs: {'0' * 64}\nreviewers:\n{reviewers}"
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def main(setting: Setting, projects: int = 500, turns: int = 5) -> Result:
    """Make the folder and look at it a few times."""
    projects = setting.size(projects, 5)
    spent, took = [], []
    with tempfile.TemporaryDirectory() as temporary:
        make(Path(temporary), projects)
        for _ in range(setting.turns(turns)):
            before, start = os.times(), time.perf_counter()
            done = subprocess.run([sys.executable, "-m", "referee", "status"], cwd=temporary, capture_output=True)
            took.append(time.perf_counter() - start)
            after = os.times()
            spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
            assert done.returncode == 0, done.stderr.decode()
            assert f"{projects} v1" in done.stdout.decode()
    row = Row(
        f"referee status over {projects} projects",
        "s",
        OURS,
        Turns({OURS: took, "of it on the processors": spent}),
        {},
        f"{projects} projects at v1 with two reviews of twenty findings and a response each",
        target=Target(5.0, "most", "median"),
        less_is_better=True,
    )
    return Result("referee_status", "What a look at many projects costs", [row])
