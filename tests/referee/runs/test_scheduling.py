"""Runs are handed to a scheduler as one array and come back when asked to make room; what cannot be is refused."""

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from common.errors import ProcessError, UserError
from common.training.stop import stop_signals
from referee.cli import main
from referee.project import UsageError
from referee.runs import scheduling
from referee.runs.calls import Call, find_call, queue
from referee.runs.locks import alone_in
from referee.runs.scheduling import Job, carry_out, parse_minutes

RUN = ["run", "toy", "--preset", "laptop", "--on", "slurm", "--detach"]


@pytest.fixture
def cluster(there, tmp_path, monkeypatch):
    """Programs named as SLURM's: sbatch gives the number 7, squeue says what is in the file `queue`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    scripts = {
        "sbatch": "echo Submitted batch job 7",
        "squeue": f"cat {shlex.quote(str(folder / 'queue'))}",
        "srun": "exit 0",
        "scancel": f"echo $* >> {shlex.quote(str(folder / 'cancelled'))}",
        "scontrol": f"cat {shlex.quote(str(folder / 'state'))}",
    }
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(stat.S_IRWXU)
    (folder / "queue").write_text("")
    (folder / "state").write_text("JobId=7 JobState=RUNNING Reason=None")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    return folder


def script(root):
    """The last array that was queued: its options."""
    path = sorted(root.glob("runs/.calls/*/logs/*_submission.sh"), key=lambda path: path.stat().st_mtime)[-1]
    lines = [line.removeprefix("#SBATCH --") for line in path.read_text().splitlines() if line.startswith("#SBATCH")]
    return dict(line.partition("=")[::2] for line in lines)


def waits(cluster, root, *places):
    """The newest call's jobs of these places wait in the queue."""
    name = find_call(root, None).job_name
    (cluster / "queue").write_text("".join(f"7_{place}|PENDING|{name}|Resources\n" for place in places))


# -- Asking ------------------------------------------------------------------------------------------------------------


def test_the_runs_of_a_preset_are_one_array(there, cluster, capsys):
    assert main(RUN) == 0
    said = capsys.readouterr().out
    assert "3 runs on slurm, each with 2 cores, at most 60 min at a time" in said
    assert "cost unknown: k1, k5, k50; 'referee cost toy --preset laptop' measures it" in said
    options = script(there)
    assert options["array"] == "0-2%3"
    assert (options["time"], options["cpus-per-task"], options["ntasks-per-node"]) == ("60", "2", "1")
    assert options["signal"] == "USR1@90"
    assert options["chdir"] == str(there)
    assert "requeue" in options
    assert "gpus-per-node" not in options
    assert "mem" not in options
    call = find_call(there, None)
    assert call.jobs() == {0: "7_0", 1: "7_1", 2: "7_2"}
    assert [entry.run for entry in call.queued] == ["k1", "k5", "k50"]
    assert call.device == "cpu"  # without a GPU of its own a job takes none


def test_what_is_finished_is_not_queued_and_what_is_queued_is_not_queued_twice(there, cluster, capsys):
    assert main(["run", "toy", "--preset", "laptop", "--only", "k5", "--quiet"]) == 0
    assert main(RUN) == 0
    assert "reused, same settings and code: toy laptop k5" in capsys.readouterr().out
    assert script(there)["array"] == "0-1%2"
    waits(cluster, there, 0)
    assert queue() == {find_call(there, None).job_name: {0: "PENDING Resources"}}
    assert main(RUN) == 2
    assert "runs/toy/laptop/k1 is queued or running already" in capsys.readouterr().err
    assert main([*RUN, "--only", "k1", "--resume"]) == 0
    said = capsys.readouterr().out
    assert "queued or running already: toy laptop k1" in said
    assert "Nothing to queue" in said
    assert main([*RUN, "--resume"]) == 0  # k50 is in no queue and has no record
    said = capsys.readouterr().out
    assert "queued or running already: toy laptop k1" in said
    assert [entry.run for entry in find_call(there, None).queued] == ["k50"]
    assert main(["run", "toy", "--preset", "laptop", "--only", "k5", "--on", "slurm"]) == 0
    assert "Nothing to queue: " in capsys.readouterr().out


