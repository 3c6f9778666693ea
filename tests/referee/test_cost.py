"""What runs take: read from records, counted up from bars, said before they are queued."""

import pytest

from referee.cli import main
from referee.cost import Cost, counted_up, hardware, known, summary
from referee.planning import plan


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
    assert lines[2].startswith("warning: 1 runs, k50 among them, take longer than the 60 min that a job gets")
    assert len(summary(tasks, [Cost(600.0, None, None, source)] * 3, minutes=60)) == 1


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
