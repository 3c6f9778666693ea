"""A real SLURM: arrays, a planted failure, jobs that make room and come back, a node that dies, cancelling."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import slurm, toys
from tests.cluster.conftest import ROOT, bits, call, wait_for

pytestmark = pytest.mark.slurm
GOOD = [f"run{i}" for i in range(8) if i != 3]


@pytest.fixture(scope="module")
def at_home(tmp_path_factory):
    """The same runs, carried out without a scheduler."""
    repository = toys.make(tmp_path_factory.mktemp("home") / "repository")
    done = call(repository, "run", "toy", "--preset", "laptop", "--only", ",".join(GOOD), "--jobs", "1", "--quiet")
    assert done.returncode == 0, done.stderr
    return repository / "runs/toy/laptop"


@pytest.fixture
def held(repository):
    """Runs wait half way through their training, until this file is gone."""
    (repository / "hold").touch()
    yield repository / "hold"
    (repository / "hold").unlink(missing_ok=True)


def record(folder):
    """What of a record does not depend on when and on what it was made."""
    content = json.loads((folder / "record.json").read_text())
    return {
        name: value for name, value in content.items() if name not in ("wall_s", "timings_s", "finished", "hardware")
    }


def runs(referee):
    done = referee("runs", "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["calls"][0]["runs"]


def job(referee, run):
    return next(each["job"] for each in runs(referee) if each["run"] == run)


def logs(repository, of=""):
    return "".join(path.read_text() for path in repository.glob(f"runs/.calls/*/logs/{of}*.out"))


def test_an_array_with_a_planted_failure_leaves_the_records_that_runs_at_home_leave(
    cluster, repository, referee, at_home
):
    done = referee("run", "toy", "--preset", "laptop", "--on", "slurm", "--array", "4")
    assert done.returncode == 1, done.stderr
    assert "7 done, 1 failed" in done.stdout
    assert "toy laptop run3: failed, toys: could not be reached." in done.stdout
    assert "referee run toy --preset laptop --on slurm --array 4 --resume" in done.stdout
    script = next(repository.glob("runs/.calls/*/logs/*_submission.sh")).read_text()
    assert "--array=0-7%4" in script
    assert "--cpus-per-task=1" in script  # as project.yaml says
    for run in GOOD:
        assert bits(repository / "runs/toy/laptop" / run) == bits(at_home / run)
        assert record(repository / "runs/toy/laptop" / run) == record(at_home / run)
    assert not (repository / "runs/toy/laptop/run3/record.json").exists()

    before = {path: path.stat().st_mtime_ns for path in repository.glob("runs/toy/laptop/*/record.json")}
    again = referee("run", "toy", "--preset", "laptop", "--on", "slurm", "--resume", "--detach")
    assert "1 run on slurm" in again.stdout
    wait_for(lambda: "failed" in {each["state"] for each in runs(referee)})
    for _ in range(2):  # as often as one likes
        collected = referee("runs", "collect")
        assert collected.returncode == 1
        assert "7 reused, 1 failed" in collected.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_jobs_that_are_asked_to_make_room_come_back_and_end_with_the_same_bits(
    cluster, repository, referee, held, at_home
):
    three = ["run0", "run1", "run2"]
    asked = referee("run", "toy", "--preset", "laptop", "--only", ",".join(three), "--on", "slurm", "--detach")
    assert asked.returncode == 0, asked.stderr
    folder = repository / "runs/toy/laptop"
    wait_for(lambda: all((folder / run / "half").exists() for run in three))
    subprocess.run(["scancel", "--signal=USR1", job(referee, "run0")], check=True)  # its time is nearly up
    subprocess.run(["scancel", "--signal=TERM", job(referee, "run1")], check=True)  # preempted, with time to go
    subprocess.run(["scontrol", "requeue", job(referee, "run2")], check=True)  # preempted, and queued by the scheduler
    wait_for(lambda: logs(repository).count("Stopped by SIG") == 3)
    held.unlink()
    watched = referee("runs", "watch")
    assert watched.returncode == 0, watched.stdout + watched.stderr + logs(repository)
    assert "3 done" in watched.stdout
    for run in three:
        assert bits(folder / run) == bits(at_home / run)
    said = logs(repository)
    assert said.count("Stopped by SIGUSR1 at step 21 of 50") == 1
    assert said.count("Stopped by SIGTERM at step 21 of 50") == 2
    assert said.count("Requeued job") == 2  # and the third by the scheduler itself
    assert said.count("Starting with JobEnvironment") == 6


def test_a_job_that_another_of_higher_priority_displaces_ends_with_the_same_bits(
    cluster, repository, referee, held, at_home
):
    referee("run", "toy", "--preset", "laptop", "--only", "run1", "--on", "slurm", "--detach")
    folder = repository / "runs/toy/laptop/run1"
    wait_for((folder / "half").exists)
    whole_node = ["--exclusive", "--partition=urgent", "--output=urgent", "--wrap", "echo here"]
    subprocess.run(["sbatch", *whole_node], cwd=repository, check=True)
    wait_for(lambda: (repository / "urgent").exists() and "here" in (repository / "urgent").read_text())
    held.unlink()
    watched = referee("runs", "watch")
    assert watched.returncode == 0, watched.stdout + logs(repository)
    assert bits(folder) == bits(at_home / "run1")
    said = logs(repository)
    assert "DUE TO PREEMPTION" in said
    assert "Stopped by SIGTERM at step 21 of 50" in said
    assert said.count("Starting with JobEnvironment") == 2
    assert "Requeued job" not in said  # the scheduler did it


def test_a_signal_during_evaluation_brings_the_job_back_to_what_was_trained(cluster, repository, referee, at_home):
    (repository / "hold-evaluation").touch()
    referee("run", "toy", "--preset", "laptop", "--only", "run5", "--on", "slurm", "--detach")
    folder = repository / "runs/toy/laptop/run5"
    wait_for((folder / "evaluating").exists)
    subprocess.run(["scancel", "--signal=USR1", job(referee, "run5")], check=True)
    wait_for(lambda: "Requeued job" in logs(repository))
    (repository / "hold-evaluation").unlink()
    watched = referee("runs", "watch")
    assert watched.returncode == 0, watched.stdout + logs(repository)
    assert bits(folder) == bits(at_home / "run5")
    assert "outside training" in logs(repository)


def test_a_node_that_dies_gives_its_jobs_back(cluster, repository, referee, held, at_home):
    referee("run", "toy", "--preset", "laptop", "--only", "run6", "--on", "slurm", "--detach")
    folder = repository / "runs/toy/laptop/run6"
    wait_for((folder / "half").exists)
    slurm.restart_node(cluster)
    held.unlink()
    watched = referee("runs", "watch")
    assert watched.returncode == 0, watched.stdout + logs(repository)
    assert bits(folder) == bits(at_home / "run6")
    assert logs(repository).count("Starting with JobEnvironment") == 2


@pytest.mark.parametrize("how", ["referee", "scancel"])
def test_what_is_cancelled_stays_away_until_it_is_asked_for_again(cluster, repository, referee, held, at_home, how):
    command = ("run", "toy", "--preset", "laptop", "--only", "run4,run7", "--on", "slurm", "--array", "1", "--detach")
    referee(*command)
    wait_for((repository / "runs/toy/laptop/run4/half").exists)
    twice = referee(*command)
    assert twice.returncode == 2
    assert "runs/toy/laptop/run4 is queued or running already" in twice.stderr
    assert [each["state"] for each in runs(referee)] == ["running", "queued"]
    if how == "referee":
        cancelled = referee("runs", "cancel")
        assert cancelled.returncode == 0, cancelled.stderr
    else:
        subprocess.run(["scancel", job(referee, "run4"), job(referee, "run7")], check=True)
    wait_for(lambda: [each["state"] for each in runs(referee)] == ["cancelled", "cancelled"])
    assert "Stopped by SIGTERM at step 21 of 50" in logs(repository)
    assert "Requeued" not in logs(repository)
    collected = referee("runs", "collect")
    assert collected.returncode == (0 if how == "referee" else 1)
    by = "what it had done is saved" if how == "referee" else "by the scheduler; what it had done is saved"
    assert f"toy laptop run4: cancelled, {by}" in collected.stdout
    assert "is queued again by: " in collected.stdout
    held.unlink()
    again = referee(*(word for word in command if word != "--detach"), "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    for run in ("run4", "run7"):
        assert bits(repository / "runs/toy/laptop" / run) == bits(at_home / run)


def test_gpus_are_asked_for_and_their_processes_train_one_run_together(cluster, repository, referee):
    common = ("run", "toy", "--preset", "smoke", "--only", "a", "--on", "slurm", "--device", "cpu")
    refused = referee(*common, "--gpus", "5", "--cpus", "1")  # there are four
    assert refused.returncode == 1
    assert "SLURM refused the jobs" in refused.stderr
    assert "Requested node configuration is not available" in refused.stderr
    assert not list(repository.glob("runs/.calls/*"))
    done = referee(*common, "--gpus", "2", "--cpus", "1")
    assert done.returncode == 0, done.stdout + done.stderr + logs(repository)
    assert "global_rank=1(2)" in logs(repository)
    # Two processes draw noise of their own, so a run of two is not a run of one.
    alone = toys.make(repository.parent / "alone")
    assert call(alone, "run", "toy", "--preset", "smoke", "--only", "a", "--quiet").returncode == 0
    assert bits(repository / "runs/toy/smoke/a") != bits(alone / "runs/toy/smoke/a")


@pytest.fixture(scope="module")
def two_at_home(tmp_path_factory):
    """Runs of two processes, by torchrun instead of a scheduler."""
    repository = toys.make(tmp_path_factory.mktemp("two") / "repository")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    asked = ["-m", "referee", "run", "toy", "--preset", "laptop", "--only", "run0,run1,run2,run4", "--device", "cpu"]
    subprocess.run([*command, *asked, "--quiet"], cwd=repository, env=environment, check=True, timeout=300)
    return repository / "runs/toy/laptop"


TWO = ("--gpus", "2", "--device", "cpu", "--on", "slurm")


def send(name, repository, number):
    """Send a signal to each process of a job. scancel would try for minutes while the job is being queued again."""
    with subprocess.Popen(["scancel", f"--signal={name}", number]) as asked:
        wait_for(lambda: "Stopped by" in logs(repository, number))
        asked.kill()


def process(number, rank):
    """One of the processes that carry out a job, by its rank."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"submitit.core._submit" not in (path / "cmdline").read_bytes().split(b"\0"):
                continue
            lines = (path / "environ").read_text(errors="replace").split("\0")
            said = dict(line.partition("=")[::2] for line in lines)
            here = f"{said.get('SLURM_ARRAY_JOB_ID')}_{said.get('SLURM_ARRAY_TASK_ID')}"
            if here == number and said.get("SLURM_PROCID") == str(rank) and "SLURM_STEP_ID" in said:
                return int(path.name)
    raise AssertionError(f"no process {rank} of job {number}")


