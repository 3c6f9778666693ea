"""The commands: what they do, what they say to a mistake, and their exit status. No mistake ends in a traceback."""

import contextlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common import probes
from common.errors import NonFiniteError, UserError
from common.records import Record
from referee import cli
from referee.cli import main
from referee.project import Project, find_root
from referee.runs import running

MakeRecord = Callable[..., Record]
Capture = pytest.CaptureFixture[str]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _inside(there: Path) -> None:
    """Every test runs inside the invented repository."""


def test_the_help_says_what_probes_have_to_be_given(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main(["probe", "--help"])
    shown = set(re.findall(r"^  probes\.(.*)$", capsys.readouterr().out, flags=re.M))

    def owed(probe: Callable[..., Any]) -> str:
        parameters = [p for p in inspect.signature(probe).parameters.values() if p.default is p.empty]
        by_name = any(p.kind is p.KEYWORD_ONLY for p in parameters)
        names = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] + ["*"] * by_name
        names += [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        return f"{probe.__name__}({', '.join(names)})"

    offered = [getattr(probes, name) for name in probes.__all__]
    known = [f for f in offered if inspect.signature(f).return_annotation is probes.ProbeResult]
    assert shown == {owed(probe) for probe in known}


# -- without torch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["verdicts"], ["tables"], ["report", "toy"], ["run", "--help"]])
def test_reading_commands_stay_light(arguments: list[str], there: Path) -> None:
    code = (
        "import sys; from referee.cli import main; status = main(sys.argv[1:]); "
        "heavy = {'torch', 'matplotlib', 'IPython', 'nbformat'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_verdicts_as_a_table(make: MakeRecord, capsys: Capture) -> None:
    make("paper", "k50", 84.95, 0.1)
    assert main(["verdicts", "--all"]) == 0
    out = capsys.readouterr().out
    assert "within tolerance" in out
    assert "≤ 84.95 ± 0.10 nats" in out
    assert "nll-k50: Worse by 0.25 nats, between 0.04 and 0.46; tolerance 0.5." in out
    assert "1 within tolerance, 2 not attempted" in out
    assert "from memory" in out


def test_verdicts_as_json(make: MakeRecord, capsys: Capture) -> None:
    make("paper", "k50", 99.0, 0.2)
    assert main(["verdicts", "toy", "--format", "json"]) == 0  # not reproduced: a result, not an error
    (project,) = json.loads(capsys.readouterr().out)
    assert project["project"] == "toy"
    assert [v["status"] for v in project["verdicts"]] == ["not reproduced", "not attempted", "not attempted"]
    assert project["verdicts"][0]["value"] == 99.0


def test_verdicts_of_runs_on_this_machine(project: Project, make: MakeRecord, capsys: Capture) -> None:
    make("paper", "k50", 84.0, base=project.runs)
    main(["verdicts", "toy"])
    assert "3 not attempted" in capsys.readouterr().out
    main(["verdicts", "toy", "--runs"])
    assert "1 reproduced, 2 not attempted" in capsys.readouterr().out


def test_stale_and_broken_records_exit_1(project: Project, make: MakeRecord, capsys: Capture) -> None:
    make("paper", "k50", 84.0, code_digest="other")
    assert main(["verdicts"]) == 1
    assert "(stale)" in capsys.readouterr().out
    make("paper", "k50", 84.0)
    assert main(["verdicts"]) == 0
    (project.results / "paper" / "k50" / "record.json").write_text("[]")
    assert main(["verdicts"]) == 1
    assert "record.json" in capsys.readouterr().err


def test_markup_in_files_is_text(project: Project, capsys: Capture) -> None:
    path = project.folder / "project.yaml"
    path.write_text(path.read_text().replace("k=50 < k=5 < k=1", "'[bold red]loud[/] k=50'"))
    assert main(["verdicts", "--all"]) == 0
    assert "[bold red]loud[/] k=50" in capsys.readouterr().out


def test_a_bad_project_file_is_reported_with_its_lines(project: Project, capsys: Capture) -> None:
    path = project.folder / "project.yaml"
    path.write_text(path.read_text().replace("84.70", "84,70").replace("metric: nll", "metric: nlll", 1))
    for command in (["verdicts"], ["tables"], ["report", "toy"], ["probe", "toy"]):
        assert main(command) == 1
        error = capsys.readouterr().err
        assert "projects/toy/project.yaml:18: PRJ-009" in error
        assert "projects/toy/project.yaml:22: PRJ-008" in error


def test_a_paper_that_is_not_python(project: Project, make: MakeRecord, capsys: Capture) -> None:
    make("paper", "k50")
    project.paper_file.write_text("def f(:\n")
    assert main(["verdicts"]) == 1
    assert "not Python (line 1" in capsys.readouterr().err


# -- mistakes in the call ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["verdict"], "unknown command 'verdict'. Did you mean 'verdicts'?"),
        (["verdicts", "toyy"], "unknown paper 'toyy'. Did you mean 'toy'? Papers: toy."),
        (["verdicts", "../toy"], "unknown paper '../toy'"),
        (["verdicts", "--format", "xml"], "invalid choice: 'xml'"),
        (["verdicts", "--rums"], "unknown argument '--rums'"),
        (["--verbose"], "unknown argument '--verbose'.\nSee 'referee --help'."),
        (["report"], "required: paper"),
        (["run"], "which paper? toy"),
        (["run", "toy"], "which preset? --preset smoke | laptop | paper"),
        (["run", "toy", "--preset", "laptp"], "unknown preset 'laptp'. Did you mean 'laptop'?"),
        (["run", "toy", "--preset", "smoke", "--only", "k55"], "no run 'k55'. Did you mean 'k5'?"),
        (["run", "toy", "--preset", "smoke", "--hiden", "3"], "no setting '--hiden'. Did you mean '--hidden'?"),
        (["run", "toy", "--preset", "smoke", "--frech"], "no setting '--frech'. Did you mean '--fresh'?"),
        (["run", "toy", "--preset", "smoke", "k50"], "unexpected argument 'k50'"),
        (["run", "toy", "--preset", "smoke", "--k", "many"], "--k many: a whole number is wanted."),
        (["run", "toy", "--preset", "smoke", "--k", "2.5"], "--k 2.5: a whole number is wanted."),
        (["run", "toy", "--preset", "smoke", "--lr", "fast"], "--lr fast: a number is wanted."),
        (["run", "toy", "--preset", "smoke", "--k"], "--k: one whole number is wanted, none given."),
        (["run", "toy", "--preset", "smoke", "--k", "3", "4"], "--k 3 4: one whole number is wanted, 2 given."),
        (
            ["run", "toy", "--preset", "smoke", "--hidden", "3", "x", "y"],
            "--hidden 3 x y: whole numbers are wanted, 'x' is none.",
        ),
        (["run", "toy", "--preset", "smoke", "--mode", "fsat"], "--mode fsat: no such choice. Did you mean 'fast'?"),
        (["run", "toy", "--preset", "smoke", "--mode", "none"], "Choices: fast, slow."),
        (["run", "toy", "--preset", "smoke", "--mode"], "--mode: no such choice. Choices: fast, slow."),
        (["run", "toy", "--preset", "smoke", "--flip", "yes"], "--flip yes: takes no value; --flip says yes"),
        (
            ["run", "toy", "--preset", "smoke", "--k=a", "--lr", "b"],
            "a whole number is wanted.\nrun: --lr b: a number is wanted.",
        ),
        (["run", "toy", "--preset", "smoke", "--lr", "nan"], "a finite number is needed"),
        (["run", "toy", "--preset", "smoke", "--k", "0"], "needs at least one sample (k >= 1)"),
        (["run", "toy", "--preset", "smoke", "--device", "cuda:99"], "cuda:99"),
        (["run", "toy", "--preset", "smoke", "--device", "gpu"], "gpu"),
        (["run", "toy", "--preset", "smoke", "--resume", "--fresh"], "not allowed with"),
        (["run", "toy", "--preset", "smoke", "--resume"], "nothing to continue for k1, k5 in runs/toy/smoke"),
        (["run", "toy", "--preset", "smoke", "--k", "3", "--publish"], "cannot be published"),
        (["probe", "toy", "--only", "god"], "no probe 'god'. Did you mean 'good'?"),
    ],
)
def test_a_wrong_call_exits_2_and_leaves_nothing(arguments: list[str], says: str, there: Path, capsys: Capture) -> None:
    before = sorted(there.rglob("*"))
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert "Traceback" not in captured.err
    assert sorted(p for p in there.rglob("*") if "__pycache__" not in p.parts) == before


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_help_has_examples_and_the_exit_status(command: str, capsys: Capture) -> None:
    with contextlib.suppress(SystemExit):
        assert main([command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert f"  referee {command}" in out
    assert "exit status: 0 fine, 1 something fell short, 2 wrong usage" in out


def test_no_word_of_the_option_parser_comes_through(capsys: Capture) -> None:
    for arguments in (["--k", "abc"], ["--mode", "fsat"], ["--hidden", "x"], ["--lr"]):
        assert main(["run", "toy", "--preset", "smoke", *arguments]) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1, error
        assert not re.search(r"pars|argument|helptext|literal|INT|FLOAT", error)


def test_help_of_a_paper_lists_its_settings(capsys: Capture) -> None:
    assert main(["run", "toy", "--help"]) == 0
    out = capsys.readouterr().out
    assert "laptop: k1, k5, k50" in out
    assert "--hidden" in out
    assert "step size" in out


def test_interrupted_exits_130(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def stop(options: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("referee.show.verdicts_command", stop)
    assert main(["verdicts"]) == 130
    from common.training.stop import Interrupted

    def saved(options: object) -> int:
        raise Interrupted("everything is saved")

    monkeypatch.setattr("referee.show.verdicts_command", saved)
    assert main(["verdicts"]) == 130
    assert "everything is saved" in capsys.readouterr().err


def test_training_that_breaks_off_exits_1(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise NonFiniteError("loss is nan at step 7")

    monkeypatch.setattr(running, "run", fail)
    assert main(["run", "toy", "--preset", "smoke"]) == 1
    assert "referee: loss is nan at step 7" in capsys.readouterr().err


def test_the_version_is_said_without_importing_torch() -> None:
    from importlib.metadata import version

    script = "import sys; from referee.cli import main; main(['--version']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stderr == ""
    product = version("refereed-generative-models")
    assert done.stdout.startswith(f"refereed-generative-models {product}, torch {version('torch')}, Python 3.")


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_what_goes_wrong_in_a_run_names_it(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: Capture, jobs: str
) -> None:
    monkeypatch.setattr(running, "side_by_side", _one_after_the_other)  # another process has no such paper
    text = project.paper_file.read_text()
    offline = """raise DataError("toys: run 'referee fetch <paper>' where there is a network.")"""
    text = text.replace('raise DataError("toys: could not be reached.")', offline)
    project.paper_file.write_text(text.replace('"k5": Config(k=5)}', '"k5": Config(k=13)}'))
    assert main(["run", "toy", "--preset", "smoke", "--jobs", jobs, "--quiet"]) == 1
    said = "referee: toy smoke k5: toys: run 'referee fetch toy' where there is a network.\n"
    assert said in capsys.readouterr().err


def _one_after_the_other(work: Callable[..., Any], tasks: dict[str, Any], **_: object) -> dict[str, Any]:
    return {name: work(*given) for name, given in tasks.items()}


@pytest.mark.parametrize(
    "error",
    [
        "OSError(28, 'No space left on device', 'x.png')",
        "RuntimeError('I/O error: No space left on device (os error 28)')",
    ],
)
def test_a_full_disk_is_one_message(project: Project, capsys: Capture, error: str) -> None:
    text = project.paper_file.read_text()
    project.paper_file.write_text(text.replace('(run.directory / "samples.png").write', f"raise {error}; (run).write"))
    assert main(["run", "toy", "--preset", "smoke", "--only", "k5"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"referee: toy smoke k5: cannot write to {project.runs / 'smoke/k5'} (")
    assert "No space left on device" in said
    assert said.endswith("). Make room; the same command continues from what is saved.\n")


def test_a_full_disk_is_one_message_for_any_command(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def full(options: object) -> int:
        raise OSError(28, "No space left on device", "page.html")

    monkeypatch.setattr("referee.report.report_command", full)
    assert main(["report", "toy"]) == 1
    said = "referee: [Errno 28] No space left on device: 'page.html'. Make room, and give the same command again.\n"
    assert capsys.readouterr().err == said


def test_a_mistake_in_a_papers_code_names_the_run(project: Project) -> None:
    text = project.paper_file.read_text()
    project.paper_file.write_text(text.replace("    run.steps = 3", "    run.steps = 3 // (config.k - 5)"))
    with pytest.raises(ZeroDivisionError) as raised:
        running.run(project, "smoke", jobs=1, progress=False)
    assert raised.value.__notes__ == ["This was in toy smoke k5."]


def test_the_repository_is_found_from_below_and_from_outside(
    there: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert find_root(there / "projects" / "toy") == there
    outside = tmp_path / "outside"
    outside.mkdir()
    monkeypatch.chdir(outside)
    assert find_root() == REPOSITORY


# -- run --------------------------------------------------------------------------------------------------------------


def test_run_then_reuse_then_publish(there: Path, project: Project, capsys: Capture) -> None:
    assert main(["run", "toy", "--preset", "laptop", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "toy · laptop · 3 runs · cpu" in out
    assert "≤ 80.20 ± 0.50" in out
    assert "Everything is in runs/toy/laptop" in out
    assert "reused" not in out
    first = Record.load(there / "runs" / "toy" / "laptop" / "k50")
    assert first.config == {"k": 50, "lr": 1e-3, "hidden": [4], "flip": False, "mode": "fast", "seed": 0}

    assert main(["run", "toy", "--preset", "laptop", "--quiet", "--publish", "--resume"]) == 0
    assert capsys.readouterr().out.count("reused: same settings and code") == 3
    published = project.results / "laptop"
    names = {p.name for p in (published / "k50").iterdir()}
    expected = {"record.json", "config.json", "metrics.jsonl", "examples.safetensors", "samples.png", "memory.json"}
    assert names == expected | {"weights.safetensors"}
    assert {p.name for p in (published / "k1").iterdir()} == expected  # only k50's weights are declared
    assert Record.load(published / "k50") == first
    assert not [p for p in published.iterdir() if p.name.startswith(".")]

    assert main(["verdicts", "toy"]) == 0
    out = capsys.readouterr().out
    assert "reproduced" in out
    assert "k50 80.20 < k5 82.00 < k1 90.00 nats" in out

    assert main(["run", "toy", "--preset", "laptop", "--quiet", "--fresh", "--only", "k1"]) == 0
    assert "reused" not in capsys.readouterr().out
    assert (there / "runs" / "toy" / "laptop" / "k5" / "record.json").exists()


def stop_before(run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C as soon as this run begins."""
    from common import experiment

    real = experiment.execute

    def execute(paper: Any, project: str, preset: str, name: str, *arguments: Any, **options: Any) -> Any:
        if name == run:
            raise KeyboardInterrupt
        return real(paper, project, preset, name, *arguments, **options)

    monkeypatch.setattr(experiment, "execute", execute)


def test_starting_over_reuses_nothing_old_after_an_interruption(
    there: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    command = ["run", "toy", "--preset", "laptop", "--quiet"]
    folder = there / "runs" / "toy" / "laptop"
    assert main([*command]) == 0
    (folder / "k50" / "old").touch()
    with monkeypatch.context() as context:
        stop_before("k5", context)
        assert main([*command, "--fresh"]) == 130
    out = capsys.readouterr().out
    assert "kept in runs/toy/laptop/.before until their successors have finished: k1, k5, k50" in out
    assert sorted(p.name for p in (folder / ".before").iterdir()) == ["k5", "k50"]  # k1 has been made anew
    assert (folder / ".before" / "k50" / "record.json").exists()  # nothing is lost yet
    assert main(["verdicts", "toy", "--runs", "--all"]) == 0
    assert "laptop: k50, k5 missing" in capsys.readouterr().out

    with monkeypatch.context() as context:  # again, and no further: what was finished is still kept
        stop_before("k1", context)
        assert main([*command, "--fresh"]) == 130
    assert sorted(p.name for p in (folder / ".before").iterdir()) == ["k1", "k5", "k50"]
    assert (folder / ".before" / "k50" / "old").exists()

    capsys.readouterr()
    assert main(command) == 0
    assert "reused" not in capsys.readouterr().out
    assert not (folder / "k50" / "old").exists()
    assert not (folder / ".before").exists()
    assert sorted(p.name for p in folder.iterdir()) == ["k1", "k5", "k50"]


def test_starting_over_some_leaves_the_others(there: Path, capsys: Capture) -> None:
    folder = there / "runs" / "toy" / "laptop"
    assert main(["run", "toy", "--preset", "laptop", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["run", "toy", "--preset", "laptop", "--quiet", "--fresh", "--only", "k1", "--k", "0"]) == 2
    assert main(["run", "toy", "--preset", "laptop", "--quiet", "--fresh", "--only", "k1", "--jobs", "0"]) == 2
    assert "kept in" not in capsys.readouterr().out  # a wrong call moves nothing
    assert main(["run", "toy", "--preset", "laptop", "--quiet", "--fresh", "--only", "k1"]) == 0
    assert "have finished: k1\n" in capsys.readouterr().out
    assert sorted(p.name for p in folder.iterdir()) == ["k1", "k5", "k50"]


def test_resuming_begins_what_was_never_begun_and_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    command = ["run", "toy", "--preset", "laptop", "--quiet"]
    with monkeypatch.context() as context:
        stop_before("k5", context)
        assert main(command) == 130
    capsys.readouterr()
    assert main([*command, "--resume"]) == 0
    out = capsys.readouterr().out
    assert "never begun, so from the start: k5, k50" in out
    assert "k1   reused" in out
    assert main([*command, "--resume"]) == 0
    assert "never begun" not in capsys.readouterr().out


def test_changed_settings_go_to_a_folder_of_their_own(there: Path, capsys: Capture) -> None:
    def label(*arguments: str) -> str:
        assert main(["run", "toy", "--preset", "smoke", "--only", "k5", "--quiet", *arguments]) == 0
        return capsys.readouterr().out.splitlines()[0].split(" · ")[1]

    plain = label()
    assert plain == "smoke"
    changed = label("--lr", "0.5", "--hidden", "3", "4", "--flip")
    assert len(changed) == len("smoke+") + 8
    record = Record.load(there / "runs" / "toy" / changed / "k5")
    assert record.preset == changed
    assert record.config == {"k": 5, "lr": 0.5, "hidden": [3, 4], "flip": True, "mode": "fast", "seed": 0}
    assert label("--hidden", "3", "4", "--flip", "--lr=0.5") == changed  # the order of typing does not matter
    assert label("--lr", "0.25", "--hidden", "3", "4", "--flip") != changed
    assert label("--k", "5") == "smoke"  # what it is already


def test_publishing_replaces_a_folder_whole(tmp_path: Path) -> None:
    source, target = tmp_path / "run", tmp_path / "results" / "run"
    source.mkdir()
    target.mkdir(parents=True)
    (target / "old.png").write_bytes(b"old")
    for name in ("record.json", "config.json", "manifold.png", "checkpoint.pt", "weights.safetensors"):
        (source / name).write_bytes(b"new")
    running.publish_run(source, target, with_weights=False)
    assert {p.name for p in target.iterdir()} == {"record.json", "config.json", "manifold.png"}
    (source / "manifold.png").write_bytes(bytes(running.MAX_PUBLISHED + 1))
    with pytest.raises(Exception, match="too large"):
        running.publish_run(source, target, with_weights=False)
    assert (target / "manifold.png").read_bytes() == b"new"
    assert [p.name for p in target.parent.iterdir()] == ["run"]


# -- probe and demo ---------------------------------------------------------------------------------------------------


def test_probe(capsys: Capture) -> None:
    assert main(["probe", "toy", "--only", "good"]) == 0
    assert "1 of 1 probes passed" in capsys.readouterr().out
    assert main(["probe", "toy"]) == 1
    out = capsys.readouterr().out
    assert "it is not good" in out
    assert "it raised ValueError: [bold]no" in out
    assert "1 of 3 probes passed" in out
    assert main(["probe", "toy", "--only", "bad", "--format", "json"]) == 1
    (result,) = json.loads(capsys.readouterr().out)["probes"]
    assert (result["passed"], result["numbers"]) == (False, {"error": 3.5})


def test_probe_names_what_the_file_promises_and_the_module_lacks(project: Project, capsys: Capture) -> None:
    path = project.folder / "project.yaml"
    path.write_text(path.read_text().replace("probes: [good]", "probes: [good, causality]"))
    assert main(["probe", "toy", "--only", "good"]) == 1
    assert "PRJ-013: probes: the paper's module offers no probe 'causality'" in capsys.readouterr().err


def test_demo(there: Path, capsys: Capture) -> None:
    assert main(["demo", "toy"]) == 0
    out = capsys.readouterr().out
    assert "toy · laptop" in out
    assert "✓ reproduced" in out
    last = out.splitlines()[-1]
    assert last == f"Report: {there / 'runs' / 'toy' / 'report.html'}"
    assert main(["demo", "toy"]) == 0
    assert capsys.readouterr().out.count("reused") == 3


def test_demo_without_the_data_shows_the_smoke_preset(project: Project, capsys: Capture) -> None:
    text = project.paper_file.read_text()
    project.paper_file.write_text(text.replace('"k50": Config(k=50)', '"k50": Config(k=13)'))
    assert main(["demo", "toy"]) == 0
    captured = capsys.readouterr()
    assert "toys: could not be reached" in captured.err
    assert "toy · smoke" in captured.out
    assert "report.html" in captured.out.splitlines()[-1]


def notebook(*cells: str) -> str:
    return json.dumps(
        {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "cells": [
                {
                    "id": f"c{i}",
                    "cell_type": "code",
                    "metadata": {},
                    "execution_count": None,
                    "outputs": [],
                    "source": c,
                }
                for i, c in enumerate(cells)
            ],
        }
    )


@pytest.mark.filterwarnings("ignore")
def test_the_notebook_is_executed_on_these_runs(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    path = project.folder / "toy.ipynb"
    path.write_text(notebook("import os\nprint('reads', os.environ['REFEREE_RESULTS'])"))
    before = path.read_text()
    copy = running.execute_notebook(project)
    assert copy == project.runs / "toy.ipynb"
    assert f"reads {project.runs}" in copy.read_text()
    assert path.read_text() == before
    assert "WARNING" not in capfd.readouterr().err  # the kernel's, as one that it is not encrypted
    path.write_text(notebook("raise ValueError('no curve')"))
    with pytest.raises(UserError, match=r"toy\.ipynb: a cell failed with ValueError: no curve"):
        running.execute_notebook(project)
