"""What became of queued runs is judged by what is on the disk, then by the queue; locks; logs."""

import dataclasses
import errno
import json
import multiprocessing
import os
import subprocess
import sys
import time

import pytest

from common.records import Record, Score
from referee.cli import main
from referee.project import UsageError
from referee.runs import calls
from referee.runs.calls import Call, Entry, Resources, doing, find_call, last_lines, span, states
from referee.runs.locks import Occupied, alone_in, is_occupied, lock_file

CONFIG = {"k": 1, "seed": 0}


def entry(run, **changes):
    fields = {
        "project": "toy",
        "preset": "laptop",
        "run": run,
        "seed": 0,
        "own": True,
        "directory": f"runs/toy/laptop/{run}",
        "config": CONFIG,
        "code_digest": "c" * 64,
        "reused": False,
    }
    return Entry(**{**fields, **changes})


def finish(root, run, **changes):
    fields = {
        "project": "toy",
        "preset": "laptop",
        "run": run,
        "config": CONFIG,
        "scores": [Score("nll", 80.0, 0.5, 8, "nats", "bound", "test", "raw", "toys")],
        "seed": 0,
        "steps": 3,
        "code_digest": "c" * 64,
        "git_sha": "",
        "data_sha256": {},
        "environment": {},
        "hardware": {"cpu": "a processor", "threads": 1},
        "wall_s": 200.0,
        "finished": "2027-01-08T10:15:00+00:00",
    }
    Record(**{**fields, **changes}).save(root / "runs/toy/laptop" / run)


@pytest.fixture
def call(root, monkeypatch):
    """A call of five runs on SLURM; the last was there already."""
    monkeypatch.chdir(root)
    folder = root / "runs/.calls/20270108-101500-3fa2"
    entries = [entry(name) for name in "abcd"] + [entry("old", reused=True)]
    call = Call(
        folder=folder,
        root=root,
        command=["referee", "run", "toy", "--preset", "laptop", "--on", "slurm"],
        overrides=[],
        out="runs",
        device="cpu",
        on="slurm",
        at_a_time=4,
        resources=Resources(),
        entries=entries,
    )
    call.logs.mkdir(parents=True)
    call.save()
    call.note_jobs({i: f"7_{i}" for i in range(4)})
    return call


def log(call, index, text):
    path = call.logs / f"7_{index}_0_log.out"
    path.write_text(text)
    return path


def words(call, held):
    return [state.word for state in states(call, held)]


# -- States ------------------------------------------------------------------------------------------------------------


def test_a_call_is_read_as_it_was_written(call):
    assert Call.load(call.folder, call.root) == call
    assert find_call(call.root, None) == find_call(call.root, "3fa2") == find_call(call.root, "20270108") == call
    with pytest.raises(UsageError, match="there is no such call"):
        find_call(call.root, "ffff")
    with pytest.raises(UsageError, match="nothing was queued"):
        find_call(call.root / "projects", None)


def test_a_record_of_the_same_settings_and_code_is_done_whatever_the_queue_says(call):
    for name in ("a", "b", "old"):
        finish(call.root, name)
    finish(call.root, "c", code_digest="d" * 64)  # of other code
    finish(call.root, "d", config={**CONFIG, "k": 2})  # of other settings
    held = {call.job_name: {0: "RUNNING", 2: "RUNNING", 3: "PENDING Priority"}}
    found = states(call, held)
    assert [state.word for state in found] == ["done", "done", "running", "queued", "reused"]
    assert found[0].detail == "3 min"
    assert found[3].detail == "Priority"  # why it waits


def test_places_in_the_array_count_what_was_queued_alone(call):
    mixed = dataclasses.replace(call, entries=[call.entries[4], *call.entries[:4]])
    finish(call.root, "old")
    log(call, 0, "referee: a.\n")
    log(call, 1, "referee: b.\n")
    found = states(mixed, {call.job_name: {2: "RUNNING", 3: "PENDING"}})
    assert [state.word for state in found] == ["reused", "failed", "failed", "running", "queued"]
    assert [state.detail for state in found[1:3]] == ["a.", "b."]


def test_half_a_record_is_none(call):
    (call.root / "runs/toy/laptop/a").mkdir(parents=True)
    (call.root / "runs/toy/laptop/a/record.json").write_text('{"project": "toy"')
    assert words(call, {})[0] == "failed"


