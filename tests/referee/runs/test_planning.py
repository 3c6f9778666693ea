"""Which runs a call asks for, of which seeds and in which folders; and what becomes of them."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.records import Record, replicates
from referee.cli import main
from referee.project import Project, UsageError
from referee.runs import planning, running
from referee.runs.planning import MOST_SEEDS, parse_seeds, plan

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _inside(there: Path) -> None:
    """Every test runs inside the invented repository."""


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-4", (0, 1, 2, 3, 4)),
        ("0,2,7", (0, 2, 7)),
        ("3", (3,)),
        ("7, 0-2", (0, 1, 2, 7)),
        ("5-5", (5,)),
        ("4294967295", (2**32 - 1,)),
    ],
)
def test_seeds_as_they_are_typed(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "'' is no seed and no range"),
        ("0,", "'' is no seed"),
        ("a-b", "'a-b' is no seed"),
        ("1.5", "'1.5' is no seed"),
        ("0-1-2", "'0-1-2' is no seed"),
        ("-1", "'-1' is negative"),
        ("2,-1-3", "'-1-3' is negative"),
        ("4-0", "runs backwards. Write 0-4."),
        ("0-3,2,3", "2, 3 stands there twice"),
        ("4294967296", "too large"),
        (f"0-{MOST_SEEDS}", "more than 1,000 seeds"),
        ("0-999999999999", "too large"),
        ("²", "'²' is no seed"),
    ],
)
def test_seeds_that_are_none(text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_seeds(text)
    assert says in str(error.value)


def test_a_plan_has_the_runs_in_order_and_their_own_seed_first(project: Project) -> None:
    tasks = plan(project, "laptop", only=["k50", "k1"], seeds=(2, 0, 1))
    assert [task.name for task in tasks] == ["k1", "k1 seed 1", "k1 seed 2", "k50", "k50 seed 1", "k50 seed 2"]
    assert [task.own for task in tasks] == [True, False, False] * 2
    assert [(task.config.k, task.config.seed) for task in tasks[3:]] == [(50, 0), (50, 1), (50, 2)]
    base = project.root / "runs" / "toy" / "laptop"
    assert [task.directory for task in tasks[:2]] == [base / "k1", base / "k1" / "seed-1"]
    assert {(task.project, task.preset) for task in tasks} == {("toy", "laptop")}


def test_the_own_seed_is_the_presets(project: Project, tmp_path: Path) -> None:
    (alone,) = plan(project, "paper")
    assert (alone.seed, alone.own, alone.name) == (1, True, "k50")
    one, zero = plan(project, "paper", seeds=(0, 1), out=tmp_path)
    assert (one.seed, zero.seed) == (1, 0)  # its own first
    assert (zero.own, zero.directory) == (False, tmp_path / "toy" / "paper" / "k50" / "seed-0")
    assert (one.own, one.directory) == (True, tmp_path / "toy" / "paper" / "k50")


def test_changed_settings_keep_their_label_whatever_the_seed(project: Project) -> None:
    (one,) = plan(project, "smoke", only=["k5"], overrides=["--lr", "0.5"])
    several = plan(project, "smoke", only=["k5"], overrides=["--lr", "0.5"], seeds=(0, 9))
    assert {task.preset for task in several} == {one.preset}
    assert one.preset.startswith("smoke+")
    assert several[1].config.lr == 0.5


def test_a_paper_without_a_seed(project: Project) -> None:
    text = project.paper_file.read_text().replace("    seed: int = 0\n", "").replace("k=50, seed=1", "k=50")
    project.paper_file.write_text(text)
    assert [task.seed for task in plan(project, "smoke")] == [0, 0]
    with pytest.raises(UsageError, match="the Config of 'toy' has no setting 'seed'"):
        plan(project, "smoke", seeds=(0, 1))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--seeds", "4-0"], "--seeds 4-0: the range '4-0' runs backwards"),
        (["--seeds=-3"], "'-3' is negative"),
        (["--seeds", "0-2", "--seed", "1"], "--seeds and --seed contradict each other"),
        (["--seeds", "0-2", "--seed=0"], "--seeds and --seed contradict each other"),
        (["--seeds", "1,2", "--publish"], "the preset's own seed of k1, k5 is neither among --seeds nor published"),
        (["--seeds", "1,2", "--resume"], "nothing to continue for k1 seed 1, k1 seed 2, k5 seed 1"),
    ],
)
def test_a_wrong_call_exits_2_and_leaves_nothing(arguments: list[str], says: str, there: Path, capsys: Capture) -> None:
    before = sorted(there.rglob("*"))
    assert main(["run", "toy", "--preset", "smoke", *arguments]) == 2
    assert says in capsys.readouterr().err
    assert sorted(path for path in there.rglob("*") if "__pycache__" not in path.parts) == before


COMMAND = ["run", "toy", "--preset", "laptop", "--only", "k1,k5", "--quiet"]


def folders(base: Path) -> set[str]:
    return {path.parent.relative_to(base).as_posix() for path in base.rglob("record.json")}


def test_seeds_run_are_reused_and_published(there: Path, project: Project, capsys: Capture) -> None:
    assert main([*COMMAND, "--seeds", "0-2"]) == 0
    out = capsys.readouterr().out
    assert "toy · laptop · 2 runs, 3 seeds each · cpu" in out
    assert "[6/6] k5 seed 2" in out
    base = there / "runs" / "toy" / "laptop"
    assert folders(base) == {f"{run}{seed}" for run in ("k1", "k5") for seed in ("", "/seed-1", "/seed-2")}
    for run, records in replicates(base.parent)["laptop"].items():
        assert [(r.run, r.seed, r.config["seed"]) for r in records] == [(run, seed, seed) for seed in range(3)]

    assert main([*COMMAND, "--seeds", "0-3", "--publish"]) == 0
    out = capsys.readouterr().out
    assert out.count("reused: same settings and code") == 6
    assert "Of other seeds than the preset's own: records, settings and curves, no pictures or weights." in out
    published = project.results / "laptop"
    assert folders(published) == folders(base)
    small = {"record.json", "config.json", "metrics.jsonl"}
    assert {p.name for p in (published / "k5" / "seed-3").iterdir()} == small
    others = {"seed-1", "seed-2", "seed-3"}
    of_its_own = {"examples.safetensors", "samples.png", "memory.json"}
    assert {p.name for p in (published / "k5").iterdir()} == small | of_its_own | others
    assert json.loads((published / "k5" / "seed-3" / "config.json").read_text())["seed"] == 3

    assert main([*COMMAND, "--publish"]) == 0  # the own seed alone: the others stay
    assert folders(published) == folders(base)
    assert main([*COMMAND, "--seeds", "4", "--publish"]) == 0  # and one alone, beside what is published
    assert folders(published) == folders(base)
    assert "the preset's own seed is not among them: k1, k5" in capsys.readouterr().out
    assert not list(published.rglob(".*"))


def test_starting_over_leaves_the_other_seeds(there: Path, capsys: Capture) -> None:
    assert main([*COMMAND, "--seeds", "0-2"]) == 0
    base = there / "runs" / "toy" / "laptop"
    for folder in folders(base):
        (base / folder / "old").touch()
    capsys.readouterr()
    assert main([*COMMAND, "--fresh"]) == 0
    assert "have finished: k1, k5\n" in capsys.readouterr().out
    assert {path.parent.relative_to(base).as_posix() for path in base.rglob("old")} == {
        f"{run}/seed-{seed}" for run in ("k1", "k5") for seed in (1, 2)
    }
    assert main([*COMMAND, "--fresh", "--seeds", "1-2"]) == 0
    out = capsys.readouterr().out
    assert "have finished: k1 seed 1, k1 seed 2, k5 seed 1, k5 seed 2\n" in out
    assert "reused" not in out
    assert not list(base.rglob("old"))
    assert not (base / ".before").exists()
    assert len(folders(base)) == 6


def test_an_outdated_run_leaves_its_other_seeds_where_they_are(there: Path, project: Project) -> None:
    assert main([*COMMAND, "--seeds", "0-1"]) == 0
    base = there / "runs" / "toy" / "laptop"
    before = Record.load(base / "k5" / "seed-1")
    project.paper_file.write_text(project.paper_file.read_text().replace("80 + 10", "70 + 10"))
    assert main(COMMAND) == 0
    assert Record.load(base / "k5").scores[0].value == 72
    assert Record.load(base / ".k5.outdated").scores[0].value == 82
    assert Record.load(base / "k5" / "seed-1") == before
    assert sorted(path.name for path in base.iterdir() if not path.name.startswith(".locks")) == [
        ".k1.outdated",
        ".k5.outdated",
        "k1",
        "k5",
    ]
    assert main([*COMMAND, "--seeds", "1"]) == 0
    assert Record.load(base / "k5" / "seed-1").scores[0].value == 72


def test_starting_seeds_over_reuses_nothing_old_after_an_interruption(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    from common import experiment

    seeds = [*COMMAND, "--seeds", "0-2"]
    base = there / "runs" / "toy" / "laptop"
    assert main(seeds) == 0
    real = experiment.execute

    def execute(paper: Any, project: str, preset: str, name: str, config: Any, *rest: Any, **options: Any) -> Any:
        if (name, config.seed) == ("k1", 2):
            raise KeyboardInterrupt
        return real(paper, project, preset, name, config, *rest, **options)

    with monkeypatch.context() as context:
        context.setattr(experiment, "execute", execute)
        assert main([*seeds, "--fresh"]) == 130
    assert sorted(p.name for p in (base / ".before").iterdir()) == ["k1 seed 2", "k5", "k5 seed 1", "k5 seed 2"]
    assert folders(base) - {f".before/{name}" for name in ("k1 seed 2", "k5", "k5 seed 1", "k5 seed 2")} == {
        "k1",
        "k1/seed-1",
    }
    capsys.readouterr()
    assert main([*seeds, "--resume"]) == 0
    out = capsys.readouterr().out
    assert "never begun, so from the start: k1 seed 2, k5, k5 seed 1, k5 seed 2" in out
    assert out.count("reused") == 2
    assert not (base / ".before").exists()


def interrupted_at(move: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C instead of the move of a file or folder of this number."""
    real, moves = Path.rename, itertools.count(1)

    def rename(path: Path, target: Path) -> Path:
        if next(moves) == move:
            raise KeyboardInterrupt
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)


