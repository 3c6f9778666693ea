"""A run's way to its record: what is done again when code has changed, and what is kept."""

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.experiment import execute
from common.records import Record

PAPER = """
import torch
from dataclasses import dataclass
from torch import nn
from common.data import Batches, Split
from common.evaluation.likelihood import mean_score
from common.training import State, fit, sgd_step


@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    seed: int = 0


def build(config):
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))


def data():
    return torch.randn(40, 3, generator=torch.Generator().manual_seed(1))


def squared(x):
    return x.square().mean()


def train(config, run):
    model = build(config)
    adam = torch.optim.Adam(model.parameters(), lr=config.lr)
    state = State(model, {"adam": adam}, torch.Generator().manual_seed(config.seed))
    run.data["toys"] = "0" * 64
    (run.directory / "TRAINED").touch()

    def step(state, batch):
        return sgd_step(lambda x: (squared(model(x) - 1), {}), adam, batch[0])

    fit(state, Batches(Split(data(), None), batch_size=8, seed=0), step, steps=10, run=run, log_every=5)
    return model.train()


def measured(x):
    return 2 * x


def evaluate(config, model, run):
    errors = measured(model(data()).detach().square().flatten())
    run.examples["error"] = errors
    return [mean_score(errors, "error", unit="units", kind="estimate", split="test", protocol="toys")]


def illustrate(config, model, run):
    (run.directory / "samples.png").write_text("picture")


PRESETS = {"smoke": {"a": Config()}}
PROBES = {}
"""


class Toy:
    """A paper in a repository of its own, and the folder of its one run."""

    def __init__(self, root: Path) -> None:
        self.file = root / "projects/toy/toy.py"
        self.file.parent.mkdir(parents=True)
        self.file.write_text(PAPER)
        self.folder = root / "runs/toy/smoke/a"

    def run(self, folder: Path | None = None, **settings) -> Record:
        spec = importlib.util.spec_from_file_location("toy", self.file)
        paper = importlib.util.module_from_spec(spec)
        sys.modules["toy"] = paper
        spec.loader.exec_module(paper)
        config = dataclasses.replace(paper.Config(), **settings)
        place = torch.device("cpu")
        return execute(paper, "toy", "smoke", "a", config, folder or self.folder, place, progress=False)[0]

    def edit(self, old: str, new: str) -> None:
        assert PAPER.count(old) == 1
        self.file.write_text(PAPER.replace(old, new))

    def was_trained(self) -> bool:
        """Whether the last call trained: what an earlier one left, but weights and their course, is put aside."""
        return (self.folder / "TRAINED").exists()


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    return Toy(tmp_path)


def test_when_evaluation_alone_has_changed_weights_are_kept_and_the_record_is_that_of_a_run_from_the_start(toy):
    first = toy.run()
    assert toy.was_trained()
    assert first.trained == {}
    weights = (toy.folder / "weights.safetensors").read_bytes()
    course = (toy.folder / "metrics.jsonl").read_bytes()
    (toy.folder / "of_before.png").touch()
    (toy.folder / "seed-3").mkdir()
    toy.edit("return 2 * x", "return 4 * x")
    again = toy.run()
    assert not toy.was_trained()
    assert again.score("error").value == 2 * first.score("error").value
    assert (toy.folder / "weights.safetensors").read_bytes() == weights
    assert (toy.folder / "metrics.jsonl").read_bytes() == course
    kept = {"record.json", "config.json", "metrics.jsonl", "examples.safetensors", "weights.safetensors"}
    assert {path.name for path in toy.folder.iterdir()} == kept | {"samples.png", "seed-3"}
    afresh = toy.run(toy.folder.with_name("afresh"))
    assert again.scores == afresh.scores
    same = ("config", "seed", "steps", "code_digest", "data_sha256", "parameters", "training_digest", "weights_sha256")
    for name in same:
        assert getattr(again, name) == getattr(afresh, name), name
    assert again.code_digest != first.code_digest
    assert again.timings_s["train"] == first.timings_s["train"]
    assert afresh.trained == {}
    origin = {name: getattr(first, name) for name in ("git_sha", "environment", "hardware", "finished")}
    assert again.trained == origin
    assert Record.load(toy.folder.with_name(".a.outdated")) == first  # nothing is lost