def test_what_the_queue_does_not_hold_has_failed_and_says_its_last_lines(call):
    log(
        call, 0, "submitit INFO (x) - Starting\nreferee: toys: could not be reached.\nsrun: error: vm: task 0: Exited\n"
    )
    log(call, 1, "Traceback (most recent call last):\n  a\nValueError: wrong\n")
    found = states(call, {call.job_name: {2: "RUNNING", 3: "PENDING"}})
    assert [state.word for state in found] == ["failed", "failed", "running", "queued", "failed"]
    assert found[0].detail == "toys: could not be reached."
    assert found[1].last == ["Traceback (most recent call last):", "  a", "ValueError: wrong"]
    assert "is gone or outdated" in found[4].detail  # the one that was there when this was called


def test_of_several_processes_the_one_that_ended_first_says_why(call):
    lost = "referee: process 1 of 2 ended before the run did: killed, out of memory, or for what it said. Saved.\n"
    for index in (0, 1):
        log(call, index, lost)
    other = call.logs / "7_0_1_log.out"
    other.write_text("submitit INFO (x) - Starting\nreferee: toys: could not be reached.\n")
    (call.logs / "7_1_1_log.out").write_text("submitit INFO (x) - Starting\n")  # killed
    found = states(call, {})
    assert (found[0].detail, found[0].log) == ("toys: could not be reached.", other)
    assert found[1].detail.startswith("process 1 of 2 ended")
    assert found[1].log == call.log(1)


def test_another_calls_jobs_are_not_ours(call):
    assert words(call, {"referee-20270108-101500-ffff": {0: "RUNNING"}})[0] == "failed"


def test_where_the_queue_does_not_answer_locks_and_logs_do(call):
    old = log(call, 1, "reading\n")
    os.utime(old, (time.time() - 3600,) * 2)
    log(call, 2, " 41%|####      | 410/1000 [00:10<00:14, 41.5 examples/s, loss=1]")
    with alone_in(call.directory(call.entries[0])):
        found = states(call, None)
    assert [state.word for state in found][:4] == ["running", "unknown", "running", "unknown"]
    assert found[2].detail == "41%, 41.5 examples/s, 00:14 left"
    assert "does not answer" in found[1].detail


def test_what_was_cancelled_is_not_called_failed(call):
    (call.folder / "cancelled").touch()
    finish(call.root, "a")
    assert words(call, {})[:4] == ["done", "cancelled", "cancelled", "cancelled"]


def test_what_the_schedulers_own_command_cancelled_is_not_called_failed(call, monkeypatch, capsys):
    begins = "submitit INFO (x) - Starting with JobEnvironment(job_id=7_0)\n"
    log(call, 0, f"{begins}referee: Stopped by SIGTERM.\nreferee: it is left to the scheduler, which says: CANCELLED\n")
    log(call, 1, f"{begins}slurmstepd-vm: error: *** STEP 7.0 ON vm CANCELLED AT 2027-01-08T10:20:00 ***\n")
    again = "slurmstepd-vm: error: *** JOB 7 ON vm CANCELLED AT 2027-01-08T10:20:00 DUE TO JOB REQUEUE ***\n"
    log(call, 2, f"{begins}{again}{begins}referee: toys: could not be reached.\n")
    finish(call.root, "old")
    held = {call.job_name: {3: "CANCELLED"}}  # before it began; the queue remembers it for a while
    found = states(call, held)
    assert [state.word for state in found] == ["cancelled", "cancelled", "failed", "cancelled", "reused"]
    assert [state.detail for state in found[:4]] == [
        "by the scheduler; what it had done is saved",
        "by the scheduler; what it had done is saved",
        "toys: could not be reached.",
        "by the scheduler",
    ]
    finish(call.root, "c")
    monkeypatch.setattr(calls, "queue", lambda: held)
    assert main(["runs", "collect"]) == 1  # nobody asked for it here
    said = capsys.readouterr().out
    assert "– toy laptop a: cancelled, by the scheduler; what it had done is saved" in said
    assert "What did not finish is queued again by: referee run toy --preset laptop --on slurm --resume" in said
    log(call, 0, f"{begins}referee: it is left to the scheduler, which says: CANCELLED\n{begins}")  # and came back
    assert words(call, {call.job_name: {0: "RUNNING"}})[0] == "running"
    assert words(call, {})[0] == "failed"


