"""What probes came to is kept on request, and read with suspicion."""

import json
from pathlib import Path
from typing import Any

import pytest

from common.errors import RecordError
from referee.cli import main
from referee.probed import load_probes, show_number
from referee.project import Project

Capture = pytest.CaptureFixture[str]


@pytest.mark.usefixtures("there")
def test_probe_publish(project: Project, capsys: Capture) -> None:
    assert load_probes(project) is None
    assert main(["probe", "toy", "--publish", "--only", "good"]) == 2
    assert "leave --only away" in capsys.readouterr().err
    assert load_probes(project) is None
    assert main(["probe", "toy", "--publish"]) == 1  # one fails, and is published as failed
    assert "Published: projects/toy/results/probes.json" in capsys.readouterr().err
    run = load_probes(project)
    assert run is not None
    assert [(p.name, p.passed) for p in run.probes][:2] == [("good", True), ("bad", False)]
    assert run.probes[1].numbers == {"error": 3.5}


PROBE: dict[str, Any] = {"name": "bound", "statement": "s", "passed": True, "numbers": {"n": 8}, "detail": ""}
RUN: dict[str, Any] = {
    "project": "toy",
    "finished": "2026-01-02T03:04:05+00:00",
    "git_sha": "",
    "digest": "0" * 64,
    "environment": {"python": "3.11"},
    "probes": [PROBE],
}


@pytest.mark.parametrize(
    "change",
    [
        {"project": "other"},
        {"finished": "yesterday"},
        {"finished": "2026-01-02T<script>"},
        {"digest": 1},
        {"environment": []},
        {"environment": {"python": 3}},
        {"probes": [{**PROBE, "passed": "yes"}]},
        {"probes": [{**PROBE, "numbers": {"n": [1]}}]},
        {"probes": [{**PROBE, "numbers": {"n": True}}]},
        {"probes": [{**PROBE, "statement": None}]},
        {"probes": [{"name": "bound"}]},
        {"probes": 3},
        {"probes": None},
    ],
)
def test_what_is_no_such_file_is_refused(project: Project, change: dict[str, Any]) -> None:
    path = project.results / "probes.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(RUN))
    assert load_probes(project) is not None
    path.write_text(json.dumps({**RUN, **change}))
    with pytest.raises(RecordError, match=r"^projects/toy/results/probes\.json: .* 'referee probe toy --publish'"):
        load_probes(project)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"[" * 100_000, b"{}" + b" " * 300_000])
def test_what_is_no_json_object_is_refused(project: Project, content: bytes) -> None:
    path = project.results / "probes.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"probes\.json"):
        load_probes(project)


def test_a_link_is_refused(project: Project, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(json.dumps(RUN))
    path = project.results / "probes.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordError, match="a link"):
        load_probes(project)


def test_numbers() -> None:
    shown = [show_number(v) for v in (-0.25, 8, 1e-14, float("nan"), "to the bit", 12345.678)]
    assert shown == ["−0.25", "8", "1e-14", "nan", "to the bit", "1.235e+04"]
