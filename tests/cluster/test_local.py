"""Jobs of this machine: the same calls without a scheduler, and what runs cost, by the command line."""

import json
import os
import re
import signal
from pathlib import Path

from referee.runs.locks import is_locked, lock_file
from tests.cluster.conftest import bits, wait_for


def states(referee):
    return [run["state"] for run in json.loads(referee("runs", "--format", "json").stdout)["calls"][0]["runs"]]


def test_a_failed_run_hides_no_other_and_leaves_no_half_record(repository, referee):
    done = referee("run", "toy", "--preset", "smoke", "--on", "local", "--cpus", "1", "--array", "3")
    assert done.returncode == 1, done.stderr
    assert "2 done, 1 failed" in done.stdout
    assert "toy smoke bad: failed, toys: could not be reached." in done.stdout
    assert re.search(r"log: runs/\.calls/\S+\.out", done.stdout)
    assert {path.parent.name for path in repository.glob("runs/toy/smoke/*/record.json")} == {"a", "c"}
    (repository / "projects/toy/toy.py").write_text(
        (repository / "projects/toy/toy.py").read_text().replace('raise DataError("toys', 'pass  # ("toys')
    )
    known = referee("cost", "toy", "--preset", "smoke", "--no-trial", "--seeds", "0,5", "--format", "json")
    costs = {(run["run"], run["seed"]): run for run in json.loads(known.stdout)["runs"]}
    assert costs["a", 0]["seconds"] is not None
    assert costs["a", 5]["source"] == costs["a", 0]["source"]  # another seed takes as long
    assert "its record, made here, on" in costs["a", 0]["source"]
    assert costs["a", 0]["memory_mb"] > 50  # as the job noted
    assert costs["bad", 0]["seconds"] is None


def test_jobs_of_this_machine_save_come_back_and_can_be_cancelled(repository, referee, tmp_path):
    (repository / "hold").touch()
    asked = referee("run", "toy", "--preset", "smoke", "--only", "a,c", "--on", "local", "--array", "1", "--detach")
    assert asked.returncode == 0, asked.stderr
    folder = repository / "runs/toy/smoke/a"
    wait_for((folder / "half").exists)
    assert states(referee) == ["running", "queued"]
    refused = referee("run", "toy", "--preset", "smoke", "--only", "a", "--quiet")
    assert refused.returncode == 1
    assert "works in" in refused.stderr  # one process at a time, queued or not
    holder = json.loads(lock_file(folder).read_text())
    os.kill(holder["pid"], signal.SIGUSR1)
    log = next(repository.glob("runs/.calls/*/logs/*.out"))
    wait_for(lambda: "Requeued job" in log.read_text())
    assert "Stopped by SIGUSR1 at step 21 of 50" in log.read_text()
    wait_for(lambda: states(referee) == ["done", "running"])  # c waits half way
    wait_for((repository / "runs/toy/smoke/c/half").exists)
    assert referee("runs", "cancel").returncode == 0
    wait_for(lambda: states(referee) == ["done", "cancelled"])
    (repository / "hold").unlink()
    again = referee("run", "toy", "--preset", "smoke", "--only", "a,c", "--on", "local", "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "reused, same settings and code: toy smoke a" in again.stdout
    (repository / "runs").rename(tmp_path / "queued")
    assert referee("run", "toy", "--preset", "smoke", "--only", "a,c", "--jobs", "1", "--quiet").returncode == 0
    for run in ("a", "c"):
        assert bits(tmp_path / "queued/toy/smoke" / run) == bits(repository / "runs/toy/smoke" / run)


def test_what_nobody_knows_is_tried(repository, referee):
    long = ("--only", "a", "--steps", "100000000")
    done = referee("cost", "toy", "--preset", "smoke", *long, "--seconds", "2", "--format", "json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["estimate"]
    assert run["seconds"] > 100
    assert run["memory_mb"] > 50
    assert re.match(r"estimate: 2 s tried on .+, 20\d\d-\d\d-\d\d; evaluation is not included", run["source"])
    assert not run["evaluated"]
    assert not (repository / "runs/toy").exists()
    again = referee("cost", "toy", "--preset", "smoke", *long)
    assert "trying" not in again.stderr  # it is kept, and said of every seed
    assert re.search(r"1 of 1 run known: .+, one after the other, evaluation not included", again.stdout)
    told = referee("cost", "toy", "--preset", "smoke", *long, "--seeds", "5", "--no-trial", "--format", "json")
    assert json.loads(told.stdout)["runs"][0]["seconds"] == run["seconds"]


def test_a_trial_that_fails_says_why(repository, referee):
    done = referee("cost", "toy", "--preset", "smoke", "--only", "bad", "--seconds", "2")
    assert done.returncode == 0, done.stderr
    assert "unknown: a trial failed: toys: could not be reached." in done.stdout


def test_jobs_whose_dispatcher_was_killed_are_seen_and_can_be_cancelled(repository, referee):
    (repository / "hold").touch()
    asked = ("run", "toy", "--preset", "smoke", "--only", "a,c", "--on", "local", "--array", "1")
    assert referee(*asked, "--detach").returncode == 0
    folder = repository / "runs/toy/smoke/a"
    wait_for((folder / "half").exists)
    (call,) = repository.glob("runs/.calls/*")
    dispatchers = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.read_bytes().split(b"\0")[1:4] == [b"-m", b"referee.runs.scheduling", str(call).encode()]
    ]
    os.kill(*dispatchers, signal.SIGKILL)
    wait_for(lambda: not is_locked(call / "dispatcher"))
    assert states(referee) == ["running", "failed"]  # c never began
    again = referee(*asked, "--resume", "--only", "a")
    assert "queued or running already: toy smoke a" in again.stdout
    cancelled = referee("runs", "cancel")
    assert cancelled.returncode == 0
    assert "1 run cancelled; what had begun saves and stops" in cancelled.stdout
    wait_for(lambda: states(referee) == ["cancelled", "cancelled"])
    assert "Stopped by SIGTERM at step 21 of 50" in next(call.glob("logs/*.out")).read_text()
    assert (folder / "checkpoint.pt").exists()
