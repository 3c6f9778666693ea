"""Each rule lets a good submission pass and catches what it is for; a change in one place breaks one rule."""

import base64
import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from referee.checks import STAGES, Submission, every_check, run
from referee.project import Project

Spoil = Callable[[Any], object]
HOME = "/" + "home/ada"  # in parts: the repository names nobody's home
MINE = ("PRJ", "LAY", "RES", "NB", "TST", "PRB", "ORG", "DOC", "SEC")

AFTER_THE_CODE = {"LAY-004", "LAY-005"}
SVG = '<svg xmlns="http://www.w3.org/2000/svg">{}</svg>'
TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2
REGISTRY = 'REGISTRY = {e.name: e for e in (DataSet(name="{}", sha256="{}"),)}\n'


def torch_file() -> bytes:
    """What torch.save writes: a zip archive with a pickle."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    return packed.getvalue()


def stream(text: str) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda cells: cells[1]["outputs"][0].update(text=[text])


def source(number: int, text: str) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda cells: cells[number].update(source=[text])


CURVE = '{"step": 0, "bound": -90.0}\n'
OTHERS = "projects/other/results/laptop/k1/weights.safetensors"


def other_weights(damage: Any, digest: str) -> None:
    """A run that trained nothing: it takes the weights of that digest, where another project publishes b"test"."""
    path = damage.project.root / OTHERS
    path.parent.mkdir(parents=True)
    path.write_bytes(b"test")
    taken = {"weights": "other/laptop/k1", "weights_sha256": digest}
    damage.record(steps=0, config=taken)
    damage.write("results/laptop/k50/config.json", json.dumps(taken))
    damage.delete("results/laptop/k50/metrics.jsonl")


BAD: list[tuple[str, str, Spoil]] = [
    # PRJ: a representative; tests/referee/test_loading.py has the others
    ("PRJ-005", "unknown field 'license'", lambda d: d.append("project.yaml", "license: MIT\n")),
    # LAY
    ("LAY-001", "is missing", lambda d: d.delete("toy.ipynb")),
    ("LAY-001", "is missing", lambda d: d.delete("README.md")),
    ("LAY-001", "is missing", lambda d: d.delete("test_toy.py")),
    ("LAY-003", "UTF-8", lambda d: d.write("notes.md", b"caf\xe9")),
    ("LAY-003", "NUL", lambda d: d.write("notes.md", "a\0b")),
    ("LAY-004", "not Python", lambda d: d.append("toy.py", "def f(:\n")),
    ("LAY-005", "defines no 'evaluate'", lambda d: d.replace("toy.py", "def evaluate", "def evaluates")),
    ("LAY-005", "defines no 'PROBES'", lambda d: d.replace("toy.py", "PROBES =", "PROBS =")),
    ("LAY-006", "lines", lambda d: d.append("toy.py", "\n" * 500)),
    ("LAY-007", "imports 'referee.verdicts'", lambda d: d.append("test_toy.py", "import referee.verdicts\n")),
    ("LAY-007", "imports 'projects.vae'", lambda d: d.append("toy.py", "from projects import vae\n")),
    ("LAY-007", "imports '..vae'", lambda d: d.append("toy.py", "from ..vae import vae\n")),
    ("LAY-008", HOME, lambda d: d.append("test_toy.py", f"FOLDER = '{HOME}/data'\n")),
    ("LAY-008", "C:\\Users\\ada", lambda d: d.append("README.md", "\nData: C:\\Users\\ada\\data\n")),
    ("LAY-009", "no place", lambda d: d.write("slides.pptx", "text")),
    # RES
    (
        "RES-016",
        "claim 'nll-k50': the paper has 840.70 nats, ours is",
        lambda d: d.write(
            "project.yaml",
            (d.folder / "project.yaml")
            .read_text()
            .replace("preset: paper", "preset: laptop")
            .replace("paper_value: 84.70", "paper_value: 840.70"),
        ),
    ),
    (
        "RES-015",
        "about 'toys', which common/data/registry.py does not know. Did you mean 'toy'?",
        lambda d: registry(d, "toy", "0" * 64),
    ),
    ("RES-001", "not JSON", lambda d: d.write("results/laptop/k50/record.json", "{")),
    ("RES-001", "is the record of", lambda d: d.record(run="laptop/k50", project="iwae")),
    ("RES-001", "no preset", lambda d: d.write("results/big/k1/record.json", json.dumps(RECORD))),
    ("RES-001", "cannot be negative", lambda d: d.record(score_stderr=-1)),
    ("RES-001", "below 1e+12", lambda d: d.record(score_value=1e300)),
    ("RES-001", "no run's folder", lambda d: d.write("results/record.json", "{}")),
    ("RES-002", "no value and no ordering", lambda d: [d.delete(f"results/laptop/{r}/record.json") for r in RUNS[1:]]),
    ("RES-004", "made by other code than the present: k1, k5, k50", lambda d: d.append("toy.py", "NEW = 1\n")),
    ("RES-004", "present: k50. Run 'referee run toy", lambda d: d.record(code_digest="0" * 64)),
    ("RES-005", "not SHA-256", lambda d: d.record(data_sha256={"toys": "abc"})),
    ("RES-005", "names no data set", lambda d: d.record(data_sha256={})),
    ("RES-005", "does not know", lambda d: registry(d, "mnist", "0" * 64)),
    ("RES-005", "other content of 'toys'", lambda d: registry(d, "toys", "1" * 64)),
    ("RES-006", "no protocol", lambda d: d.record(score_protocol="")),
    ("RES-006", "no protocol", lambda d: d.record(score_protocol="TODO: say how")),
    ("RES-006", "which is none of train, val, test", lambda d: d.record(score_split="testing")),
    ("RES-006", "its protocol speaks of test examples", lambda d: d.record(**OTHER_SPLIT)),
    ("RES-006", "its unit is 'nats'", lambda d: d.record(score_unit="bits")),
    ("RES-006", "no standard error", lambda d: d.record(score_stderr=None, score_kind="exact")),
    ("RES-006", "no spread", lambda d: d.record(score_stderr=0)),
    ("RES-006", "more than any data set", lambda d: d.record(score_n=10**9)),
    ("RES-006", "bits/dim", lambda d: d.record(**BITS, score_value=-1.5)),
    ("RES-006", "bits/dim", lambda d: d.record(**BITS, score_value=40.0, score_kind="exact")),
    ("RES-006", "bits/dim", lambda d: d.record(**BITS, score_value=-0.1, score_kind="bound")),
    ("RES-006", "counts", lambda d: d.record(score_name="active_units", score_unit="units", score_value=1.5)),
    ("RES-006", "holds no score", lambda d: d.record(scores=[])),
    ("RES-007", "as its protocol says", lambda d: d.record(score_kind="exact")),
    (
        "RES-007",
        "by its definition",
        lambda d: d.record(score_name="elbo", score_kind="exact"),
    ),
    (
        "RES-007",
        "nobody can compute",
        lambda d: (
            d.replace("project.yaml", "family: toys", "family: vae"),
            d.record(score_kind="exact", score_protocol="the whole test set"),
        ),
    ),
    ("RES-008", "have the mean", lambda d: d.record(score_value=80.0)),
    ("RES-008", "have the standard error", lambda d: d.record(score_stderr=0.01)),
    ("RES-008", "the record says n = 500", lambda d: d.record(score_n=500)),
    ("RES-009", "differs from the configuration", lambda d: d.write("results/laptop/k1/config.json", '{"k": 2}')),
    ("RES-009", "is missing", lambda d: d.delete("results/laptop/k1/metrics.jsonl")),
    ("RES-009", "comes after step", lambda d: d.append("results/laptop/k1/metrics.jsonl", '{"step": 2, "bound": 1}\n')),
    ("RES-009", "the record says 4 steps", lambda d: d.append("results/laptop/k1/metrics.jsonl", '{"step": 9}\n')),
    ("RES-009", "not an object of numbers", lambda d: d.append("results/laptop/k1/metrics.jsonl", '{"step": "9"}\n')),
    ("RES-010", "run 'referee tables toy'", lambda d: d.replace("README.md", "85.", "84.")),
    ("RES-010", "not closed", lambda d: d.replace("README.md", "<!-- /referee:claims -->", "")),
    ("RES-012", "names no commit", lambda d: d.record(git_sha="")),
    (
        "RES-012",
        "first, then 'referee run toy --preset laptop --only k50 --fresh --publish'",
        lambda d: d.record(git_sha="0" * 40 + "+"),
    ),
    ("RES-012", "has weights trained by code that was", lambda d: d.record(trained={"git_sha": "0" * 40 + "+"})),
    ("RES-012", "in the future", lambda d: d.record(finished="2999-01-01T00:00:00+00:00")),
    ("RES-012", "at no time", lambda d: d.record(finished="yesterday")),
    ("RES-012", "versions", lambda d: d.record(environment={})),
    ("RES-012", "took 0 steps and", lambda d: [d.record(steps=0), d.write("results/laptop/k50/metrics.jsonl", CURVE)]),
    ("RES-013", "lists it under 'weights'", lambda d: d.delete("results/laptop/k50/weights.safetensors")),
    ("RES-014", "the very file of laptop/k1", lambda d: share(d, "metrics.jsonl")),
    ("RES-014", "the very file of laptop/k1", lambda d: share(d, "samples.png")),
    ("RES-017", "now has 9f86d081884c", lambda d: other_weights(d, "0" * 64)),
    ("RES-018", "is a bound and has no standard error", lambda d: d.record(score_stderr=None)),
    (
        "RES-018",
        "is an estimate and has no standard error",
        lambda d: d.record(score_stderr=None, score_kind="estimate"),
    ),
    # NB
    ("NB-001", "not JSON", lambda d: d.write("toy.ipynb", "{")),
    ("NB-001", "no list of cells", lambda d: d.write("toy.ipynb", "{}")),
    ("NB-001", "format 3", lambda d: d.replace("toy.ipynb", '"nbformat": 4', '"nbformat": 3')),
    ("NB-001", "second notebook", lambda d: d.write("other.ipynb", "{}")),
    ("NB-002", "the limit is", lambda d: d.write("toy.ipynb", " " * 3 * 2**20)),
    (
        "NB-003",
        "cell 4 has the execution count 3, not 2",
        lambda d: d.notebook(lambda c: c[3].update(execution_count=3)),
    ),
    ("NB-003", "not executed", lambda d: d.notebook(lambda c: c[1].update(execution_count=None))),
    ("NB-004", "NameError", lambda d: d.output(output_type="error", ename="NameError", evalue="x", traceback=[])),
    ("NB-005", "cell 2 prints something", lambda d: d.notebook(lambda c: c[1].update(outputs=[]))),
    ("NB-005", "no picture", lambda d: d.notebook(lambda c: c[3].update(outputs=[]))),
    ("NB-006", HOME, lambda d: d.notebook(stream(f"saved {HOME}/x.png\n"))),
    ("NB-006", "C:\\Users\\ada", lambda d: d.notebook(source(1, "print(r'C:\\Users\\ada\\x')"))),
    ("NB-006", "/tmp/x", lambda d: d.output(output_type="display_data", data={"text/plain": "/tmp/x"})),
    ("NB-007", "'text/html'", lambda d: d.output(output_type="display_data", data={"text/html": "<b>x</b>"})),
    ("NB-007", "javascript", lambda d: d.output(output_type="display_data", data={"application/javascript": "x"})),
    ("NB-007", "and is not", lambda d: d.output(output_type="display_data", data={"image/png": "PHNjcmlwdD4="})),
    ("NB-007", "unknown kind", lambda d: d.output(output_type="update_display_data", data={})),
    ("NB-007", "HTML that acts", lambda d: d.notebook(source(2, "<script>x</script>"))),
    ("NB-007", "HTML that acts", lambda d: d.notebook(source(2, '<img src=x onerror="x">'))),
    ("NB-007", "HTML that acts", lambda d: d.notebook(source(2, "[x](javascript&#58;alert(1))"))),
    ("NB-008", "runs a shell", lambda d: d.notebook(source(1, "!pip install x\nprint(1)"))),
    ("NB-008", "runs a shell", lambda d: d.notebook(source(1, "%%bash\nls"))),
    ("NB-009", "does not begin with a heading", lambda d: d.notebook(source(0, "Toys"))),
    # TST, PRB
    ("TST-001", "asserts nothing", lambda d: d.write("test_toy.py", "import math\n")),
    ("TST-001", "'test_all' tests nothing", lambda d: d.append("test_toy.py", "def test_all():\n    assert True\n")),
    (
        "TST-002",
        "switched off",
        lambda d: d.append("test_toy.py", "import pytest\n@pytest.mark.skip\ndef test_x():\n    assert f()\n"),
    ),
    ("PRB-001", "names the probe 'bound'", lambda d: d.replace("project.yaml", "[good]", "[good, bound]")),
    ("PRB-002", "names no probe 'bijection'", lambda d: d.replace("project.yaml", "family: toys", "family: flow")),
    # ORG
    ("ORG-001", "not among the permissive", lambda d: d.replace("project.yaml", "licence: MIT", "licence: mine")),
    ("ORG-002", "is not there", lambda d: borrowed(d, path="lib.py")),
    ("ORG-002", "no address", lambda d: borrowed(d, source="a friend")),
    ("ORG-002", "asks the same", lambda d: borrowed(d, licence="GPL-3.0-only")),
    ("ORG-002", "forbids this use", lambda d: borrowed(d, licence="CC-BY-NC-4.0")),
    ("ORG-002", "no SPDX name", lambda d: borrowed(d, licence="MIT Licence")),
    ("ORG-003", "comes from elsewhere", lambda d: d.append("toy.py", "# adapted from https://github.com/a/b\n")),
    ("ORG-003", "comes from elsewhere", lambda d: d.append("toy.py", "# Copyright (c) 2020 Ada Maker\n")),
    ("ORG-005", "twice", lambda d: d.replace("project.yaml", "team: [", "team: [{handle: Team-A, role: more}, ")),
    # DOC
    ("DOC-001", "title", lambda d: d.replace("README.md", "# A paper", "A paper")),
    (
        "DOC-001",
        "does not link the paper",
        lambda d: d.write("README.md", readme(d).replace("1509.", "1234.")),
    ),
    (
        "DOC-001",
        "no table of deviations",
        lambda d: d.write("README.md", readme(d).replace("referee:dev", "referees:dev")),
    ),
    ("DOC-002", "no command", lambda d: d.write("README.md", readme(d).replace("referee run", "run"))),
    (
        "DOC-002",
        "names another paper",
        lambda d: d.replace("README.md", "run toy --pre", "run vae --pre"),
    ),
    ("DOC-002", "names no preset", lambda d: d.replace("README.md", "run toy --preset smoke", "run toy")),
    ("DOC-002", "no preset 'big'", lambda d: d.replace("README.md", "--preset smoke", "--preset big")),
    (
        "DOC-002",
        "is no command",
        lambda d: d.replace("README.md", "referee run toy", "referee train toy"),
    ),
    ("DOC-003", "'TODO: write' is left", lambda d: d.append("README.md", "\nTODO: write\n")),
    ("DOC-003", "'<your", lambda d: d.replace("project.yaml", "effect: unknown", "effect: <your words>")),
    (
        "DOC-003",
        "'WRITE: what `paper` takes, measured or estimated, with its unit' is left",
        lambda d: d.append("README.md", "\nWRITE: what `paper` takes, measured or estimated, with its unit\n"),
    ),
    ("DOC-003", "cell 3: 'WRITE:", lambda d: d.notebook(source(2, "WRITE: what is seen"))),
    ("DOC-004", "leads nowhere", lambda d: d.append("README.md", "\n[code](Toy.py)\n")),
    ("DOC-004", "leaves the repository", lambda d: d.append("README.md", "\n[x](../../../../../../etc/passwd)\n")),
    ("DOC-005", "HTML that acts", lambda d: d.append("README.md", "\n<script>x</script>\n")),
    ("DOC-005", "HTML that acts", lambda d: d.append("README.md", "\n`a\n\n<iframe src=x>\n\nb`\n")),
    ("DOC-006", "docstring", lambda d: d.replace("toy.py", '"""A Paper on Toys', 'NOTHING = """A Paper on Toys')),
    # SEC
    ("SEC-001", "symbolic link", lambda d: d.link("notes.md", "README.md")),
    ("SEC-001", "neither a file nor a folder", lambda d: os.mkfifo(d.folder / "pipe")),
    ("SEC-002", "the limit is 16 MiB", lambda d: os.truncate(d.write("results/x.png", ""), 17 * 2**20)),
    ("SEC-002", "folders deep", lambda d: d.write("a/b/c/d/e/f/g/h.md", "deep")),
    ("SEC-003", "zip archive", lambda d: d.write("model.pt", torch_file())),
    ("SEC-003", "zip archive", lambda d: d.write("results/samples.png", torch_file())),
    ("SEC-003", "is a pickle", lambda d: d.write("notes.txt", pickle.dumps({"a": 1}))),
    ("SEC-003", "is a pickle", lambda d: d.write("notes.txt", pickle.dumps(os.getcwd, protocol=0))),
    ("SEC-003", "a program", lambda d: d.write("tool.txt", b"\x7fELF\x02\x01")),
    ("SEC-004", "more or fewer bytes", lambda d: d.safetensors(tensor(shape=[3]), bytes(8))),
    ("SEC-005", "a GitHub token", lambda d: d.append("toy.py", f"KEY = '{TOKEN}'\n")),
    ("SEC-005", "a private key", lambda d: d.write("notes.md", "-----BEGIN RSA PRIVATE KEY-----\n")),
    ("SEC-005", "a password or key", lambda d: d.append("toy.py", "wandb_key = '0123456789abcdef0123'\n")),
    (
        "SEC-005",
        "password in an address",
        lambda d: d.append("README.md", "\ngit clone https://ada:s3cretpw@git.org/x\n"),
    ),
    ("SEC-005", "a GitHub token", lambda d: d.notebook(stream(f"token {TOKEN}\n"))),
    ("SEC-006", "U+202E", lambda d: d.append("toy.py", "# \u202e reversed\n")),
    ("SEC-006", "U+200B", lambda d: d.append("README.md", "\nzero\u200bwidth\n")),
    ("SEC-006", "U+001B", lambda d: d.append("README.md", "\n\x1b[31mred\n")),
    ("SEC-006", "mixes Latin and Cyrillic", lambda d: d.append("toy.py", "lоss = 1\n")),
    ("SEC-006", "looks Latin", lambda d: d.append("toy.py", "е = 1\n")),
    ("SEC-006", "reads as others", lambda d: d.append("toy.py", "ｅｖａｌ = 1\n")),
    ("SEC-006", "encoded as utf-7", lambda d: d.write("toy.py", "# -*- coding: utf-7 -*-\n" + paper(d))),
    ("SEC-006", "cell 3 holds the character U+202E", lambda d: d.write("toy.ipynb", escaped(d))),
    ("SEC-007", "no PNG", lambda d: d.write("figure.png", "text")),
    ("SEC-007", "acts ('<script')", lambda d: d.write("figure.svg", SVG.format("<script>x</script>"))),
    ("SEC-007", "acts ('onload=')", lambda d: d.write("figure.svg", SVG.format('<g onload="x"/>'))),
    ("SEC-008", "other characters", lambda d: d.write("a b.md", "x")),
    ("SEC-008", "is hidden", lambda d: d.write(".env", "x")),
    ("SEC-008", "Windows", lambda d: d.write("aux.md", "x")),
    ("SEC-008", "in capitals only", lambda d: (d.write("notes.md", "x"), d.write("Notes.md", "x"))),
    ("SEC-009", "imports subprocess", lambda d: d.append("toy.py", "import subprocess\n")),
    ("SEC-009", "calls os.system", lambda d: d.append("toy.py", "def f():\n    os.system('x')\n")),
    ("SEC-009", "calls exec", lambda d: d.notebook(source(1, "exec('1')\nprint(1)"))),
    ("SEC-010", "without weights_only=True", lambda d: d.append("toy.py", "def f():\n    torch.load('x')\n")),
    ("SEC-010", "calls pickle.load", lambda d: d.append("test_toy.py", "def f(x):\n    pickle.load(x)\n")),
]

RUNS = ("k1", "k5", "k50")
BITS = {"score_name": "bits_per_dim", "score_unit": "bits/dim"}
OTHER_SPLIT = {"score_split": "train", "score_protocol": "toys, L_10, 100 test examples"}
RECORD: dict[str, Any] = {}  # filled by the test: a whole record


def tensor(shape: list[int], start: int = 0, end: int = 8) -> str:
    return json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}})


def share(d: Any, name: str) -> None:
    """One run's file beside another's record."""
    d.write(f"results/laptop/k5/{name}", (d.folder / "results/laptop/k1" / name).read_bytes())


def registry(d: Any, name: str, digest: str) -> None:
    folder = d.root / "common" / "data"
    folder.mkdir(parents=True)
    (folder / "registry.py").write_text(f'DATA = DataSet(name="{name}", sha256="{digest}")\n')


def borrowed(d: Any, **fields: str) -> None:
    entry = {"path": "toy.py", "source": "https://example.org/code", "licence": "MIT", "what": "all", **fields}
    d.append("project.yaml", f"borrowed:\n  - {json.dumps(entry)}\n")


def readme(d: Any) -> str:
    return str((d.folder / "README.md").read_text())


def paper(d: Any) -> str:
    return str((d.folder / "toy.py").read_text())


def escaped(d: Any) -> str:
    return str((d.folder / "toy.ipynb").read_text()).replace("A figure.", "A \\u202e figure.")


@pytest.fixture(autouse=True)
def _whole_record(submitted: Project) -> None:
    RECORD.update(json.loads((submitted.results / "laptop" / "k1" / "record.json").read_text()))
    RECORD.update(preset="big")


def mine() -> set[str]:
    """The rules of a submission itself; those of reviews, courses and stages have tests of their own."""
    return {rule for rule in every_check() if rule.partition("-")[0] in MINE}


def findings(project: Project, stage: str = "v1", only: set[str] | None = None) -> list[tuple[str, str, str]]:
    return [(f.rule, f.severity, f.message) for f in run(Submission(project, stage), only=only or mine()).findings]


def test_nothing_is_wrong_with_a_good_submission(submitted: Project) -> None:
    outcome = run(Submission(submitted, "v1"), only=mine())
    assert outcome.findings == ()
    assert outcome.skipped == ()
    asked = {r for r, c in every_check().items() if r in mine() and c.look and c.needs == "files"}
    assert set(outcome.passed) == asked


@pytest.mark.parametrize(("rule", "says", "spoil"), BAD, ids=[f"{rule}-{says[:24]}" for rule, says, _ in BAD])
def test_each_rule_catches_what_it_is_for(damage: Any, rule: str, says: str, spoil: Spoil) -> None:
    spoil(damage)
    found = findings(damage.project, only={rule, "LAY-001"})
    assert any(r == rule and says in message for r, _, message in found), found
    assert not any("the check itself failed" in message for _, _, message in found), found


def test_every_rule_that_reads_files_has_a_bad_case() -> None:
    tried = {rule for rule, _, _ in BAD}
    asked = {r for r, c in every_check().items() if r in mine() and c.look and c.needs == "files"}
    assert asked - tried == {"LAY-002", "RES-003"}  # tested below


def test_a_mistake_in_one_place_breaks_one_rule(damage: Any) -> None:
    """Rules do not repeat each other: what one has said, no other says again."""
    damage.delete("README.md")
    assert [rule for rule, _, _ in findings(damage.project)] == ["LAY-001"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.append("README.md", "\nAt temperature `/tmp`, 3/home runs, a/tmp/b, https://example.org/home/x.\n"),
        lambda d: d.append("README.md", "\n2 < 3 and 5 > 4, a<b, `x <y`, <https://example.org>, <br>, the data: we\n"),
        lambda d: d.append("toy.py", "# γ, Σ_φ and log_σ are the paper's letters\nlog_σ = γ = μ_x = 1\n"),
        lambda d: d.append("toy.py", "TOKENS = 'sk-learn'; password = ''; secret = 'the quick brown fox'\n"),
        lambda d: d.append("README.md", "\nA learning rate once = 1e-3; see the [paper](https://x.org/a_(b)).\n"),
        lambda d: d.append("README.md", "\n````\n```\n[x](nowhere) TODO\n````\n"),
        lambda d: d.append("README.md", "\n`` a ` [x](nowhere) TODO ``\n"),
        lambda d: d.notebook(lambda c: c[1].update(source=["x = 1 % 2\nprint(x != 1)"])),
        lambda d: d.append("test_toy.py", "def test_b(tmp_path):\n    check_it(tmp_path)\n"),
        lambda d: d.record(score_protocol="trained on all data, L_10 of 100 test images"),
        lambda d: d.write("results/laptop/k50/curve.svg", SVG.format("<path d='M0 0'/>")),
        lambda d: other_weights(d, hashlib.sha256(b"test").hexdigest()),
        lambda d: [other_weights(d, "0" * 64), (d.project.root / OTHERS).unlink()],  # too large to be published
    ],
)
def test_no_false_alarm(damage: Any, spoil: Spoil) -> None:
    spoil(damage)
    assert [f for f in findings(damage.project) if f[0] != "RES-004" and f[0] != "RES-010"] == []


def test_a_data_set_that_is_to_be_added_is_named_in_the_note(damage: Any) -> None:
    registry(damage, "mnist", "0" * 64)
    text = (damage.folder / "project.yaml").read_text()
    known = findings(damage.project, only={"RES-015"})
    assert len(known) == text.count("dataset: toys")
    damage.write("project.yaml", text.replace("dataset: toys", "note: toys is new here\n    dataset: toys", 1))
    assert len(findings(damage.project, only={"RES-015"})) == len(known) - 1


def test_points_that_are_drawn_are_known_and_have_no_digest_of_their_own(damage: Any) -> None:
    registry(damage, "mnist", "0" * 64)
    for run_ in RUNS:
        damage.record(f"laptop/{run_}", data_sha256={"ring8": "1" * 64})
    assert any("does not know" in message for _, _, message in findings(damage.project, only={"RES-005"}))
    file = damage.root / "common" / "data" / "registry.py"
    file.write_text(file.read_text() + 'DRAWN = ("ring8", "swiss_roll")\n')
    assert findings(damage.project, only={"RES-005"}) == []


def test_runs_whose_scores_are_no_means_keep_no_examples(damage: Any) -> None:
    for run_ in ("k1", "k5"):
        damage.write(f"results/laptop/{run_}/examples.safetensors", (8).to_bytes(8, "little") + b"{}      ")
    assert findings(damage.project, only={"RES-014"}) == []


def test_a_bound_may_be_as_bad_as_it_is(damage: Any) -> None:
    damage.record(**BITS, score_value=40.0, score_kind="bound")
    assert findings(damage.project, only={"RES-006"}) == []


def test_what_is_counted_exactly_needs_no_error(damage: Any) -> None:
    counted = {"score_name": "active_units", "score_unit": "units", "score_value": 7.0, "score_kind": "exact"}
    damage.record(**counted, score_stderr=None)
    assert findings(damage.project, only={"RES-006", "RES-018"}) == []


def test_names_that_cannot_be_imported(submitted: Project) -> None:
    for name in ("class", "json", "2fast", "Toy", "a-b"):
        moved = submitted.folder.rename(submitted.folder.with_name(name))
        found = findings(Project(submitted.root, name), "proposed")
        assert any(rule == "LAY-002" for rule, _, _ in found), name
        moved.rename(submitted.folder)


def test_a_claim_that_nothing_speaks_to_is_a_note(damage: Any) -> None:
    for run_ in RUNS:
        damage.record(f"laptop/{run_}", data_sha256={"other": "0" * 64})
    notes = [(rule, severity) for rule, severity, _ in findings(damage.project) if rule == "RES-003"]
    assert notes == []  # they have records to look at, on other data
    (damage.folder / "results" / "laptop" / "k5" / "record.json").unlink()
    assert ("RES-003", "note") in [(r, s) for r, s, _ in findings(damage.project)]


def test_a_proposal_is_asked_for_its_claims_alone(project: Project) -> None:
    for name in ("toy.py", "README.md", "__init__.py"):
        (project.folder / name).unlink()
    assert findings(project, "proposed") == []


def test_severities_depend_on_the_stage() -> None:
    for entry in (entry for rule, entry in every_check().items() if rule in mine()):
        assert set(entry.severity) == set(STAGES)
        assert any(entry.severity.values()), entry.rule
        assert entry.title[0].isupper() or entry.title.startswith(("project.yaml", "course.yaml"))
        assert entry.fix.rstrip().endswith((".", ")")), entry.rule
        assert entry.why.rstrip().endswith("."), entry.rule


def test_caches_count_when_they_are_committed(damage: Any) -> None:
    """A compiled file in __pycache__ would be run in the place of the source."""
    damage.write("__pycache__/toy.cpython-311.pyc", b"\x00")
    assert findings(damage.project) == []
    damage.git()
    assert "SEC-003" in {rule for rule, _, _ in findings(damage.project)}


def test_pictures_in_notebooks_are_not_taken_for_secrets(damage: Any) -> None:
    noise = base64.b64encode(b"\x89PNG\r\n\x1a\n\0").decode() + "/AKIAIOSFODNN7EXAMPLE/" + "Q" * 70
    damage.output(output_type="display_data", data={"image/png": noise}, metadata={})
    assert "SEC-005" not in {rule for rule, _, _ in findings(damage.project)}


@pytest.mark.parametrize("paper_", ["iwae", "vae"])
def test_the_founding_projects_stand_at_v1(paper_: str) -> None:
    from referee.project import find_root

    outcome = run(Submission(Project(find_root(), paper_), "v1"), only=mine())
    wrong = [str(f) for f in outcome.findings if f.severity == "error"]
    assert wrong == []
    assert "RES-008" in outcome.passed


def test_runs_that_only_measure_have_no_curve_and_may_draw_their_data(damage: Any) -> None:
    """Of the family evaluation alone, without a parameter, and where the configuration says that nothing was loaded."""
    rules = {"RES-005", "RES-009", "RES-012", "RES-014"}
    damage.record(steps=0, parameters=0, data_sha256={})
    damage.delete("results/laptop/k50/metrics.jsonl")
    found = {rule for rule, *_ in findings(damage.project, only=rules)}
    assert {"RES-005", "RES-009"} <= found
    damage.replace("project.yaml", "family: toys", "family: evaluation")
    assert {rule for rule, *_ in findings(damage.project, only=rules)} == {"RES-005"}
