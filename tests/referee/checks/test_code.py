"""Checks that run a submission's code: in a process of its own, for a bounded time, and only when they are asked."""

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from referee.checks import Finding, Submission, code, run

CODE = ("files", "code")
NOTEBOOK = ("files", "notebook")


def findings(damage: Any, *rules: str, needs: Any = CODE) -> list[Finding]:
    outcome = run(Submission(damage.project, "v1"), needs=needs, only=rules)
    assert not [f for f in outcome.findings if "the check itself failed" in f.message]
    return list(outcome.findings)


def answering(monkeypatch: pytest.MonkeyPatch, status: int, out: str = "", err: str = "") -> list[list[str]]:
    """Let every command answer this; returns the commands that were asked."""
    asked: list[list[str]] = []

    def execute(command: list[str], folder: Path, seconds: float) -> tuple[int, str, str]:
        asked.append(list(command))
        return status, out, err

    monkeypatch.setattr(code, "execute", execute)
    return asked


# -- With the paper's code ---------------------------------------------------------------------------------------------


def test_the_module_is_asked_once_for_what_it_offers(damage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    real = code.execute
    monkeypatch.setattr(code, "execute", lambda *a: (asked.append(a), real(*a))[1])
    for name, k in {"k1": 1, "k5": 6, "k50": 50}.items():
        config = {"k": k, "lr": 1e-3, "hidden": [4], "flip": False, "mode": "fast", "seed": 0}
        damage.record(f"laptop/{name}", config=config)
    (found,) = findings(damage, "PRJ-013", "RES-011")
    assert len(asked) == 1
    assert (found.rule, found.file) == ("RES-011", "projects/toy/results/laptop/k5/record.json")
    assert "ran with k = 6, the preset has 5" in found.message


def test_tests_that_pass_and_tests_that_fail(damage: Any) -> None:
    damage.write("test_toy.py", "def test_a():\n    assert 1 + 1 == 2\n\n\ndef test_b():\n    assert 'one' == 'two'\n")
    (found,) = findings(damage, "TST-003")
    assert found.message.startswith("test_b fails: AssertionError: assert 'one' == 'two'")
    assert not list(damage.folder.rglob("__pycache__"))
    damage.write("test_toy.py", "def test_a():\n    assert 1 + 1 == 2\n")
    assert findings(damage, "TST-003") == []


def test_a_notebook_that_shows_something_else_when_it_is_run_again(damage: Any) -> None:
    damage.notebook(lambda cells: cells.pop())
    assert findings(damage, "NB-010", needs=NOTEBOOK) == []
    damage.notebook(lambda cells: (cells.pop(), cells[1].update(source=["print(2)"])))
    (found,) = findings(damage, "NB-010", needs=NOTEBOOK)
    assert "differs when it is executed again (Cell 0)" in found.message


# -- What their answers mean -------------------------------------------------------------------------------------------


def test_what_cannot_be_imported(damage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 1, err="Traceback …\nModuleNotFoundError: No module named 'nowhere'\n")
    (found,) = findings(damage, "PRJ-013", "RES-011")
    assert found.rule == "PRJ-013"
    assert "cannot be imported: ModuleNotFoundError: No module named 'nowhere'" in found.message


@pytest.mark.parametrize("out", ["", "[]", "{}", '{"presets": 3, "probes": []}', '{"presets": {"a": 1}, "probes": []}'])
def test_answers_of_another_form(damage: Any, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    answering(monkeypatch, 0, out)
    (found,) = findings(damage, "PRJ-013", "RES-011")
    assert "of another form" in found.message


def test_what_the_module_does_not_have(damage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, 0, '{"presets": {"paper": {"k50": {}}}, "probes": []}')
    said = [f.message for f in findings(damage, "PRJ-013")]
    assert any("no preset 'laptop'" in message for message in said)
    assert any("no probe 'good'" in message for message in said)


def test_probes(damage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (asked,) = [answering(monkeypatch, 0, '{"probes": [{"name": "good", "passed": true, "detail": ""}]}')]
    assert findings(damage, "PRB-003") == []
    assert asked[0][1:5] == ["-m", "referee", "probe", "toy"]
    answering(monkeypatch, 1, '{"probes": [{"name": "good", "passed": false, "detail": "off by 3 nats"}]}')
    (found,) = findings(damage, "PRB-003")
    assert "the probe 'good' fails: off by 3 nats" in found.message
    answering(monkeypatch, 1, "", "referee: no such thing\n")
    (found,) = findings(damage, "PRB-003")
    assert "ends with status 1: referee: no such thing" in found.message


def test_a_kernel_that_died_is_tried_once_more(damage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, 1, "RuntimeError: Kernel died before replying to kernel_info\n")
    assert len(findings(damage, "NB-010", needs=NOTEBOOK)) == 1
    assert len(asked) == 2


def test_notebooks_are_executed_when_nothing_else_is(damage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, 0)
    run(Submission(damage.project, "v1"), needs=NOTEBOOK, only={"NB-010", "TST-003", "PRB-003"})
    assert [("--nbval" in command) for command in asked] == [True]


# -- The process -------------------------------------------------------------------------------------------------------


def test_a_process_that_does_not_end_is_stopped_with_its_children(tmp_path: Path) -> None:
    child = f"import time; time.sleep(4); open({str(tmp_path / 'late')!r}, 'w')"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    status, _, err = code.execute([sys.executable, "-c", parent], tmp_path, 1)
    assert status == 124
    assert "stopped after 1 s" in err
    time.sleep(5)
    assert not (tmp_path / "late").exists()


def test_a_notebook_draws_where_its_kernel_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another backend no figure would be shown, and every notebook would differ."""
    monkeypatch.setenv("MPLBACKEND", "agg")
    program = "import os; print(os.environ.get('MPLBACKEND'), os.environ['PYTHONDONTWRITEBYTECODE'])"
    assert code.execute([sys.executable, "-c", program], tmp_path, 60)[1] == "None 1\n"


def test_output_without_end_is_bounded(tmp_path: Path) -> None:
    status, out, _ = code.execute([sys.executable, "-c", "print('x' * 20_000_000)"], tmp_path, 60)
    assert status == 0
    assert len(out) <= 4 * 1024 * 1024


def test_nothing_is_read_and_bytes_that_are_no_text_do_no_harm(tmp_path: Path) -> None:
    program = "import sys; sys.stdout.buffer.write(b'\\xff' + str(len(sys.stdin.read())).encode())"
    assert code.execute([sys.executable, "-c", program], tmp_path, 60) == (0, "\ufffd0", "")
    assert code.last_words("\n\n") == "nothing was said"
