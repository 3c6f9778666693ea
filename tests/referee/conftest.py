"""A small repository with one invented paper, made anew for each test; records are written by `common.records`."""

import base64
import importlib.util
import json
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from common.digest import code_digest
from common.records import Record, Score, write_examples, write_text
from referee import tables
from referee.project import Project
from referee.standing import standing

PROJECT_YAML = """\
stage: v1
family: vae
paper:
  title: A Paper on Toys
  authors: [Ada Maker, Bo Player]
  venue: ICLR
  year: 2016
  arxiv: "1509.00519"
team: [{handle: team-a, role: everything}]
licence: MIT
probes: [good]
weights: [laptop/k50]
claims:
  - id: nll-k50
    kind: value
    source: "Table 1, k=50"
    certainty: seen
    metric: nll
    dataset: toys
    preset: paper
    run: k50
    paper_value: 84.70
    direction: lower
    tolerance: 0.5
  - id: more-samples-help
    kind: ordering
    source: section 5
    certainty: mem
    statement: k=50 < k=5 < k=1
    metric: nll
    dataset: toys
    preset: laptop
    runs: [k50, k5, k1]
  - id: samples
    kind: figure
    source: Figure 1
    certainty: mem
    statement: digits can be read
    dataset: toys
    preset: laptop
    figure: results/laptop/k50/samples.png
deviations:
  - {where: §5, paper: all of it, ours: some of it, effect: unknown}
"""