def test_two_calls_at_the_same_moment_queue_a_run_once(there, cluster):
    """Both have looked into the queue before either of them submits."""
    sbatch = f"sleep 0.5; echo Submitted batch job 7; {shlex.quote(sys.executable)} {cluster / 'note.py'}"
    (cluster / "sbatch").write_text(f"#!/bin/sh\n{sbatch}\n")
    note = f"""
from pathlib import Path
call = max(Path("runs/.calls").glob("*/call.json")).parent.name
Path({str(cluster / 'queue')!r}).write_text("".join(f"7_{{i}}|PENDING|referee-{{call}}|None\\n" for i in range(3)))
"""
    (cluster / "note.py").write_text(note)
    here = {**os.environ, "PYTHONPATH": str(Path(scheduling.__file__).parents[2])}
    command = [sys.executable, "-m", "referee", *RUN]
    both = [subprocess.Popen(command, cwd=there, env=here, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [each.communicate(timeout=120)[1] for each in both]
    assert sorted(each.returncode for each in both) == [0, 2], said
    assert "runs/toy/laptop/k1 is queued or running already" in "".join(said)
    assert len(list(there.glob("runs/.calls/*/jobs.json"))) == 1


def test_seeds_and_settings_go_to_folders_of_their_own(there, cluster):
    assert main([*RUN, "--only", "k1", "--seeds", "0-2"]) == 0
    entries = find_call(there, None).queued
    assert [entry.directory for entry in entries] == [f"runs/toy/laptop/k1{s}" for s in ("", "/seed-1", "/seed-2")]
    assert [entry.config["seed"] for entry in entries] == [0, 1, 2]
    assert main([*RUN, "--only", "k1", "--lr", "0.5"]) == 0
    call = find_call(there, None)
    assert call.queued[0].preset.startswith("laptop+")
    assert call.overrides == ["--lr", "0.5"]
    assert call.queued[0].config["lr"] == 0.5


def test_the_projects_needs_are_asked_for_and_flags_win(there, cluster):
    path = there / "projects/toy/project.yaml"
    content = yaml.safe_load(path.read_text())
    needs = {"gpus": 2, "cpus": 4, "memory_gb": 1.5, "minutes": 480}
    content["compute"] = {"hardware": "two GPUs", "presets": {"laptop": needs}}
    path.write_text(yaml.safe_dump(content))
    assert main(RUN) == 0
    options = script(there)
    assert (options["gpus-per-node"], options["ntasks-per-node"], options["cpus-per-task"]) == ("2", "2", "4")
    assert (options["mem"], options["time"]) == ("1536M", "480")
    assert find_call(there, None).device == "cuda"
    flags = [
        "--gpus",
        "1",
        "--cpus",
        "3",
        "--memory",
        "2",
        "--time",
        "1-0:30:00",
        "--array",
        "2",
        "--partition",
        "long",
    ]
    assert main([*RUN, *flags]) == 0
    options = script(there)
    assert (options["gpus-per-node"], options["ntasks-per-node"], options["cpus-per-task"]) == ("1", "1", "3")
    assert (options["mem"], options["time"], options["partition"]) == ("2048M", "1470", "long")
    assert options["array"] == "0-2%2"
    assert main([*RUN, "--processes", "3"]) == 0  # on processors: the file's GPUs are not meant
    options = script(there)
    assert options["ntasks-per-node"] == "3"
    assert "gpus-per-node" not in options


def test_what_the_scheduler_refuses_is_said_in_its_words_and_leaves_nothing(there, cluster, capsys):
    refusal = "Requested node configuration is not available"
    (cluster / "sbatch").write_text(f"#!/bin/sh\necho 'sbatch: error: {refusal}' >&2\nexit 1\n")
    assert main([*RUN, "--gpus", "64"]) == 1
    said = capsys.readouterr().err
    assert said.count(refusal) == 1
    assert "64 GPUs" in said
    assert not list(there.glob("runs/.calls/*"))


def test_a_preset_that_the_paper_does_not_have_is_named_with_its_line(there, cluster, capsys):
    path = there / "projects/toy/project.yaml"
    lines = path.read_text().splitlines()
    needs = ["compute:", "  hardware: a GPU", "  presets:", "    laptop: {cpus: 3}", "    papre: {gpus: 1}"]
    path.write_text("\n".join([*lines, *needs]) + "\n")
    assert main(RUN) != 0
    assert (
        f"projects/toy/project.yaml:{len(lines) + 5}: PRJ-013: compute: the paper's module has no preset 'papre'. "
        "Did you mean 'paper'?"
    ) in capsys.readouterr().err
    assert not (there / "runs").exists()


def test_gpus_that_this_machine_does_not_have_are_refused(there, cluster, capsys, monkeypatch):
    monkeypatch.setattr(scheduling, "_gpus_here", lambda: 0)
    local = ["run", "toy", "--preset", "laptop", "--on", "local", "--detach"]
    assert main([*local, "--gpus", "1"]) == 2
    said = capsys.readouterr().err
    assert "1 GPU for each run, but this machine has none. --gpus 0" in said
    path = there / "projects/toy/project.yaml"
    content = yaml.safe_load(path.read_text())
    content["compute"] = {"hardware": "two GPUs", "presets": {"laptop": {"gpus": 2}}}
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setattr(scheduling, "_gpus_here", lambda: 1)
    assert main(local) == 2
    assert "2 GPUs for each run, as the project says for 'laptop', but this machine has 1." in capsys.readouterr().err
    assert not (there / "runs").exists()
    monkeypatch.setattr(scheduling, "_start_dispatcher", lambda call: None)
    assert main([*local, "--gpus", "0"]) == 0
    assert "3 runs on local, each with 2 cores\n" in capsys.readouterr().out  # and no word of a week
    monkeypatch.setattr(scheduling, "_gpus_here", lambda: 4)
    assert main([*local, "--only", "k1", "--time", "30"]) == 0
    said = capsys.readouterr().out
    assert "1 run on local, with 2 GPUs, 2 cores for each of 2 processes, at most 30 min at a time\n" in said
    assert find_call(there, None).at_a_time == 2


def test_runs_start_over_and_what_they_had_left_stays_until_they_have_finished(there, cluster, job, capsys):
    both = ["run", "toy", "--preset", "laptop", "--only", "k1", "--seeds", "0,3"]
    assert main([*both, "--quiet"]) == 0
    folder = there / "runs/toy/laptop"
    before = (folder / "k1/record.json").read_text()
    refusal = "Requested node configuration is not available"
    works = (cluster / "sbatch").read_text()
    (cluster / "sbatch").write_text(f"#!/bin/sh\necho 'sbatch: error: {refusal}' >&2\nexit 1\n")
    fresh = [*both, "--on", "slurm", "--detach", "--fresh"]
    assert main(fresh) == 1
    assert (folder / "k1/record.json").read_text() == before  # nothing has happened
    assert (folder / "k1/seed-3/record.json").exists()
    assert not (folder / ".before").exists()
    (cluster / "sbatch").write_text(works)
    capsys.readouterr()
    with alone_in(folder / "k1/seed-3"):
        assert main(fresh) == 1
    assert "works in" in capsys.readouterr().err
    assert (folder / "k1/record.json").read_text() == before
    assert main(fresh) == 0
    assert "kept in runs/toy/laptop/.before until their successors have finished: k1, k1 seed 3" in (
        capsys.readouterr().out
    )
    call = find_call(there, None)
    assert [entry.reused for entry in call.entries] == [False, False]
    assert not list(folder.glob("k1/**/record.json"))
    assert (folder / ".before/k1/record.json").read_text() == before
    Job(str(call.folder), str(there), 1)()
    assert (folder / "k1/seed-3/record.json").exists()
    assert [path.name for path in (folder / ".before").iterdir()] == ["k1"]
    Job(str(call.folder), str(there), 0)()
    assert not (folder / ".before").exists()


def test_without_slurm_it_is_said(there, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(RUN) == 2
    assert "SLURM is not here: sbatch and squeue and srun cannot be found." in capsys.readouterr().err
    assert not (there / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--publish"], "'referee run toy --preset laptop --publish' takes them as they are"),
        (["--jobs", "2"], "--array says how many at a time"),
        (["--array", "0"], "--array 0: at least one"),
        (["--gpus", "-1"], "--gpus -1: at least 0"),
        (["--cpus", "0"], "--cpus 0: at least 1"),
        (["--memory", "nan"], "--memory nan"),
        (["--processes", "2", "--gpus", "2"], "one process for each GPU"),
        (["--time", "tomorrow"], "--time tomorrow: no such time"),
        (["--time", "0:00:00"], "some time is needed"),
        (["--all"], "--all, and toy: give one of them"),
        (["--resume"], "none of these runs was ever begun"),
        (["--only", "k2"], "has no run 'k2'"),
        (["--k", "0"], "needs at least one sample"),
        (["--speed", "1"], "has no setting '--speed'"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_is_written(there, cluster, capsys, flags, message):
    assert main([*RUN, *flags]) == 2
    assert message in capsys.readouterr().err
    assert not (there / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "toy", "--preset", "laptop", "--gpus", "2"], "--gpus is for runs that are queued"),
        (["run", "toy", "toy", "--preset", "laptop"], "several papers at once are for --on"),
        (["run", "--all", "--preset", "laptop"], "several papers at once are for --on"),
        (["run", "--preset", "laptop", "--on", "slurm"], "which paper?"),
        (["run", "toy", "--on", "slurm"], "which preset?"),
        (
            ["run", "toy", "toi", "--preset", "laptop", "--on", "slurm", "--only", "k1"],
            "--only and settings are of one",
        ),
        (["run", "toi", "--preset", "laptop", "--on", "slurm"], "Did you mean 'toy'?"),
        (["run", "toy", "--preset", "laptop", "--on", "local", "--partition", "x"], "--partition is SLURM's"),
    ],
)
def test_flags_that_say_nothing_are_refused(there, cluster, capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_all_papers_that_have_the_preset(there, cluster, capsys):
    assert main(["run", "--all", "--preset", "paper", "--on", "slurm", "--detach"]) == 0
    assert [entry.name for entry in find_call(there, None).queued] == ["toy paper k50"]
    assert main(["run", "--all", "--preset", "workstation", "--on", "slurm"]) == 2
    assert "no paper has a preset 'workstation'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("90", 90),
        ("2:00:00", 120),
        ("90:00", 90),
        ("0:00:01", 1),
        ("1-12", 36 * 60),
        ("1-0:30:30", 1471),
        ("1-2:3", 1563),
    ],
)
def test_times_are_slurms(text, minutes):
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize("text", ["", "2h", "1:2:3:4", "-1", "1-", "1-2:3:4:5", "one"])
def test_other_times_are_none(text):
    with pytest.raises(UsageError, match="no such time"):
        parse_minutes(text)


def test_cancelling_takes_the_jobs_off_the_queue_by_name(there, cluster, capsys):
    assert main(RUN) == 0
    waits(cluster, there, 0, 1, 2)
    assert main(["runs", "cancel"]) == 0
    call = find_call(there, None)
    assert (cluster / "cancelled").read_text() == f"--name={call.job_name}\n"
    assert call.cancelled
    (cluster / "queue").write_text("")
    capsys.readouterr()
    assert main(["runs", "collect"]) == 0  # it was wanted so
    said = capsys.readouterr().out
    assert "3 cancelled" in said
    assert f"queued again by: referee {shlex.join(RUN)} --resume" in said
    assert main([*RUN, "--resume"]) == 0  # though none has begun
    assert find_call(there, None).name != call.name
    capsys.readouterr()
    assert main(["runs", "cancel", call.name]) == 0
    assert "nothing of it waits or runs" in capsys.readouterr().out


# -- In the job --------------------------------------------------------------------------------------------------------


@pytest.fixture
def job(there, cluster, monkeypatch):
    """The job of the first run, in a process that submitit has prepared; `asked` counts how often it asks to return."""
    assert main([*RUN, "--only", "k1"]) == 0
    call = find_call(there, None)
    for name, value in {
        "SUBMITIT_EXECUTOR": "slurm",
        "SUBMITIT_FOLDER": str(call.logs),
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "1",
        "SLURM_PROCID": "0",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }.items():
        monkeypatch.setenv(name, value)
    made = Job(str(call.folder), str(there), 0)
    made.asked = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: made.asked.append(number))
    yield made
    signal.signal(signal.SIGUSR1, before)