def test_the_queue_is_read_by_name_and_place(monkeypatch, tmp_path):
    squeue = tmp_path / "squeue"
    name = "referee-20270108-101500-3fa2"
    rows = [
        f"7_0|RUNNING|{name}|None",
        f"7_12|PENDING|{name}|Resources",
        f"7_[13-14%1]|PENDING|{name}|Resources",
        f"7_2|CANCELLED|{name}|None",
        f"7_3|COMPLETED|{name}|None",
        f"7_4|TIMEOUT|{name}|TimeLimit",
        "8|PENDING|referee-x|None",
        "9|RUNNING|else|None",
    ]
    (tmp_path / "rows").write_text("\n".join(rows) + "\n")
    squeue.write_text(f"#!/bin/sh\ncat {tmp_path}/rows\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert calls.queue() == {
        name: {0: "RUNNING", 12: "PENDING Resources", 2: "CANCELLED"},
        "referee-x": {0: "PENDING"},
    }
    squeue.write_text("#!/bin/sh\nexit 1\n")
    assert calls.queue() is None


# -- The command -------------------------------------------------------------------------------------------------------


def test_collecting_says_what_is_done_and_what_is_not_as_often_as_one_likes(call, monkeypatch, capsys):
    for name in ("a", "old"):
        finish(call.root, name)
    log(call, 1, "referee: no.\n")
    held = {call.job_name: {2: "RUNNING", 3: "PENDING"}}
    monkeypatch.setattr(calls, "queue", lambda: held)
    before = {path: path.read_bytes() for path in call.root.rglob("*") if path.is_file()}
    for _ in range(2):
        assert main(["runs", "collect"]) == 1
        said = capsys.readouterr().out
        assert "1 queued, 1 running, 1 done, 1 reused, 1 failed" in said
        assert "80.00" in said  # scores
        assert "toy laptop b: failed, no." in said
        assert "referee run toy --preset laptop --on slurm --resume" in said
    assert {path: path.read_bytes() for path in call.root.rglob("*") if path.is_file()} == before
    held.clear()
    finish(call.root, "b")
    finish(call.root, "c")
    finish(call.root, "d")
    assert main(["runs", "collect", "3fa2"]) == 0
    assert "4 done, 1 reused" in capsys.readouterr().out


def test_calls_are_listed_for_people_and_programs(call, monkeypatch, capsys):
    monkeypatch.setattr(calls, "queue", lambda: {call.job_name: {0: "PENDING Priority"}})
    assert main(["runs"]) == 0
    assert "1 queued, 4 failed" in capsys.readouterr().out
    assert main(["runs", "--format", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)["calls"]
    assert listed[0]["call"] == call.name
    assert [(run["run"], run["state"], run["job"]) for run in listed[0]["runs"]][::4] == [
        ("a", "queued", "7_0"),
        ("old", "failed", None),
    ]
    assert main(["runs", "collect", "nothing"]) == 2
    assert "'nothing': there is no such call" in capsys.readouterr().err


def test_a_call_that_cannot_be_read_does_not_hide_the_others(call, monkeypatch, capsys):
    monkeypatch.setattr(calls, "queue", dict)
    other = call.folder.with_name("20270109-101500-aaaa")
    other.mkdir()
    (other / "call.json").write_text("{")
    assert main(["runs", "list"]) == 0
    said = capsys.readouterr()
    assert call.name in said.out
    assert "20270109-101500-aaaa/call.json: no call that this version can read" in said.err


def test_watching_prints_a_line_for_each_change_and_ends(call, monkeypatch, capsys):
    looks = iter([{call.job_name: {0: "PENDING", 1: "RUNNING"}}, {call.job_name: {0: "RUNNING"}}, {}])
    for name in ("c", "d", "old"):
        finish(call.root, name)

    def queue():
        held = next(looks, {})
        if not held:
            finish(call.root, "a")
            finish(call.root, "b")
        return held

    monkeypatch.setattr(calls, "queue", queue)
    monkeypatch.setattr(calls.time, "sleep", lambda seconds: None)
    log(call, 1, "")
    assert main(["runs", "watch"]) == 0
    said = capsys.readouterr().out
    assert "running   toy laptop b" in said
    assert "done      toy laptop a  3 min" in said
    assert "4 done, 1 reused" in said


def test_a_record_that_a_shared_disk_shows_late_is_waited_for(call, monkeypatch, capsys):
    monkeypatch.setattr(calls, "queue", dict)
    for name in ("a", "b", "c", "old"):
        finish(call.root, name)
    monkeypatch.setattr(calls.time, "sleep", lambda seconds: finish(call.root, "d"))
    assert main(["runs", "watch"]) == 0
    assert "4 done, 1 reused" in capsys.readouterr().out


def test_ctrl_c_leaves_the_jobs_and_says_how_to_go_on(call, monkeypatch, capsys):
    monkeypatch.setattr(calls, "queue", lambda: {call.job_name: {0: "RUNNING"}})

    def stop(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(calls.time, "sleep", stop)
    assert main(["runs", "watch"]) == 130
    said = capsys.readouterr().err
    assert f"referee runs watch {call.name}" in said
    assert f"referee runs cancel {call.name}" in said
    assert not call.cancelled


def test_looking_needs_neither_torch_nor_the_scheduler(call):
    look = "import sys; from referee.cli import main; main(['runs', 'collect']); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", look], cwd=call.root, capture_output=True, text=True, check=True)
    assert "5 failed" in done.stdout or "4 unknown" in done.stdout  # where SLURM is, or is not
    loaded = done.stdout.splitlines()[-1]
    assert "'referee.runs.calls'" in loaded
    assert not {"'torch'", "'submitit'", "'pydantic'"} & set(loaded.strip("[]").split(", "))