TOY = '''\
"""An invented paper."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from common.errors import ConfigError, DataError
from common.probes import ProbeResult
from common.records import Score


@dataclass(frozen=True)
class Config:
    k: int = 1  # samples
    lr: float = 1e-3  # step size
    hidden: tuple[int, ...] = (4,)  # units
    flip: bool = False  # mirror the data
    mode: Literal["fast", "slow"] = "fast"  # pace
    seed: int = 0

    def __post_init__(self):
        if self.k < 1:
            raise ConfigError(f"k = {self.k}: needs at least one sample (k >= 1).")


PRESETS = {
    "smoke": {"k1": Config(), "k5": Config(k=5)},
    "laptop": {"k1": Config(), "k5": Config(k=5), "k50": Config(k=50)},
    "paper": {"k50": Config(k=50, seed=1)},
}


def build(config):
    torch.manual_seed(config.seed)
    return nn.Linear(2, 1)


def train(config, run):
    if config.k == 13:
        raise DataError("toys: could not be reached.")
    with open(run.directory / "metrics.jsonl", "a") as file:
        for step in range(1, 4):
            file.write(f'{{"step": {step}, "bound": {-90 + step}}}\\n')
    run.steps = 3
    run.data["toys"] = "0" * 64
    return build(config)


def evaluate(config, model, run):
    values = 80 + 10 / config.k + torch.zeros(8, dtype=torch.float64)
    run.examples["nll"] = values
    return [Score("nll", float(values.mean()), 0.5, 8, "nats", "bound", "test", "raw", "toys")]


def illustrate(config, model, run):
    (run.directory / "samples.png").write_bytes(b"not a picture")


def good():
    return ProbeResult("good", "it is good", True, {"error": 0.0}, "")


def bad():
    return ProbeResult("bad", "it is good", False, {"error": 3.5}, "it is not good")


def broken():
    raise ValueError("[bold]no")


PROBES = {"good": good, "bad": bad, "broken": broken}
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The repository's root."""
    folder = tmp_path / "repository"
    toy = folder / "projects" / "toy"
    toy.mkdir(parents=True)
    (folder / "pyproject.toml").write_text("")
    (folder / "projects" / "__init__.py").write_text("")
    (toy / "__init__.py").write_text("")
    (toy / "project.yaml").write_text(PROJECT_YAML)
    (toy / "toy.py").write_text(TOY)
    readme = "# Toy\n\nBy hand.\n\n<!-- referee:claims -->\n<!-- /referee:claims -->\n\nAlso by hand.\n"
    (toy / "README.md").write_text(readme)
    (folder / "README.md").write_text("<!-- referee:projects -->\n<!-- /referee:projects -->\n")
    return folder


@pytest.fixture
def project(root: Path) -> Project:
    return Project(root, "toy")


@pytest.fixture
def there(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands run inside the repository, and its paper is loaded from there."""
    monkeypatch.chdir(root)

    def module(self: Project) -> ModuleType:
        spec = importlib.util.spec_from_file_location("toy_under_test", self.paper_file)
        assert spec is not None
        assert spec.loader is not None
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "toy_under_test", loaded)  # dataclasses look their module up
        monkeypatch.setattr("referee.runs.running.cores", lambda: 1)  # no other process could import it
        spec.loader.exec_module(loaded)
        return loaded

    monkeypatch.setattr(Project, "module", module)
    return root


def png(width: int = 3, height: int = 2, grey: int = 0) -> bytes:
    """A valid picture of one grey."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = zlib.compress(b"".join(b"\0" + bytes([grey] * width) for _ in range(height)))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


MakeRecord = Callable[..., Record]


@pytest.fixture
def make(project: Project) -> MakeRecord:
    """Write a run into the project's results (or another folder) and return its record."""

    def write(
        preset: str,
        run: str,
        nll: float | np.ndarray = 85.0,
        stderr: float | None = 0.2,
        *,
        base: Path | None = None,
        data: str = "toys",
        picture: bool = False,
        score: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Record:
        folder = (base or project.results) / preset / run
        examples = nll if isinstance(nll, np.ndarray) else None
        value = float(np.mean(nll))
        n = len(examples) if examples is not None else 100
        if examples is not None:
            stderr = float(examples.std(ddof=1) / np.sqrt(n))
        made = Score(
            **{
                "name": "nll",
                "value": value,
                "stderr": stderr,
                "n": n,
                "unit": "nats",
                "kind": "bound",
                "split": "test",
                "weights": "raw",
                "protocol": "toys, L_10",
                **(score or {}),
            }
        )
        record = Record(
            **{
                "project": "toy",
                "preset": preset,
                "run": run,
                "config": {"k": 1},
                "scores": [made],
                "seed": 0,
                "steps": 3,
                "code_digest": code_digest(project.paper_file),
                "git_sha": "abc",
                "data_sha256": {data: "0" * 64},
                "environment": {"python": "3.11"},
                "hardware": {"cpu": "A CPU", "cores": 2},
                "wall_s": 61.0,
                "finished": "2026-01-02T03:04:05+00:00",
                **fields,
            }
        )
        record.save(folder)
        if examples is not None:
            write_examples(folder, {"nll": examples})
        write_text(folder / "metrics.jsonl", "".join(f'{{"step": {i}, "bound": {i - 5 - value}}}\n' for i in range(5)))
        if picture:
            (folder / "samples.png").write_bytes(png(grey=zlib.crc32(run.encode()) % 256))  # each run its own
        return record

    return write


@pytest.fixture
def edit(project: Project) -> Callable[[str, str], None]:
    """Replace a piece of `project.yaml`."""

    def replace(old: str, new: str) -> None:
        path = project.folder / "project.yaml"
        text = path.read_text()
        assert text.count(old) >= 1, old
        path.write_text(text.replace(old, new, 1))

    return replace


README = """\
# A paper on toys

Maker & Player, ICLR 2016, [arXiv 1509.00519](https://arxiv.org/abs/1509.00519). The code is [`toy.py`](toy.py).

## Run it

```sh
referee run toy --preset smoke     # seconds
referee run toy --preset laptop
```

## What came out

<!-- referee:claims -->
<!-- /referee:claims -->

<!-- referee:results -->
<!-- /referee:results -->

## What differs

<!-- referee:deviations -->
<!-- /referee:deviations -->
"""

TOY_TEST = '''\
"""The mathematics of toys."""

from projects.toy import toy


def test_more_samples_need_a_sample():
    assert toy.Config(k=2).k == 2