def stopped(monkeypatch, number=signal.SIGUSR1, saves=None):
    """Instead of a run: a signal arrives while nothing is trained."""

    def carry(call, entry, who, rank):
        if saves is not None:
            saves.write_text(str(time.time_ns()))
        os.kill(os.getpid(), number)
        time.sleep(60)

    monkeypatch.setattr(scheduling, "carry_out", carry)


def test_a_job_carries_its_run_to_the_record_and_says_what_it_needed(there, job):
    job()
    record = json.loads((there / "runs/toy/laptop/k1/record.json").read_text())
    assert record["run"] == "k1"
    assert json.loads((there / "runs/toy/laptop/k1/memory.json").read_text())["memory_mb"] > 50
    assert job.asked == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_job_that_is_asked_to_make_room_asks_to_come_back(job, monkeypatch, number):
    stopped(monkeypatch, number)
    job()
    assert job.asked == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGTERM) in (signal.SIG_DFL, signal.default_int_handler, signal.Handlers.SIG_DFL)
    again = job.checkpoint().function
    assert (again.folder, again.root, again.index, again.fruitless) == (job.folder, job.root, 0, 1)


def test_a_second_signal_does_not_disturb_what_the_first_began():
    cleaned_up = []

    def work():
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(60)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            cleaned_up.append(True)

    with scheduling._signals_stop(), pytest.raises(scheduling._Stop):
        work()
    assert cleaned_up


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_second_signal_does_not_disturb_training_that_saves(number):
    """SLURM sends SIGTERM twice."""
    came = []
    with scheduling._signals_stop(came):
        with stop_signals() as heard:
            for _ in range(3):
                os.kill(os.getpid(), number)
            assert heard == [signal.Signals(number).name]
        with pytest.raises(scheduling._Stop):  # nobody trains any more
            os.kill(os.getpid(), number)
    assert set(came) == {number}


