"""Runs within a budget of time: what finishes is packed, what does not can be continued."""

import signal
import subprocess
import sys
import tarfile
import time

import pytest

from referee.project import find_root, paper_names
from referee.runs.timeboxed import TimeIsUp, _at_most, main, run


def names(archive):
    with tarfile.open(archive) as file:
        return set(file.getnames())


def test_runs_are_packed_so_that_they_unpack_into_the_repository_and_are_reused(there, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["toy/laptop/k1,k5", "toy/smoke", "--seconds", "600", "--out", str(out), "--device", "cpu"]) == 0
    folders = {f"runs/toy/{run}" for run in ("laptop/k1", "laptop/k5", "smoke/k1", "smoke/k5")}
    assert folders <= names(out / "finished.tar")
    assert {f"{folder}/record.json" for folder in folders} <= names(out / "finished.tar")
    assert not (out / "unfinished.tar").exists()

    with tarfile.open(out / "finished.tar") as file:
        file.extractall(there / "elsewhere", filter="data")
    (there / "runs").rename(there / "before")
    (there / "elsewhere" / "runs").rename(there / "runs")
    capsys.readouterr()
    assert run(there, ["toy/laptop/k1"], seconds=600, device="cpu") == {there / "runs/toy/laptop/k1": True}
    assert "as before" in capsys.readouterr().out


def test_a_failure_does_not_keep_the_next_run_from_beginning(there, tmp_path, capsys):
    paper = there / "projects/toy/toy.py"
    paper.write_text(paper.read_text().replace('"k5": Config(k=5)}', '"k5": Config(k=5), "bad": Config(k=13)}', 1))
    status = main(["toy/smoke/bad,k1", "--seconds", "600", "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert status == 3
    assert "bad: DataError: toys: could not be reached." in capsys.readouterr().err
    assert "runs/toy/smoke/k1/record.json" in names(tmp_path / "out/finished.tar")
    assert "runs/toy/smoke/bad/config.json" in names(tmp_path / "out/unfinished.tar")


def test_when_the_time_is_up_nothing_new_begins(there, tmp_path, capsys):
    paper = there / "projects/toy/toy.py"
    waiting = "    run.steps = 3\n    import time\n    time.sleep(60)\n"
    paper.write_text(paper.read_text().replace("    run.steps = 3\n", waiting))
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)
    start = time.monotonic()
    status = main(["toy/smoke", "--seconds", "2", "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert time.monotonic() - start < 30  # not a timing: it did not sleep to the end
    said = capsys.readouterr()
    assert status == 3
    assert "k1: TimeIsUp" in said.err
    assert "k5: not begun, the time is up" in said.out
    assert {"runs/toy/smoke/k1/config.json"} <= names(tmp_path / "out/unfinished.tar")
    assert not (tmp_path / "out/finished.tar").exists()
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGALRM)) == before


def test_no_alarm_is_left_behind():
    with _at_most(0.2):
        pass
    time.sleep(0.4)  # an alarm of nobody's would end the process
    with pytest.raises(TimeIsUp), _at_most(0.1):
        time.sleep(5)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("toy", "give paper/preset"),
        ("tyo/smoke", "unknown paper 'tyo'. Did you mean 'toy'?"),
        ("toy/smok", "unknown preset 'smok'"),
        ("toy/smoke/k2", "has no run 'k2'"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_run(there, tmp_path, capsys, wanted, said):
    assert main(["toy/smoke", wanted, "--seconds", "600", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert said in capsys.readouterr().err
    assert not (there / "runs").exists()


def test_it_needs_nothing_that_only_the_referee_needs():
    """A lent machine has torch and little else."""
    absent = "pydantic", "tyro", "yaml", "rich", "jinja2", "scipy", "sklearn", "nbformat", "IPython"
    code = f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
    papers = [f"projects.{paper}.{paper}" for paper in paper_names(find_root())]
    code += f"import referee.runs.timeboxed, {', '.join(papers)}\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