# -- Logs --------------------------------------------------------------------------------------------------------------


def test_how_far_a_job_is_comes_from_its_last_bar(call):
    bar = "  1%|1   | 10/1000 [00:01<?, ? examples/s]\r 12%|##  | 120/1000 [00:10<01:14, 11.9 examples/s, loss=0.5]"
    assert doing(log(call, 0, bar)) == "12%, 11.9 examples/s, 01:14 left"
    assert doing(log(call, 0, "reading\n")) == "started"
    assert (
        doing(log(call, 0, bar + "\n100%|##########| 1000/1000 [01:30<00:00, 11.1 examples/s]\n"))
        == "trained; evaluating"
    )
    assert doing(None) == "starting"
    assert last_lines(log(call, 0, "x" * 100_000 + "\n" + bar + "\nreferee: it broke.\n"))[-1] == "referee: it broke."


@pytest.mark.parametrize(
    ("seconds", "text"), [(42, "42 s"), (720, "12 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h"), (7200, "2 h")]
)
def test_spans(seconds, text):
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        (Resources(), "2 cores, at most 60 min at a time"),
        (Resources(cpus=1, minutes=None), "1 core"),
        (
            Resources(gpus=9, cpus=4, memory_gb=16, minutes=480, processes=9),
            "9 GPUs, 4 cores for each of 9 processes, 16 GB, at most 8 h at a time",
        ),
        (Resources(cpus=1, processes=2), "1 core for each of 2 processes, at most 60 min at a time"),
    ],
)
def test_resources_in_words(resources, text):
    assert str(resources) == text


# -- Locks -------------------------------------------------------------------------------------------------------------


def _hold(folder, ready):
    with alone_in(folder, "job 7_1"):
        ready.touch()
        time.sleep(120)


def test_two_processes_never_work_in_one_run_folder(tmp_path):
    folder = tmp_path / "runs/toy/laptop/k1"
    ready = tmp_path / "ready"
    other = multiprocessing.get_context("spawn").Process(target=_hold, args=(folder, ready))
    other.start()
    try:
        while not ready.exists():
            assert other.is_alive()
            time.sleep(0.02)
        assert is_occupied(folder)
        with pytest.raises(Occupied, match=rf"job 7_1, process {other.pid} on .*, since .* works in .*k1 already"):
            alone_in(folder).__enter__()
        with alone_in(folder / "seed-3"):  # another seed is another run
            pass
        other.kill()  # and leaves nothing behind
        other.join()
        with alone_in(folder):
            assert is_occupied(folder)
    finally:
        other.kill()
        other.join()
    assert not is_occupied(folder)


def test_a_lock_outlives_the_folder_that_it_stands_for(tmp_path):
    folder = tmp_path / "runs/toy/laptop/k1"
    folder.mkdir(parents=True)
    with alone_in(folder):
        folder.rename(folder.with_name(".k1.outdated"))
        folder.mkdir()
        with pytest.raises(Occupied):
            alone_in(folder).__enter__()
    assert lock_file(folder) != lock_file(folder / "seed-1") != lock_file(folder / "seed-11")


def test_a_disk_without_locks_ends_no_run(tmp_path, monkeypatch):
    def flock(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    folder = tmp_path / "runs/toy/laptop/k1"
    with alone_in(folder), alone_in(folder):
        assert not is_occupied(folder)