def test_a_job_that_gets_nowhere_ends_after_some_times(there, job, monkeypatch, capsys):
    stopped(monkeypatch)
    for _ in range(4):
        job()
    with pytest.raises(SystemExit, match="1"):
        job()
    assert len(job.asked) == 4
    assert "stopped 5 times without having got any further" in capsys.readouterr().err

    folder = there / "runs/toy/laptop/k1"
    folder.mkdir(parents=True)
    stopped(monkeypatch, saves=folder / "checkpoint.pt")  # now it gets further, each time
    for _ in range(6):
        job()
    assert len(job.asked) == 10


def test_a_job_that_was_cancelled_while_it_started_does_not_begin(there, job, capsys):
    (find_call(there, None).folder / "cancelled").touch()  # its signal came before anybody heard it
    with pytest.raises(SystemExit, match="1"):
        job()
    assert job.asked == []
    assert "it was cancelled" in capsys.readouterr().err
    assert not (there / "runs/toy/laptop/k1").exists()


def test_a_job_that_nobody_wants_any_more_does_not_come_back(there, cluster, job, monkeypatch, capsys):
    stopped(monkeypatch)
    (cluster / "state").write_text("JobId=7 JobState=CANCELLED Reason=None")  # by the scheduler's own command
    with pytest.raises(SystemExit, match="1"):
        job()
    assert "which says: CANCELLED" in capsys.readouterr().err
    (cluster / "state").write_text("JobId=7 JobState=RUNNING Reason=None")
    (find_call(there, None).folder / "cancelled").touch()
    with pytest.raises(SystemExit, match="1"):
        job()
    assert job.asked == []