def test_whoever_evaluates_a_third_time_still_says_where_training_was_done(toy):
    first = toy.run()
    for factor in (3, 5):
        toy.edit("return 2 * x", f"return {factor} * x")
        record = toy.run()
    assert record.trained["finished"] == first.finished
    assert record.score("error").value == pytest.approx(2.5 * first.score("error").value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return x.square().mean()", "return x.abs().mean()"),  # what train uses
        ("nn.Linear(3, 2), nn.BatchNorm1d(2)", "nn.Linear(3, 2), nn.ReLU(), nn.BatchNorm1d(2)"),  # what build does
        ("lr: float = 0.1", "lr: float = 0.2"),  # another configuration
    ],
)
def test_when_training_has_changed_it_is_done_again(toy, old, new):
    first = toy.run()
    toy.edit(old, new)
    second = toy.run()
    assert toy.was_trained()
    assert second.trained == {}
    assert second.weights_sha256 != first.weights_sha256


def test_weights_that_are_not_those_of_the_record_are_not_kept(toy):
    first = toy.run()
    path = toy.folder / "weights.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    toy.edit("return 2 * x", "return 4 * x")
    again = toy.run()
    assert toy.was_trained()
    assert again.weights_sha256 == first.weights_sha256


def test_a_record_that_says_nothing_of_its_training_is_trained_again(toy):
    toy.run()
    path = toy.folder / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "training_digest": ""}))
    toy.edit("return 2 * x", "return 4 * x")
    toy.run()
    assert toy.was_trained()


def test_an_evaluation_that_breaks_off_is_taken_up_with_the_weights(toy):
    first = toy.run()
    toy.edit("return 2 * x", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        toy.run()
    assert not (toy.folder / "record.json").exists()  # half of a run is no run
    toy.edit("return 2 * x", "return 6 * x")
    again = toy.run()
    assert not toy.was_trained()
    assert again.score("error").value == pytest.approx(3 * first.score("error").value)
    assert again.trained["finished"] == first.finished
    assert not (toy.folder / "trained.json").exists()


def test_training_that_changed_while_an_evaluation_was_broken_off_is_done_again(toy):
    toy.run()
    toy.edit("return 2 * x", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        toy.run()
    toy.edit("return x.square().mean()", "return x.abs().mean()")
    assert toy.run().trained == {}
    assert toy.was_trained()
    assert not (toy.folder / "trained.json").exists()


def test_a_checkpoint_continues_when_evaluation_alone_has_changed(toy, monkeypatch):
    """Training that was interrupted is not lost to a change in what comes after it."""
    toy.edit("return model.train()", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        toy.run()
    text = toy.file.read_text()
    assert (toy.folder / "checkpoint.pt").exists()
    toy.file.write_text(text.replace("return 2 * x", "return 4 * x"))
    with pytest.raises(KeyboardInterrupt):  # by the same training, and not by an error of the checkpoint
        toy.run()


def test_of_every_paper_what_training_reaches_is_part_of_what_counts():
    """So that whatever moves the training's digest moves the record's, too."""
    from common.digest import TRAINING, reach

    root = Path(__file__).resolve().parents[2]
    papers = [file for file in root.glob("projects/*/*.py") if file.stem == file.parent.name]
    assert papers
    for file in papers:
        whole = {(m.name, s.text) for m, each in reach(file).statements().items() for s in each}
        part = {(m.name, s.text) for m, each in reach(file, of=TRAINING).statements().items() for s in each}
        presets = {item for item in part - whole if item[0].startswith("projects.")}  # names that PRESETS shares
        assert part - presets <= whole, file
        assert any(text.startswith("def train") for _, text in part), file
        assert not any(text.startswith(("def evaluate(", "def illustrate(")) for _, text in part), file
