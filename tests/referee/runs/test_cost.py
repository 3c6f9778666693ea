"""What runs take: read from records, counted up from bars, said before they are queued."""

import contextlib
import dataclasses
import json
import shutil
import types

import pytest

from common.records import Record
from referee.cli import main
from referee.runs import cost
from referee.runs.cost import Cost, counted_up, hardware, known, measuring, summary
from referee.runs.memory import kept, noting_memory
from referee.runs.planning import plan


def test_a_part_is_counted_up_to_the_whole():
    assert counted_up(" 25%|##   | 250/1000 [00:30<01:30, 8.3 examples/s, loss=1]") == 120
    bars = (
        "  1%|     | 10/1000 [30:10<49:47:00, 9.0 examples/s]\r  2%|     | 20/1000 [1:00:20<49:16:20, 9.0 examples/s]"
    )
    assert counted_up(bars) == 3620 / 0.02
    # Stages: what was full counts as it was, the last is counted up.
    stages = "100%|#####| 100/100 [00:10<00:00, 10 examples/s]\n 50%|##   | 20/40 [00:05<00:05, 4 examples/s]\n"
    assert counted_up(stages) == 20
    assert counted_up("reading\n  0%|     | 0/1000 [00:00<?, ? examples/s]") is None
    assert counted_up("") is None


def test_records_say_it_whatever_the_seed_and_name_their_hardware(project, there):
    tasks = plan(project, "laptop", only=["k1"], seeds=[0, 7])
    assert [cost.seconds for cost in known(there, tasks)] == [None, None]
    assert main(["run", "toy", "--preset", "laptop", "--only", "k1", "--seeds", "7", "--quiet"]) == 0
    found = known(there, tasks)
    assert found[0] == found[1]
    assert found[0].source.startswith("its record, made here, on ")
    assert found[0].source.endswith("thread") or found[0].source.endswith("threads")
    assert known(there, plan(project, "laptop", only=["k1"], overrides=["--lr", "0.5"]))[0].seconds is None  # others


def test_hardware_in_a_few_words():
    assert hardware({"cpu": "Intel(R) Xeon(R) CPU @ 2.20GHz", "cores": 2, "threads": 1}) == "Intel Xeon, 1 thread"
    assert hardware({"cpu": "x", "cores": 2, "gpu": "NVIDIA H200"}) == "NVIDIA H200"


@pytest.fixture
def tasks(project, there):
    return plan(project, "laptop")


def test_before_queueing_the_sum_is_said_and_what_is_not_known(tasks):
    source = "its record, published, on a GPU"
    costs = [Cost(600.0, 2000.0, None, source), Cost(), Cost(7200.0, None, None, source)]
    lines = summary(tasks, costs, minutes=60)
    assert lines[0] == (
        "cost: 2 of 3 runs: 2 h 10 min in all, the longest 2 h, up to 2.0 GB of memory (by published, on a GPU)"
    )
    assert lines[1].startswith("cost unknown: k5; 'referee cost toy --preset laptop' measures it")
    assert lines[2].startswith("warning: k50 takes longer than the 60 min that a job gets")
    long = summary(tasks, [Cost(7200.0, None, None, source)] * 3, minutes=60)
    assert long[1].startswith("warning: 3 runs, k1 among them, take longer than the 60 min")
    part = summary(tasks, [Cost(600.0, None, None, "x", True, False), *costs[1:]], minutes=600)
    assert "the longest 2 h, evaluation of 1 of them not included" in part[0]
    assert "1 run: 10 min in all" in summary(tasks[:1], costs[:1], minutes=60)[0]
    assert len(summary(tasks, [Cost(600.0, None, None, source)] * 3, minutes=60)) == 1


def test_the_command_that_measures_can_be_pasted_as_it_is(project, there, tasks):
    nobody = [Cost()] * 3
    assert measuring(tasks, [Cost(1.0)] * 3) == ""
    changed = ["--hidden", "3", "4", "--lr=0.5"]
    asked = plan(project, "laptop", only=["k1", "k50"], overrides=changed)
    command = measuring(asked, nobody[:2], overrides=changed, only=True)
    assert command == "referee cost toy --preset laptop --only k1,k50 --hidden 3 4 --lr=0.5"
    twice = [*tasks, dataclasses.replace(tasks[0], project="toys")]
    assert measuring(twice, [Cost(), Cost(1.0), Cost(1.0), Cost()]) == "referee cost toy toys --preset laptop"