'''


def notebook_text(cells: list[dict[str, Any]]) -> str:
    """A notebook of these cells, as Jupyter writes it."""
    filled = [
        {
            "id": f"c{i}",
            "metadata": {},
            **({"outputs": [], "execution_count": None} if c["cell_type"] == "code" else {}),
        }
        | c
        for i, c in enumerate(cells)
    ]
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    whole = {"cells": filled, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def good_cells() -> list[dict[str, Any]]:
    """A small notebook with nothing wrong."""
    picture = {"image/png": base64.b64encode(png()).decode(), "text/plain": ["<Figure>"]}
    return [
        {"cell_type": "markdown", "source": ["# A paper on toys\n", "\n", "What is shown."]},
        {
            "cell_type": "code",
            "source": ["print(1)"],
            "execution_count": 1,
            "outputs": [{"output_type": "stream", "name": "stdout", "text": ["1\n"]}],
        },
        {"cell_type": "markdown", "source": ["A figure."]},
        {
            "cell_type": "code",
            "source": ["fig"],
            "execution_count": 2,
            "outputs": [{"output_type": "display_data", "data": picture, "metadata": {}}],
        },
    ]


@pytest.fixture
def submitted(project: Project, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The invented paper as a whole version 1, in which no check finds anything wrong. Made once, then copied."""
    kept = tmp_path_factory.getbasetemp() / "submitted"
    if not kept.exists():
        _submit(project, request.getfixturevalue("make"), request.getfixturevalue("edit"))
        shutil.copytree(project.folder, kept)
    else:
        shutil.copytree(kept, project.folder, dirs_exist_ok=True)
    return project


def _submit(project: Project, make: MakeRecord, edit: Callable[[str, str], None]) -> None:
    folder = project.folder
    edit("family: vae", "family: toys")  # no family that calls for probes
    toy = '"""A Paper on Toys (Maker & Player, ICLR 2016), invented for tests: B examples, k samples, L_k its bound."""'
    project.paper_file.write_text(TOY.replace('"""An invented paper."""', toy))
    (folder / "test_toy.py").write_text(TOY_TEST)
    (folder / "README.md").write_text(README)
    (folder / "toy.ipynb").write_text(notebook_text(good_cells()))
    rng = np.random.default_rng(0)
    versions = {"python": "3.11", "torch": "2.13.0", "numpy": "2.4"}
    for run, nll in {"k1": 86.0, "k5": 85.5, "k50": 85.0}.items():
        make(
            "laptop",
            run,
            nll + rng.standard_normal(50),
            picture=True,
            config={"k": int(run[1:])},
            git_sha="0" * 40,
            environment=versions,
            steps=4,
        )
        write_text(project.results / "laptop" / run / "config.json", json.dumps({"k": int(run[1:])}))
    save_file({"w": np.ones((2, 3), np.float32)}, project.results / "laptop" / "k50" / "weights.safetensors")
    standing_now = standing(project)
    text = tables.fill(README, tables.readme_sections(standing_now), "README.md")
    (folder / "README.md").write_text(text)


class Damage:
    """Ways to spoil a project, for tables of what must be caught."""

    def __init__(self, project: Project):
        self.project, self.folder, self.root = project, project.folder, project.root

    def write(self, path: str, content: str | bytes) -> Path:
        """Put a file into the project's folder."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
        return target

    def replace(self, path: str, old: str, new: str) -> None:
        """Replace a piece of a file, which must be there."""
        text = (self.folder / path).read_text()
        assert old in text, old
        self.write(path, text.replace(old, new, 1))

    def append(self, path: str, text: str) -> None:
        self.write(path, (self.folder / path).read_text() + text)

    def delete(self, path: str) -> None:
        (self.folder / path).unlink()

    def link(self, path: str, target: str | Path) -> None:
        """Put a symbolic link in the place of a file."""
        place = self.folder / path
        if place.is_file() or place.is_symlink():
            place.unlink()
        elif place.is_dir():
            shutil.rmtree(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def record(self, run: str = "laptop/k50", **fields: Any) -> None:
        """Change fields of a record; `score_…` those of its first score."""
        path = f"results/{run}/record.json"
        raw = json.loads((self.folder / path).read_text())
        for name, value in fields.items():
            if name.startswith("score_"):
                raw["scores"][0][name.removeprefix("score_")] = value
            else:
                raw[name] = value
        self.write(path, json.dumps(raw, indent=1))

    def notebook(self, change: Callable[[list[dict[str, Any]]], Any]) -> None:
        """Change the notebook's cells in place."""
        cells = good_cells()
        change(cells)
        self.write("toy.ipynb", notebook_text(cells))

    def output(self, **output: Any) -> None:
        """Give the notebook's last cell this output."""
        self.notebook(lambda cells: cells[3].update(outputs=[output]))

    def safetensors(self, header: str | bytes, body: bytes = b"", length: int | None = None) -> None:
        """Put weights of this header into the results."""
        raw = header if isinstance(header, bytes) else header.encode()
        start = (len(raw) if length is None else length).to_bytes(8, "little")
        self.write("results/laptop/k50/weights.safetensors", start + raw + body)

    def git(self) -> None:
        """Make the repository a git repository with everything in it staged."""
        for arguments in (["init", "-q"], ["add", "-A", "-f"]):
            subprocess.run(["git", "-C", str(self.root), *arguments], check=True)


@pytest.fixture
def damage(submitted: Project) -> Damage:
    return Damage(submitted)