def test_where_the_scheduler_will_not_have_it_back_the_way_on_is_said(job, monkeypatch, capsys):
    stopped(monkeypatch)

    def refuse(number, frame):
        raise subprocess.CalledProcessError(1, ["scontrol", "requeue", "7"])

    signal.signal(signal.SIGUSR1, refuse)
    with pytest.raises(SystemExit, match="1"):
        job()
    assert "--on slurm --detach --only k1 --resume" in capsys.readouterr().err


def test_only_the_first_of_several_processes_asks(job, monkeypatch):
    stopped(monkeypatch)
    monkeypatch.setenv("SLURM_PROCID", "1")
    job()
    assert job.asked == []


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_was_asked_to_stop_and_finds_the_others_gone_comes_back(job, monkeypatch, rank):
    """The others may have heard the signal before training, where this one was in it already and waited for them."""

    def carry(call, entry, who, rank):
        with stop_signals():
            os.kill(os.getpid(), signal.SIGUSR1)
            raise ProcessError("process 1 of 2 ended before the run did")

    monkeypatch.setattr(scheduling, "carry_out", carry)
    monkeypatch.setenv("SLURM_PROCID", str(rank))
    job()
    assert job.asked == [signal.SIGUSR1] * (rank == 0)


def test_a_process_whose_others_died_does_not_come_back(job, monkeypatch, capsys):
    def carry(call, entry, who, rank):
        raise ProcessError("process 1 of 2 ended before the run did")

    monkeypatch.setattr(scheduling, "carry_out", carry)
    with pytest.raises(SystemExit, match="1"):
        job()
    assert job.asked == []
    assert capsys.readouterr().err == "referee: process 1 of 2 ended before the run did\n"


