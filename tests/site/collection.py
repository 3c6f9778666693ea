"""Collections of invented projects, as large as asked for: files of `projects/` and `reviews/`, without git or code."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from common.records import Record, Score

FAMILIES = ("autoregressive", "diffusion", "energy", "flow", "gan", "vae")
DATASETS = ("binarized_mnist", "cifar10", "mnist", "omniglot")

VALUE: Mapping[str, Any] = {
    "id": "nll-k50",
    "kind": "value",
    "source": "Table 1, k=50",
    "certainty": "seen",
    "metric": "nll",
    "dataset": "mnist",
    "preset": "paper",
    "run": "k50",
    "paper_value": 84.70,
    "direction": "lower",
    "tolerance": 0.5,
}
ORDERING: Mapping[str, Any] = {
    "id": "more-helps",
    "kind": "ordering",
    "source": "section 5",
    "certainty": "seen",
    "statement": "k=50 is better than k=5",
    "metric": "nll",
    "dataset": "mnist",
    "preset": "laptop",
    "runs": ["k50", "k5"],
}

REVIEW = """\
---
reviewer: {handle}
paper: {paper}
round: 1
commit: "{commit}"
checklist: 1
conflict_of_interest: none
hardware: A CPU
minutes: 90
ai_use: none
recommendation: minor
---

## Summary

It holds.

## Checklist

### Faithfulness

- [x] `faith-equations` Each core equation maps to code
  - evidence: `projects/{paper}/project.yaml:1`

## Findings

### F1 · minor · `projects/{paper}/project.yaml:1`

The stage is on the first line.
"""

DECISION = """\
---
paper: {paper}
editor: edith
round: 1
decision: accept
date: 2026-05-03
---

## Reasons

It holds.

## Rulings

## Findings
"""


def empty(root: Path) -> Path:
    """A repository without projects."""
    (root / "projects").mkdir(parents=True)
    (root / "pyproject.toml").write_text("")
    return root


def add(
    root: Path,
    name: str,
    *,
    claims: Sequence[Mapping[str, Any]] = (VALUE,),
    paper: Mapping[str, Any] | None = None,
    reviewers: Sequence[str] = (),
    accepted: bool = False,
    **fields: Any,
) -> Path:
    """Write a project's `project.yaml` and its reviews; returns its folder."""
    folder = root / "projects" / name
    folder.mkdir(parents=True)
    about = {"title": f"A Paper on {name}", "authors": ["Ada Maker", "Bo Player"], "venue": "ICLR", "year": 2016}
    data = {
        "stage": "v1",
        "family": "vae",
        "paper": {**about, **(paper or {})},
        "team": [{"handle": "team-a", "role": "everything"}],
        "licence": "MIT",
        "claims": list(map(dict, claims)),
        **fields,
    }
    (folder / "project.yaml").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")  # which is YAML, too
    reviews = root / "reviews" / name
    for handle in reviewers:
        reviews.mkdir(parents=True, exist_ok=True)
        (reviews / f"{handle}.md").write_text(REVIEW.format(handle=handle, paper=name, commit="a" * 40))
    if accepted:
        (reviews / "decision.md").write_text(DECISION.format(paper=name))
    return folder


def score(**fields: Any) -> Score:
    """A score, an upper bound of the NLL unless told otherwise."""
    usual = {
        "name": "nll",
        "value": 84.9,
        "stderr": 0.2,
        "n": 100,
        "unit": "nats",
        "kind": "bound",
        "split": "test",
        "weights": "raw",
        "protocol": "mnist, L_10",
    }
    return Score(**{**usual, **fields})


def publish(
    root: Path,
    name: str,
    preset: str,
    run: str,
    *scores: Score,
    data: Mapping[str, str] | None = None,
    picture: bytes | None = None,
    **fields: Any,
) -> Path:
    """Write a record among a project's results, with samples; returns its folder."""
    folder = root / "projects" / name / "results" / preset / run
    usual: dict[str, Any] = {
        "project": name,
        "preset": preset,
        "run": run,
        "config": {"k": 1},
        "scores": list(scores) or [score()],
        "seed": 0,
        "steps": 3000,
        "code_digest": "0" * 64,
        "git_sha": "b" * 40,
        "data_sha256": dict(data or {"mnist": "0" * 64}),
        "environment": {"python": "3.11"},
        "hardware": {"cpu": "A CPU", "cores": 2},
        "wall_s": 61.0,
        "finished": "2026-01-02T03:04:05+00:00",
    }
    Record(**{**usual, **fields}).save(folder)
    if picture is not None:
        (folder / "samples.png").write_bytes(picture)
    return folder


def png(width: int = 32, height: int = 24, shade: int = 128) -> bytes:
    """A picture in two shades."""
    image = Image.new("L", (width, height), shade)
    image.paste(255 - shade, (0, 0, width // 2, height // 2))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def many(root: Path, n: int) -> Path:
    """A collection of so many projects, of all families, stages and verdicts."""
    empty(root)
    stages = ("proposed", "v1", "v2", "published")
    for i in range(n):
        name, stage, dataset = f"p{i:03}", stages[i % 4], DATASETS[i % len(DATASETS)]
        value = {**VALUE, "dataset": dataset, "paper_value": round(84.5 + i % 7 / 10, 1)}
        other = [{**value, "id": "other", "run": "k5"}] if i % 3 else []
        add(
            root,
            name,
            claims=[value, {**ORDERING, "dataset": dataset}, *other],
            paper={
                "title": f"Paper {i} of the {FAMILIES[i % 6]} Kind",
                "year": 2010 + i % 15,
                "authors": [f"Author {i}"],
            },
            family=FAMILIES[i % 6],
            stage=stage,
            reviewers=("ada", "bo") if stage in ("v2", "published") else (),
            accepted=stage == "published",
        )
        if stage != "proposed":
            for preset in ("laptop", "paper"):
                for run, worse in (("k50", 0.0), ("k5", 0.5)):
                    nll = 84.0 + (i % 5) * 0.5 + worse
                    publish(
                        root, name, preset, run, score(value=nll), data={dataset: "0" * 64},
                        picture=png(96, 96, i % 200),
                    )  # fmt: skip
    return root