def test_jobs_of_several_processes_make_room_together_and_end_with_the_same_bits(
    cluster, repository, referee, held, two_at_home
):
    four = ["run0", "run1", "run2", "run4"]
    asked = referee("run", "toy", "--preset", "laptop", "--only", ",".join(four), *TWO, "--cpus", "1", "--detach")
    assert asked.returncode == 0, asked.stderr
    folder = repository / "runs/toy/laptop"
    wait_for(lambda: all((folder / run / "half").exists() for run in four[:2]))  # there are four GPUs
    send("USR1", repository, job(referee, "run0"))  # its time is nearly up
    send("TERM", repository, job(referee, "run1"))  # preempted, with time to go
    wait_for(lambda: all((folder / run / "half").exists() for run in four[2:]))
    subprocess.run(["scontrol", "requeue", job(referee, "run2")], check=True)
    os.kill(process(job(referee, "run4"), 1), signal.SIGUSR1)  # only one of the processes hears it
    wait_for(lambda: "Stopped by SIGTERM" in logs(repository, job(referee, "run2")))
    held.unlink()
    watched = referee("runs", "watch")
    assert watched.returncode == 0, watched.stdout + watched.stderr + logs(repository)
    assert "4 done" in watched.stdout
    for run in four:
        assert bits(folder / run) == bits(two_at_home / run)
        said = logs(repository, job(referee, run))
        assert said.count("at step 21 of 50") == 2  # both processes, at one step
        assert said.count("Starting with JobEnvironment") == 4
        assert said.count("Requeued job") == (0 if run == "run2" else 1)  # by the first, or the scheduler


def test_a_process_that_waits_for_one_that_makes_room_comes_back_too(cluster, repository, referee, two_at_home):
    """The signal finds one process in training already, the other not yet: it ends, and the first loses it."""
    (repository / "hold-start").touch()
    asked = referee("run", "toy", "--preset", "laptop", "--only", "run0", *TWO, "--cpus", "1", "--detach")
    assert asked.returncode == 0, asked.stderr
    folder = repository / "runs/toy/laptop/run0"
    wait_for((folder / "starting").exists)
    wait_for((folder / "metrics.jsonl").exists)  # the first is in `fit`
    send("USR1", repository, job(referee, "run0"))
    (repository / "hold-start").unlink()
    watched = referee("runs", "watch")
    assert watched.returncode == 0, watched.stdout + watched.stderr + logs(repository)
    assert bits(folder) == bits(two_at_home / "run0")
    assert "Stopped by SIGUSR1, after another process" in logs(repository)