def test_a_users_mistake_ends_the_job_with_its_message(there, cluster, job, monkeypatch, capsys):
    def carry(call, entry, who, rank):
        raise UserError("toys: could not be reached.")

    monkeypatch.setattr(scheduling, "carry_out", carry)
    with pytest.raises(SystemExit, match="1"):
        job()
    said = capsys.readouterr().err
    assert said == "referee: toys: could not be reached.\n"
    assert not (there / "runs/toy/laptop/k1/record.json").exists()


def test_a_job_whose_code_or_settings_changed_runs_neither(there, job):
    call = find_call(there, None)
    paper = there / "projects/toy/toy.py"
    text = paper.read_text()
    paper.write_text(text.replace("80 + 10", "81 + 10"))
    with pytest.raises(UserError, match="the code has changed since this was queued"):
        carry_out(call, call.queued[0], "job 7", 0)
    paper.write_text(text.replace('"laptop": {"k1": Config()', '"laptop": {"k1": Config(lr=0.5)'))
    with pytest.raises(UserError, match="the preset's settings have changed"):
        carry_out(call, call.queued[0], "job 7", 0)
    paper.write_text(text)
    record, reused = carry_out(call, call.queued[0], "job 7", 0)
    assert (record.run, reused) == ("k1", False)
    assert carry_out(call, call.queued[0], "job 7", 0) == (record, True)


def test_what_is_outdated_goes_aside_without_the_other_seeds(there, job):
    call = find_call(there, None)
    first, _ = carry_out(call, call.queued[0], "job 7", 0)
    folder = there / "runs/toy/laptop/k1"
    (folder / "seed-3").mkdir()
    content = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**content, "code_digest": "0" * 64, "training_digest": ""}))
    record, reused = carry_out(call, call.queued[0], "job 7", 0)
    assert (record.code_digest, reused) == (first.code_digest, False)
    assert (folder / "seed-3").is_dir()
    assert json.loads((folder.with_name(".k1.outdated") / "record.json").read_text())["code_digest"] == "0" * 64


def test_on_this_machine_so_many_run_at_a_time_and_who_asks_to_come_back_does(there, cluster, monkeypatch):
    """submitit brings a local job back a few times only; after that it is handed over anew."""
    monkeypatch.setattr(scheduling, "_start_dispatcher", lambda call: None)
    assert main(["run", "toy", "--preset", "laptop", "--on", "local", "--array", "2", "--detach"]) == 0
    call = find_call(there, None)
    call.dispatcher.touch()
    given, at_a_time, alive = [], [], []

    class Executor:
        def __init__(self, folder, max_num_timeout):
            pass

        def update_parameters(self, **parameters):
            assert parameters["tasks_per_node"] == 1

        def submit(self, work):
            given.append((work.index, work.fruitless))
            self.work, self.job_id, self.looks = work, str(len(given)), 0
            alive.append(self)
            at_a_time.append(len(alive))
            return self

        def done(self):
            self.looks += 1
            if self.looks < 2:
                return False
            alive.remove(self)
            came_back = [index for index, _ in given].count(1) > 1
            last = "submitit INFO - Requeued job 2 (9 remaining timeouts)" if self.work.index == 1 else "k: 3 s"
            last = "k: 3 s" if came_back else last
            (call.logs / f"{self.job_id}_0_log.out").write_text(f"begins\n{last}\n")
            return True

        def submission(self):
            return SimpleNamespace(function=Job(self.work.folder, self.work.root, self.work.index, 3))

    monkeypatch.setattr(scheduling, "_submitit", lambda: SimpleNamespace(LocalExecutor=Executor))
    monkeypatch.setattr(scheduling.time, "sleep", lambda seconds: None)
    scheduling.dispatch(call)
    assert given == [(0, 0), (1, 0), (1, 3), (2, 0)]
    assert max(at_a_time) == 2
    assert json.loads((call.folder / "ended.json").read_text()) == [0, 1, 2]
    assert call.jobs() == {0: "1", 1: "3", 2: "4"}


def test_training_hears_the_signal_that_time_is_nearly_up():
    before = signal.getsignal(signal.SIGUSR1)
    with stop_signals() as heard:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard == ["SIGUSR1"]
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_call_names_the_command_that_continues_it(there, cluster):
    assert main([*RUN, "--only", "k1", "--lr", "0.5"]) == 0
    again = find_call(there, None).again()
    assert again == "referee run toy --preset laptop --on slurm --detach --only k1 --lr 0.5 --resume"
    assert isinstance(Call.load(find_call(there, None).folder, there), Call)