def test_a_trial_is_kept_until_the_code_changes_with_the_hardware_it_was_made_on(project, there, monkeypatch):
    (task,) = plan(project, "laptop", only=["k1"])
    monkeypatch.setattr(cost, "_here", lambda device: "a laptop")
    fast, slow = Cost(60.0, 100, None, "on a GPU", True), Cost(600.0, 50, None, "on a laptop", True)
    cost._keep(there, task, fast, "a GPU", 20.0)
    assert known(there, [task]) == [fast]  # said before runs are queued, from wherever that is
    assert known(there, [task], elsewhere=False) == [Cost()]  # here it is tried
    cost._keep(there, task, slow, "a laptop", 20.0)
    assert known(there, [task]) == [slow]
    assert known(there, plan(project, "laptop", only=["k1"], seeds=[7])) == [slow]
    assert known(there, plan(project, "laptop", only=["k5"])) == [Cost()]
    assert known(there, [task], at_least=60.0) == [Cost()]  # a longer trial is asked for
    project.paper_file.write_text(project.paper_file.read_text().replace("10 / config.k", "11 / config.k"))
    assert known(there, [task]) == [Cost()]


def test_the_memory_of_any_run_is_known(project, there):
    tasks = plan(project, "smoke")
    assert main(["run", "toy", "--preset", "smoke", "--jobs", "1", "--quiet"]) == 0
    assert all(cost.memory_mb > 50 for cost in known(there, tasks))
    note = there / "runs/toy/smoke/k1/memory.json"
    note.write_text('{"memory_mb": 123456, "gpu_mb": 7}')
    assert main(["run", "toy", "--preset", "smoke", "--jobs", "1", "--quiet"]) == 0  # it is there: nothing is noted
    assert (known(there, tasks)[0].memory_mb, known(there, tasks)[0].gpu_mb) == (123456, 7)
    assert main(["run", "toy", "--preset", "smoke", "--jobs", "1", "--quiet", "--publish"]) == 0
    assert (project.results / "smoke/k1/memory.json").read_text() == note.read_text()
    shutil.rmtree(there / "runs")
    assert known(there, tasks)[0].memory_mb == 123456


def test_a_runs_memory_is_its_own_and_the_most_of_its_sessions(tmp_path):
    cpu = types.SimpleNamespace(type="cpu")

    def session(megabytes):
        with contextlib.suppress(ZeroDivisionError), noting_memory(tmp_path, cpu):
            held = bytearray(megabytes * 1_000_000)
            held[::4096] = b"x" * len(held[::4096])
            raise ZeroDivisionError

    session(400)
    most, _ = kept(tmp_path)
    session(1)
    assert kept(tmp_path) == (most, None)
    (tmp_path / "memory.json").unlink()
    session(1)
    assert kept(tmp_path)[0] < most - 300  # what an earlier run needed is not this one's
    (tmp_path / "memory.json").write_text("{")
    assert kept(tmp_path) is None


def test_of_weights_that_are_evaluated_again_the_memory_of_their_training_counts(there, project):
    command = ["run", "toy", "--preset", "smoke", "--only", "k1", "--quiet"]
    folder = there / "runs/toy/smoke/k1"
    note = folder / "memory.json"

    def evaluated_again():
        record = Record.load(folder)
        dataclasses.replace(record, code_digest="0" * 64).save(folder)
        assert main(command) == 0
        assert Record.load(folder).trained

    assert main(command) == 0
    note.write_text('{"memory_mb": 123456, "gpu_mb": 7}')
    evaluated_again()
    assert json.loads(note.read_text()) == {"memory_mb": 123456, "gpu_mb": 7}
    note.unlink()
    evaluated_again()
    assert not note.exists()  # what evaluation needs says nothing of training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cost", "--preset", "laptop"], "which paper?"),
        (["cost", "toy"], "which preset?"),
        (["cost", "toy", "--preset", "laptop", "--seconds", "0"], "--seconds 0: from 1 to 3600"),
        (["cost", "toy", "--preset", "laptop", "--speed", "1"], "has no setting '--speed'"),
        (["cost", "toi", "--preset", "laptop"], "Did you mean 'toy'?"),
    ],
)
def test_mistakes_are_told(there, capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