@pytest.mark.parametrize("move", [2, 3, 4])
def test_an_interruption_while_runs_are_put_aside_leaves_none_to_be_reused(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, move: int
) -> None:
    one = ["run", "toy", "--preset", "laptop", "--only", "k1", "--quiet"]
    assert main([*one, "--seeds", "0-1"]) == 0
    with monkeypatch.context() as context:
        interrupted_at(move, context)
        assert main([*one, "--fresh"]) == 130
    capsys.readouterr()
    assert main(one) == 0
    assert "reused" not in capsys.readouterr().out
    assert not (there / "runs" / "toy" / "laptop" / ".before").exists()
    assert (there / "runs" / "toy" / "laptop" / "k1" / "seed-1" / "record.json").exists()


def test_what_is_aside_is_not_mixed_with_an_interrupted_start_over(
    there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ["run", "toy", "--preset", "laptop", "--only", "k1", "--quiet", "--fresh"]
    base = there / "runs" / "toy" / "laptop"
    assert main(one) == 0
    before = {path.name: path.read_bytes() for path in (base / "k1").iterdir()}
    for _ in range(2):  # begun, interrupted with something written; and started over once more
        with monkeypatch.context() as context:
            from common import experiment

            def execute(*arguments: Any, **options: Any) -> Any:
                (base / "k1").mkdir()
                (base / "k1" / "metrics.jsonl").write_text("begun")
                raise KeyboardInterrupt

            context.setattr(experiment, "execute", execute)
            assert main(one) == 130
    assert {path.name: path.read_bytes() for path in (base / ".before" / "k1").iterdir()} == before
    assert {path.name for path in (base / "k1").iterdir()} == {"metrics.jsonl", "memory.json"}


@pytest.mark.parametrize("move", [1, 3, 4])
def test_an_interruption_while_an_outdated_run_is_put_aside_mixes_nothing(
    there: Path, project: Project, monkeypatch: pytest.MonkeyPatch, move: int
) -> None:
    one = ["run", "toy", "--preset", "laptop", "--only", "k1", "--quiet"]
    folder = there / "runs" / "toy" / "laptop" / "k1"
    assert main(one) == 0
    (folder / "old").touch()
    project.paper_file.write_text(project.paper_file.read_text().replace("80 + 10", "70 + 10"))
    with monkeypatch.context() as context:
        interrupted_at(move, context)
        assert main(one) == 130
    assert main(one) == 0
    assert Record.load(folder).scores[0].value == 80
    assert not (folder / "old").exists()


def test_seeds_run_side_by_side(there: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Every seed is a task of its own, told from the others by name and folder."""
    seen: dict[str, tuple[Any, ...]] = {}

    def side_by_side(work: Callable[..., Any], tasks: dict[str, tuple[Any, ...]], **options: Any) -> dict[str, Any]:
        seen.update(tasks)
        assert options["jobs"] == 2
        return {name: _done(options["finished"], name, work(*given)) for name, given in tasks.items()}

    def _done(finished: Callable[..., None], name: str, result: tuple[Record, bool]) -> tuple[Record, bool]:
        finished(name, result)
        return result

    monkeypatch.setattr(running, "side_by_side", side_by_side)
    assert main([*COMMAND, "--seeds", "0-1", "--jobs", "2"]) == 0
    assert list(seen) == ["k1", "k1 seed 1", "k5", "k5 seed 1"]
    assert "2 runs, 2 seeds each · cpu, 2 at a time" in capsys.readouterr().out
    assert folders(there / "runs" / "toy" / "laptop") == {"k1", "k1/seed-1", "k5", "k5/seed-1"}


@pytest.mark.parametrize("more", [[], ["--on", "local", "--detach"]])
def test_a_folder_for_runs_that_cannot_be_one_is_refused_before_anything_is_written(
    more: list[str], tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    assert main(["run", "toy", "--preset", "smoke", "--out", str(file / "deeper"), *more]) == 2
    assert f"run: --out {file / 'deeper'}: {file} is a file; name a folder." in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_a_folder_that_may_not_be_written_to_is_refused(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(UsageError, match="cannot be written to"):
        plan(project, "smoke", out=tmp_path / "runs")
