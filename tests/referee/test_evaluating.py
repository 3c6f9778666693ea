"""`referee evaluate`: what it measures is what the metrics say; a mistake gets one message and leaves nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.data import load
from common.evaluation import metrics, samples
from common.evaluation.bank import bank
from common.evaluation.class_score import classifier, from_log_probs
from common.evaluation.features import raw_pixels
from common.evaluation.frechet import Moments, frechet_distance
from common.evaluation.manifold import expected_coverage
from common.records import Record, Score
from referee import evaluating
from referee.cli import main
from referee.schema import find_metric

Capture = pytest.CaptureFixture[str]

MODEL = '''\
"""An invented paper about digits."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from common.data import load
from common.records import Score, read_metrics


@dataclass(frozen=True)
class Config:
    dataset: str = "digits"
    hidden: tuple[int, ...] = (4,)
    seed: int = 0


PRESETS = {"smoke": {"a": Config("mnist")}, "laptop": {"a": Config(), "b": Config(hidden=(5, 6))}}
PROBES = {}


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(config.hidden[0]))

    def sample(self, n, *, generator):
        return torch.rand(n, 64, generator=generator) * self.bias.exp().mean()


def build(config):
    return Model(config)


def evaluate(config, model, run):
    data = run.uses(load(config.dataset))
    value = float(model.bias.detach().sum()) + len(read_metrics(run.directory))
    return [Score("nll", value, 0.5, 8, "nats", "bound", "test", "ema", "digits, made up")]
'''


@pytest.fixture(autouse=True)
def here(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inside the invented repository, with a cache of its own."""
    monkeypatch.setenv("REFEREE_CACHE", str(tmp_path / "cache"))
    (there / "projects" / "toy" / "toy.py").write_text(MODEL)
    return there


def noise(n: int, seed: int = 0, levels: int = 17) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, levels, (n, 1, 8, 8), generator=generator).to(torch.uint8)


def keep(x: Tensor, name: str = "x.npy") -> str:
    np.save(name, x.numpy())
    return name


def only_record(under: str = "runs") -> Record:
    (path,) = Path(under).rglob("record.json")
    return Record.load(path.parent)


DIGITS = ("evaluate", "--dataset", "digits", "--quiet")


# -- What is measured -------------------------------------------------------------------------------------------------


def test_the_scores_are_the_metrics_of_these_samples(capsys: Capture) -> None:
    x = noise(150)
    assert main([*DIGITS, "--samples", keep(x), "--metrics", "fd,precision,kid"]) == 0
    record = only_record()
    assert [s.name for s in record.scores] == ["fd[raw-pixels]", "precision[raw-pixels]", "kid[raw-pixels]"]
    data, features = load("digits"), raw_pixels((1, 8, 8), 17)
    expected = frechet_distance(Moments().add(features(x)), Moments().add(features(data.test.x)))
    assert record.scores[0].value == pytest.approx(expected, rel=1e-9)
    assert all(s.n == 150 and s.split == "test" and s.weights == "raw" for s in record.scores)
    assert all(s.kind == "estimate" and "digits" in s.protocol and "raw-pixels" in s.protocol for s in record.scores)
    assert (record.project, record.preset) == ("samples", "evaluate")
    assert record.data_sha256 == {"digits": data.sha256}
    digest = samples.Digest((1, 8, 8))
    digest.add(x)
    assert record.config["samples_sha256"] == digest.hex()
    out = capsys.readouterr().out
    assert "±" in out
    assert "150 samples against 300" in out
    assert f"Record: runs/samples/evaluate/{record.run}/record.json" in out


def test_every_metric_by_name_is_a_score_with_error_and_protocol() -> None:
    x = keep(load("digits").train.x[:300])
    names = [name for name in metrics.OF_SAMPLES if name != "class_score"]
    assert main([*DIGITS, "--samples", x, "--metrics", ",".join(names)]) == 0
    scores = only_record().scores
    assert [s.name for s in scores] == [f"{name}[raw-pixels]" for name in names]
    for score in scores:
        known = find_metric(score.name)
        assert known is not None
        assert score.unit == known.unit == metrics.OF_SAMPLES[score.name.partition("[")[0]].unit
        assert (score.kind == "exact") == score.name.startswith("c2st_p")
        assert (score.stderr is None) == score.name.startswith(("c2st_p", "copies"))  # all of them are copies
        assert len(score.protocol) > 8
    found = {score.name.partition("[")[0]: score.value for score in scores}
    assert found["copies"] == 1  # they are the training examples
    assert found["copying"] < -5


def test_classes_are_those_of_the_networks_classifier() -> None:
    x = torch.randint(0, 256, (40, 1, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    keep(x)
    keep(x.flip(3), "y.npy")
    chosen = ["--network", "lenet-mnist,lenet-fashion_mnist", "--metrics", "class_score,kid", "--quiet"]
    assert main(["evaluate", "--samples", "x.npy", "--reference", "y.npy", *chosen]) == 0
    record = only_record()
    digests = {"lenet-mnist@a24bccc1": 0, "lenet-fashion_mnist@78f260ff": 1}
    assert [s.name for s in record.scores] == [f"{m}[{net}]" for net in digests for m in ("class_score", "kid")]
    for name in digests:
        expected = from_log_probs(classifier(name.partition("@")[0])(x))
        assert next(s for s in record.scores if s.name == f"class_score[{name}]").value == pytest.approx(expected)


def test_how_samples_are_kept_changes_nothing(tmp_path: Path) -> None:
    x = noise(80)
    for i, each in enumerate(x):
        Path("png").mkdir(exist_ok=True)
        Image.fromarray((each[0].double() * 255 / 16).round().to(torch.uint8).numpy()).save(f"png/{i:03}.png")
    save_file({"samples": x.flip(0).contiguous()}, "reversed.safetensors")
    found = []
    for name in (keep(x), "png", "reversed.safetensors"):
        assert main([*DIGITS, "--samples", name, "--output", f"out/{name}"]) == 0
        found.append([(s.name, s.value, s.stderr, s.protocol) for s in only_record(f"out/{name}").scores])
    assert found[0] == found[1] == found[2]  # to the bit
    assert not Path("runs").exists()


def test_a_metric_does_not_depend_on_what_else_is_asked() -> None:
    x = keep(noise(80))
    assert main([*DIGITS, "--samples", x, "--metrics", "kid,recall", "--output", "both"]) == 0
    assert main([*DIGITS, "--samples", x, "--metrics", "recall", "--output", "one"]) == 0
    assert only_record("both").scores[1] == only_record("one").scores[0]
    assert main([*DIGITS, "--samples", x, "--metrics", "recall", "--output", "again"]) == 0
    assert only_record("again").config == only_record("one").config


def test_n_is_a_seeded_choice() -> None:
    x = keep(noise(200))
    found = {}
    for n, seed in ((100, 0), (100, 1), (200, 0)):
        target = f"{n}-{seed}"
        arguments = ["--n", str(n), "--seed", str(seed), "--metrics", "fd", "--output", target]
        assert main([*DIGITS, "--samples", x, *arguments]) == 0
        record = only_record(target)
        found[n, seed] = (record.config["samples_sha256"], record.scores[0].n)
    assert [n for _, n in found.values()] == [100, 100, 200]
    assert len({digest for digest, _ in found.values()}) == 3


def test_features_that_were_kept_give_the_same_scores(capsys: Capture) -> None:
    x = keep(noise(90))
    assert main([*DIGITS, "--samples", x, "--output", "first", "--keep-features"]) == 0
    kept = "first/features-raw-pixels.safetensors"
    assert load_file(kept)["features"].shape == (90, 64)
    assert main([*DIGITS, "--samples", kept, "--output", "second"]) == 0
    capsys.readouterr()
    assert [s.value for s in only_record("second").scores] == [s.value for s in only_record("first").scores]
    reference = bank(raw_pixels((1, 8, 8), 17), load("digits").test.x, source="digits", split="test")
    samples.write_features(reference, Path("reference.safetensors"))
    assert main(["evaluate", "--samples", kept, "--reference", "reference.safetensors", "--output", "third"]) == 0
    assert [s.value for s in only_record("third").scores] == [s.value for s in only_record("first").scores]


def test_a_folder_of_ones_own_as_the_reference() -> None:
    x, y = keep(noise(80, levels=256)), keep(noise(90, seed=1, levels=256), "y.npy")
    assert main(["evaluate", "--samples", x, "--reference", y, "--network", "raw-pixels", "--quiet"]) == 0
    record = only_record()
    assert list(record.data_sha256) == ["y.npy"]
    assert "y.npy" in record.scores[0].protocol


def test_how_floats_were_read_is_noted_and_changes_no_protocol(capsys: Capture) -> None:
    for x, out in ((noise(80).float() / 16, "floats"), (noise(80), "codes")):
        assert main([*DIGITS, "--samples", keep(x), "--metrics", "kid", "--output", out]) == 0
    floats, codes = only_record("floats"), only_record("codes")
    assert floats.scores == codes.scores
    said = "floats in [0, 1], rounded to the nearest of 17 codes"
    assert floats.config["notes"] == [said]
    assert codes.config["notes"] == []
    assert f"note: {said}." in capsys.readouterr().out


def test_what_files_lost_stands_in_the_protocol() -> None:
    Path("jpg").mkdir()
    for i, each in enumerate(noise(20, levels=256)):
        Image.fromarray(each[0].numpy()).save(f"jpg/{i}.jpg")
    assert main([*DIGITS, "--samples", "jpg", "--metrics", "kid"]) == 0
    assert "compression alone changes scores" in only_record().scores[0].protocol


def test_samples_that_are_what_they_are_compared_with_are_counted(capsys: Capture) -> None:
    data = load("digits")
    x = torch.cat([noise(90), data.test.x[:6], data.train.x[:4], noise(3)])
    assert main([*DIGITS, "--samples", keep(x), "--metrics", "kid", "--output", "all"]) == 0
    record = only_record("all")
    assert "6 of 103 samples are images of the reference" in record.scores[0].protocol
    assert "6 of 103 samples are images of the reference" in record.config["notes"]
    assert "4 of 103 samples are training images of digits" in record.config["notes"]
    assert "3 of 103 samples repeat another one to the bit" in record.config["notes"]
    assert "note: 4 of 103 samples are training images of digits." in capsys.readouterr().out
    assert main([*DIGITS, "--samples", keep(noise(90)), "--metrics", "kid", "--output", "none"]) == 0
    none = only_record("none")
    assert "images of the reference" not in none.scores[0].protocol
    assert none.config["notes"] == []


def test_features_that_are_those_of_the_reference_are_counted() -> None:
    for name, rows in (("a", slice(0, 60)), ("b", slice(40, 120))):
        made = bank(raw_pixels((1, 8, 8), 17), load("digits").test.x[rows], source="", split="")
        samples.write_features(made, Path(f"{name}.safetensors"))
    chosen = ["--samples", "a.safetensors", "--reference", "b.safetensors", "--metrics", "kid"]
    assert main(["evaluate", *chosen, "--quiet"]) == 0
    assert "20 of 60 samples have the features of an example of the reference" in only_record().scores[0].protocol


def test_an_error_of_0_is_none(capsys: Capture) -> None:
    x = keep(noise(1).expand(80, 1, 8, 8))
    assert main([*DIGITS, "--samples", x, "--metrics", "kid,precision,copies,c2st,recall,coverage"]) == 0
    record = only_record()
    found = {score.name.partition("[")[0]: (score.value, score.stderr) for score in record.scores}
    assert {name: found[name] for name in ("precision", "copies", "c2st")} == {
        "precision": (0, None),
        "copies": (0, None),
        "c2st": (1, None),
    }
    assert all(stderr is None for _, stderr in found.values())
    out = capsys.readouterr().out
    shown = {line.split("[")[0]: line for line in out.splitlines() if "share" in line or "MMD" in line}
    none_of_80 = (1 - 0.0368) ** 80  # the probability, where the share is that large
    assert none_of_80 == pytest.approx(0.05, rel=0.01)
    assert "(≤ 0.037 at 95 %)" in shown["precision"]
    assert "(≤ 0.037 at 95 %)" in shown["copies"]
    assert "(≥ 0.9632 at 95 %)" in shown["c2st"]
    assert "(error unknown)" in shown["kid"]
    assert "(error unknown)" in shown["recall"]  # its examples are not independent
    assert "79 of 80 samples repeat another one" in " ".join(record.config["notes"])
    assert "these samples show no error, which does not make it 0" in out


def test_a_coverage_is_shown_beside_what_data_would_have() -> None:
    assert main([*DIGITS, "--samples", keep(noise(150)), "--metrics", "coverage"]) == 0
    expected = f"{expected_coverage(300, 150):.3f}"
    assert [note for note in only_record().config["notes"] if expected in note and "coverage" in note]


def test_averaged_weights_are_another_evaluation() -> None:
    x = keep(noise(80))
    for more in ([], ["--ema"]):
        assert main([*DIGITS, "--samples", x, "--metrics", "kid", *more]) == 0
    raw, ema = sorted(
        (Record.load(p.parent) for p in Path("runs").rglob("record.json")), key=lambda r: r.scores[0].weights
    )[::-1]
    assert (raw.scores[0].weights, ema.scores[0].weights) == ("raw", "ema")
    assert (raw.config["weights"], ema.config["weights"]) == ("raw", "ema")
    assert raw.run != ema.run
    assert ema.scores[0].protocol == f"{raw.scores[0].protocol}; averaged weights"


def test_the_split_of_ones_own_reference_is_what_is_said_of_it(capsys: Capture) -> None:
    x, y = keep(noise(80, levels=256)), keep(noise(90, seed=1, levels=256), "y.npy")
    chosen = ["evaluate", "--samples", x, "--reference", y, "--network", "raw-pixels", "--metrics", "kid", "--quiet"]
    assert main([*chosen, "--output", "a", "--keep-features"]) == 0
    assert only_record("a").scores[0].split == only_record("a").config["split"] == "not said"
    assert "y.npy, split not said" in only_record("a").scores[0].protocol
    assert samples.read_features(Path("a/features-raw-pixels.safetensors")).split == ""
    assert main([*chosen, "--output", "b", "--split", "val"]) == 0
    assert only_record("b").scores[0].split == "val"
    save_file({"samples": noise(90, seed=1, levels=256)}, "z.safetensors", metadata={"split": "val"})
    chosen[4] = "z.safetensors"
    assert main([*chosen, "--output", "c"]) == 0
    assert only_record("c").scores[0].split == "val"
    assert main([*chosen, "--output", "d", "--split", "test"]) == 2
    assert "of the split 'val', and --split is 'test'" in capsys.readouterr().err


def test_pixels_as_features_of_the_reference_take_the_samples_shape() -> None:
    codes = noise(90, seed=1, levels=256)
    samples.write_features(bank(raw_pixels((1, 8, 8)), codes, source="mine", split=""), Path("f.safetensors"))
    x = keep(noise(80, levels=256))
    keep(codes, "y.npy")
    for reference, out in (("f.safetensors", "a"), ("y.npy", "b")):
        chosen = ["--samples", x, "--reference", reference, "--metrics", "kid", "--network", "raw-pixels"]
        assert main(["evaluate", *chosen, "--output", out, "--quiet"]) == 0
    assert only_record("a").scores[0].value == only_record("b").scores[0].value
    assert "256 levels" in only_record("a").config["notes"][0]


def test_the_training_split_is_compared_with_only_when_it_is_meant(capsys: Capture) -> None:
    x = keep(noise(80))
    assert main([*DIGITS, "--samples", x, "--split", "train"]) == 2
    assert "rewards a model that memorises it" in capsys.readouterr().err
    assert not Path("runs").exists()
    assert main([*DIGITS, "--samples", x, "--split", "train", "--allow-train", "--metrics", "kid"]) == 0
    (score,) = only_record().scores
    assert score.split == "train"
    assert "the training split, as was asked for" in score.protocol


def test_json_is_the_record(capsys: Capture) -> None:
    assert main([*DIGITS, "--samples", keep(noise(80)), "--metrics", "kid", "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert json.loads(Path(said["record"]).read_text())["scores"] == said["scores"]


def test_features_of_data_are_kept_and_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    class Halves:
        name, dims, calls = "halves@12345678", 32, 0

        def __call__(self, codes: Tensor) -> Tensor:
            Halves.calls += len(codes)
            return codes.flatten(1)[:, ::2].double()

    x = load("digits").test.x
    first = evaluating._cached(x, "a", Halves(), "digits", "test", False)
    again = evaluating._cached(x, "a", Halves(), "digits", "test", False)
    assert Halves.calls == len(x)
    assert torch.equal(first.x, again.x)
    assert (again.split, again.source) == ("test", "digits")
    evaluating._cached(x, "other content", Halves(), "digits", "test", False)
    assert Halves.calls == 2 * len(x)
    kept, _ = sorted((tmp_path / "cache" / "features").iterdir())
    for path in (tmp_path / "cache" / "features").iterdir():
        path.write_bytes(kept.read_bytes()[:100])
    assert torch.equal(evaluating._cached(x, "a", Halves(), "digits", "test", False).x, first.x)
    assert Halves.calls == 3 * len(x)


def test_the_list_of_metrics_takes_no_torch(there: Path, capsys: Capture) -> None:
    code = (
        "import sys; from referee.cli import main; status = main(['evaluate', '--metrics', 'list']); "
        "sys.exit('torch' in sys.modules or status)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in metrics.OF_SAMPLES)


def test_the_catalogue_and_the_schema_agree() -> None:
    assert {name for group in metrics.GROUPS for name in group.names} == set(metrics.OF_SAMPLES)
    for name, meaning in metrics.OF_SAMPLES.items():
        known = find_metric(f"{name}[lenet-mnist@a24bccc1]")
        assert known is not None
        assert (known.unit, known.direction) == (meaning.unit, meaning.direction)
        assert find_metric(name) is None
    for name, meaning in metrics.OTHERS.items():
        known = find_metric(name)
        assert known is not None
        assert (known.unit, known.direction) == (meaning.unit, meaning.direction)


def test_the_guide_names_every_metric() -> None:
    text = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text()
    rows = [line.split("|")[1:3] for line in text.partition("## The metrics")[2].splitlines() if line.startswith("| `")]
    said = {name: better.strip() for names, better in rows for name in re.findall(r"`(\w+)`", names)}
    assert said == {name: metrics.better(name) for name in metrics.OF_SAMPLES} | {"own": ""}
    assert {name for name in metrics.OF_SAMPLES if metrics.better(name).startswith("near")} == set(metrics.NEAR)


# -- A paper's model --------------------------------------------------------------------------------------------------


def weights(bias: float = 0.0, size: int = 4, name: str = "w.safetensors") -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    save_file({"bias": torch.full((size,), bias)}, name)
    return name


def test_a_papers_own_evaluation_of_weights(capsys: Capture) -> None:
    chosen = ["--preset", "laptop", "--run", "b", "--quiet"]
    assert main(["evaluate", "toy", "--weights", weights(0.5, 5), *chosen]) == 0
    record = only_record()
    assert (record.scores[0].name, record.scores[0].value) == ("nll", 2.5)
    assert record.config["model"] == {"dataset": "digits", "hidden": [5, 6], "seed": 0}
    assert record.config["run"] == "laptop/b"
    assert record.project == "toy"
    assert record.parameters == 5
    assert record.data_sha256 == {"digits": load("digits").sha256}


def test_the_configuration_beside_the_weights_is_theirs() -> None:
    beside = Path("runs/toy/laptop/b")
    path = weights(0.5, 5, str(beside / "weights.safetensors"))
    (beside / "config.json").write_text('{"dataset": "digits", "hidden": [5, 6], "seed": 0}')
    assert main(["evaluate", "toy", "--weights", path, "--quiet", "--output", "out"]) == 0
    record = only_record("out")
    assert record.config["run"] == "laptop/b"
    assert record.scores[0].value == 2.5
    assert sorted(p.name for p in beside.iterdir()) == ["config.json", "weights.safetensors"]


CONFIG = {"dataset": "digits", "hidden": [5, 6], "seed": 0}


def left_by_a_run(folder: Path, kept: str = "raw", config: Any = CONFIG) -> str:
    """A folder with weights, their training's log of two lines, their configuration and, last, the record."""
    path = weights(-0.5, 5, str(folder / "weights.safetensors"))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    score = Score("nll", 2.5, 0.5, 8, "nats", "bound", "test", kept, "made up")  # type: ignore[arg-type]
    about: dict[str, Any] = {"code_digest": "", "git_sha": "", "data_sha256": {}, "environment": {}, "hardware": {}}
    Record("toy", "laptop", "b", config, [score], 0, 2, **about, wall_s=1.0, finished="").save(folder)
    return path


def measured_by(path: str) -> tuple[float, list[str]]:
    assert main(["evaluate", "toy", "--weights", path, "--quiet", "--output", "out"]) == 0
    record = only_record("out")
    return record.scores[0].value, record.config["notes"]


def test_the_course_of_training_is_read_where_it_is_that_of_the_weights() -> None:
    folder = Path("runs/toy/laptop/b")
    path = left_by_a_run(folder)
    assert measured_by(path) == (-2.5 + 2, [])
    record = folder / "record.json"
    later = record.stat().st_mtime_ns + 10**9
    for changed in ("weights.safetensors", "metrics.jsonl"):
        left_by_a_run(folder)
        os.utime(folder / changed, ns=(later, later))
        value, (note,) = measured_by(path)
        assert value == -2.5, changed
        assert "metrics.jsonl beside the weights was not used" in note
    left_by_a_run(folder, config=CONFIG | {"seed": 1})
    assert measured_by(path)[0] == -2.5  # the record is of another run
    left_by_a_run(folder)
    shutil.copy(path, folder / "others.safetensors")
    assert measured_by(str(folder / "others.safetensors"))[0] == -2.5
    left_by_a_run(Path("elsewhere"))
    assert measured_by("elsewhere/weights.safetensors")[0] == -2.5
    record.unlink()
    assert measured_by(path)[0] == -2.5


def test_a_published_course_of_training_is_that_of_the_weights_as_committed(here: Path) -> None:
    folder = Path("projects/toy/results/laptop/c")
    path = left_by_a_run(folder)

    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)

    assert measured_by(path)[0] == -2.5  # not committed
    git("init")
    git("add", "--force", str(folder))
    assert measured_by(path)[0] == -2.5
    git("commit", "-m", "A run", "--", str(folder))
    assert measured_by(path) == (-2.5 + 2, [])
    weights(-0.25, 5, path)
    assert measured_by(path)[0] == -1.25
    git("commit", "-a", "-m", "Others")
    assert measured_by(path)[0] == -1.25 + 2


def test_averaged_or_not_is_what_the_record_says(capsys: Capture) -> None:
    path = left_by_a_run(Path("runs/toy/laptop/b"))
    chosen = ["evaluate", "toy", "--weights", path, "--quiet", "--metrics", "kid", "--n", "20", "--output", "out"]
    assert main([*chosen, "--ema"]) == 2
    assert "the record beside weights.safetensors has scores of raw weights alone" in capsys.readouterr().err
    assert main([*chosen, "--ema", "--preset", "laptop", "--run", "b"]) == 2
    assert main(chosen) == 0
    assert only_record("out").scores[0].weights == "raw"
    left_by_a_run(Path("runs/toy/laptop/b"), "ema")
    assert main(chosen) == 0
    assert only_record("out").scores[0].weights == "ema"


def test_weights_that_are_not_finite_are_refused(capsys: Capture) -> None:
    for value in (float("nan"), float("inf")):
        save_file({"bias": torch.tensor([0.0, value, 1.0, value])}, "w.safetensors")
        for wanted in ("own", "kid"):
            chosen = ["--preset", "laptop", "--run", "a", "--metrics", wanted]
            assert main(["evaluate", "toy", "--weights", "w.safetensors", *chosen]) == 2
            said = capsys.readouterr().err
            assert "w.safetensors: the tensor 'bias' holds NaN or infinity in 2 of 4 places" in said
    assert not Path("runs").exists()


def test_weights_of_another_model_are_told_by_a_few_names(capsys: Capture) -> None:
    save_file({f"layers.{i}": torch.zeros(2) for i in range(40)} | {"bias": torch.zeros(4)}, "w.safetensors")
    assert main(["evaluate", "toy", "--weights", "w.safetensors", "--preset", "laptop", "--run", "b"]) == 2
    said = capsys.readouterr().err
    assert len(said) < 500
    assert "40 not the model's (layers.0, layers.1, layers.10, …)" in said
    assert "1 of another shape (bias (4,), not (5,))" in said
    assert "--preset smoke | laptop --run NAME" in said


def test_draws_of_a_model_are_measured() -> None:
    chosen = ["--preset", "laptop", "--run", "a", "--n", "130", "--quiet", "--metrics"]
    assert main(["evaluate", "toy", "--weights", weights(), *chosen, "own,fd", "--output", "out"]) == 0
    record = only_record("out")
    assert [s.name for s in record.scores] == ["nll", "fd[raw-pixels]"]
    assert record.scores[1].n == 130
    assert "; " not in record.scores[1].protocol.partition("resamples of the samples")[2]  # nothing else decides it
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.rand(k, 64, generator=generator) for k in (100, 30)]).view(-1, 1, 8, 8)
    codes = (x.double() * 16).round().to(torch.uint8)
    features = raw_pixels((1, 8, 8), 17)
    expected = frechet_distance(Moments().add(features(codes)), Moments().add(features(load("digits").test.x)))
    assert record.scores[1].value == pytest.approx(expected, rel=1e-9)


def test_a_project_may_say_how_samples_are_drawn(here: Path) -> None:
    path = here / "projects" / "toy" / "toy.py"
    path.write_text(
        MODEL + "\n\ndef generate(config, model, n, *, levels, generator):\n"
        "    return (levels - 10 + torch.arange(n) % 9).view(-1, 1, 1, 1).expand(n, 1, 8, 8).to(torch.uint8)\n"
    )
    chosen = ["--preset", "laptop", "--run", "a", "--n", "80", "--quiet", "--metrics", "kid", "--keep-features"]
    assert main(["evaluate", "toy", "--weights", weights(), *chosen, "--output", "out"]) == 0
    assert sorted(
        set(load_file("out/features-raw-pixels.safetensors")["features"].mul(16).round().flatten().tolist())
    ) == [*range(7, 16)]


def test_how_draws_were_made_stands_in_the_protocol(here: Path) -> None:
    path = here / "projects" / "toy" / "toy.py"
    path.write_text(MODEL + '\n\ndef sampling(config):\n    return f"chains of {config.hidden[0]} steps"\n')
    chosen = ["--preset", "laptop", "--run", "b", "--n", "20", "--quiet", "--metrics", "kid,own", "--output", "out"]
    assert main(["evaluate", "toy", "--weights", weights(size=5), *chosen]) == 0
    own, kid = only_record("out").scores
    assert "chains of 5 steps" in kid.protocol
    assert own.protocol == "digits, made up"


def test_the_papers_own_scores_stand_beside_those_of_draws(here: Path, capsys: Capture) -> None:
    path = here / "projects" / "toy" / "toy.py"
    path.write_text(
        MODEL.replace('"nll", value', '"kid[raw-pixels]", value').replace('"bound", "test"', '"bound", "train"')
    )
    chosen = ["--preset", "laptop", "--run", "a", "--n", "20", "--quiet", "--metrics", "own,kid", "--output", "out"]
    assert main(["evaluate", "toy", "--weights", weights(), *chosen]) == 0
    record = only_record("out")
    assert [(s.name, s.split, s.n) for s in record.scores] == [
        ("kid[raw-pixels]", "train", 8),
        ("kid[raw-pixels]", "test", 20),
    ]
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split()[:3] for line in lines if line.startswith("kid[raw-pixels] ") and "±" in line]
    assert rows == [["kid[raw-pixels]", "own", "train"], ["kid[raw-pixels]", "metric", "test"]]
    assert "kid[raw-pixels] (own): digits, made up" in lines
    assert main(["evaluate", "toy", "--weights", weights(), *chosen, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["own"] == 1


@pytest.mark.parametrize(
    "said",
    [["--n", "20"], ["--split", "val"], ["--dataset", "digits"], ["--network", "raw-pixels"], ["--keep-features"]],
)
def test_own_alone_takes_nothing_that_is_for_metrics_of_draws(said: list[str], capsys: Capture) -> None:
    chosen = ["--preset", "laptop", "--run", "a", "--metrics", "own"]
    assert main(["evaluate", "toy", "--weights", weights(), *chosen, *said]) == 2
    assert f"evaluate: {said[0]}: of no effect on 'own'" in capsys.readouterr().err


def test_nothing_is_drawn_that_cannot_be_measured(here: Path, capsys: Capture) -> None:
    path = here / "projects" / "toy" / "toy.py"
    path.write_text(
        MODEL.replace("        return torch.rand", "        raise AssertionError\n        return torch.rand")
    )
    chosen = ["--weights", weights(), "--preset", "laptop", "--run", "a", "--quiet", "--metrics"]
    for more, said in {
        ("fd", "--n", "60"): "fd at least 65",
        ("copying", "--split", "train", "--allow-train"): "were held out",
        ("class_score",): "no classifier 'raw-pixels'",
        ("kid", "--network", "lenet-mnist"): "takes images (B, 1, 28, 28)",
    }.items():
        assert main(["evaluate", "toy", *chosen, *more]) == 2
        assert said in capsys.readouterr().err


def test_a_model_that_cannot_be_drawn_from(here: Path, capsys: Capture) -> None:
    path = here / "projects" / "toy" / "toy.py"
    path.write_text(MODEL.replace("def sample(self, n, *, generator)", "def sample(self, n, masks, *, generator)"))
    chosen = ["--preset", "laptop", "--run", "a", "--metrics", "kid"]
    assert main(["evaluate", "toy", "--weights", weights(), *chosen]) == 2
    assert "toy does not say how samples are drawn" in capsys.readouterr().err
    path.write_text(MODEL.replace("torch.rand(n, 64", "-torch.rand(n, 64"))
    assert main(["evaluate", "toy", "--weights", weights(), *chosen, "--quiet"]) == 2
    assert "draws of laptop/a: floats from -1 to " in capsys.readouterr().err
    assert not Path("runs").exists()


def test_the_data_set_of_a_paper_is_the_default() -> None:
    assert main(["evaluate", "toy", "--samples", keep(noise(80)), "--metrics", "kid", "--quiet"]) == 0
    record = only_record()
    assert (record.project, list(record.data_sha256)) == ("toy", ["digits"])


# -- Mistakes ---------------------------------------------------------------------------------------------------------


def png(path: str, *size: int) -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros(size, np.uint8)).save(path)


def mixed() -> str:
    png("mixed/a.png", 8, 8)
    png("mixed/b.png", 8, 9)
    return "mixed"


def corrupt() -> str:
    Path("corrupt").mkdir()
    for i, each in enumerate(noise(70, levels=256)):
        Image.fromarray(each[0].numpy()).save(f"corrupt/{i}.png")
    whole = Path("corrupt/3.png").read_bytes()
    Path("corrupt/3.png").write_bytes(whole[: len(whole) // 2])
    return "corrupt"


def colour() -> str:
    png("colour/a.png", 8, 8, 3)
    return "colour"


def empty() -> str:
    Path("empty").mkdir()
    return "empty"


def nans() -> str:
    x = noise(80).float() / 16
    x[5] = float("nan")
    return keep(x)


def of_split() -> str:
    save_file({"samples": noise(80)}, "val.safetensors", metadata={"split": "val"})
    return "val.safetensors"


def other_network() -> str:
    save_file({"features": torch.randn(90, 64)}, "f.safetensors", metadata={"network": "other@12345678"})
    return "f.safetensors"


def pickled() -> str:
    np.save("p.npy", np.array([{}], dtype=object), allow_pickle=True)
    return "p.npy"


@pytest.mark.parametrize(
    ("make", "arguments", "said"),
    [
        (mixed, [], ["1 are 8x8 grey (as a.png), 1 are 8x9 grey (as b.png)"]),
        (corrupt, [], ["corrupt: 3.png: is damaged"]),
        (colour, [], ["the samples are RGB, the images of digits are grey"]),
        (empty, [], ["this folder holds no image"]),
        (nans, [], ["x.npy: 64 values in 1 of 80 samples are NaN"]),
        (pickled, [], ["is a pickle, or holds one, and is never loaded"]),
        (of_split, [], ["compared with the split 'val'; that of the reference is 'test'"]),
        (other_network, ["--network", "raw-pixels"], ["other@12345678", "raw-pixels", "do not compare"]),
        (
            lambda: keep(noise(50)),
            ["--metrics", "fd,kid"],
            ["50 samples are too few: fd at least 65 (features of 64 dimensions)", "or leave it to --metrics kid"],
        ),
        (lambda: keep(noise(50)), ["--n", "60"], ["holds 50 samples, --n 60 are asked for"]),
        (lambda: keep(noise(50)), ["--n", "0"], ["at least one sample"]),
        (lambda: keep(noise(80)), ["--metrics", "kdi"], ["no metric 'kdi'. Did you mean 'kid'?"]),
        (lambda: keep(noise(80)), ["--metrics", ","], ["--metrics names none"]),
        (lambda: keep(noise(80)), ["--metrics", "own"], ["it takes --weights"]),
        (lambda: keep(noise(80)), ["--metrics", "class_score"], ["there is no classifier 'raw-pixels'", "lenet-mnist"]),
        (lambda: keep(noise(80)), ["--network", "raw-pixel"], ["Did you mean 'raw-pixels'?"]),
        (lambda: keep(noise(80)), ["--network", "lenet-mnist"], ["lenet-mnist@a24bccc1 takes images (B, 1, 28, 28)"]),
        (lambda: keep(noise(80)), ["--dataset", "digit"], ["no data set 'digit' of images. Did you mean 'digits'?"]),
        (
            lambda: keep(noise(80)),
            ["--dataset", "nosuch"],
            ["no data set 'nosuch' of images. There are: binarized_mnist, "],
        ),
        (lambda: keep(noise(80)), ["--dataset", "uci_dna"], ["no data set 'uci_dna' of images."]),
        (lambda: keep(noise(80)), ["--device", "gpu"], ["Unknown device 'gpu'"]),
        (lambda: keep(noise(80)), ["--output", "x.npy"], ["x.npy is a file; name a folder"]),
        (lambda: keep(noise(80)), ["--weights", "w"], ["either --samples DIR|FILE or --weights FILE"]),
        (lambda: keep(noise(80)), ["--run", "a"], ["with --samples they mean nothing"]),
        (lambda: keep(noise(80)), ["--split", "train", "--allow-train", "--metrics", "copying"], ["were held out"]),
        (lambda: "gone", [], ["gone: there is no such folder or file"]),
    ],
)
def test_a_mistake_gets_one_message_and_leaves_nothing(
    make: Callable[[], str], arguments: list[str], said: list[str], capsys: Capture
) -> None:
    assert main([*DIGITS, "--samples", make(), *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("referee: ")
    assert all(part in shown.err for part in said), shown.err
    assert not Path("runs").exists()


TO_WEIGHTS = ("toy", "--weights", "w.safetensors", "--preset", "laptop", "--run", "a")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "either --samples DIR|FILE or --weights FILE"),
        (["--weights", "w"], "--weights are a paper's; name it"),
        (["--samples", "x.npy"], "compared with what? Name --dataset NAME"),
        (["toy", "--weights", "w", "--preset", "laptop"], "go together"),
        (["toy", "--weights", "gone"], "gone: there are no weights here"),
        (["toy", "--weights", "w.safetensors"], "There is no config.json beside them"),
        (["toy", "--weights", "gone", "--preset", "laptop", "--run", "a"], "gone: there are no weights here"),
        (["toy", "--weights", "x.npy", "--preset", "laptop", "--run", "a"], "not a safetensors file"),
        (["toy", "--weights", "w.safetensors", "--preset", "laptop", "--run", "b"], "weights of another model"),
        (["toy", "--weights", "w.safetensors", "--preset", "laptop", "--run", "c"], "has no run 'c'"),
        (["toy", "--weights", "old/w.safetensors"], "is no configuration of toy as it is now"),
        (["toy", "--weights", "old/w.safetensors"], "which configuration of toy they are for: --preset smoke | laptop"),
        (["tox", "--samples", "x.npy"], "unknown paper 'tox'"),
        (["--samples", "x.npy", "--reference", "f.safetensors"], "rewards a model that memorises it"),
        (["--samples", "x.npy", "--reference", "f.safetensors", "--split", "val"], "'train', and --split is 'val'"),
        (
            [*TO_WEIGHTS, "--metrics", "kid", "--reference", "p.safetensors"],
            "features of pixels do not say what shape",
        ),
    ],
)
def test_mistakes_about_papers_and_references(arguments: list[str], said: str, capsys: Capture) -> None:
    keep(noise(80))
    weights()
    weights(name="old/w.safetensors")
    Path("old/config.json").write_text('{"dataset": "digits", "forgotten": 3}')
    save_file({"features": torch.randn(90, 64)}, "f.safetensors", metadata={"network": "n", "split": "train"})
    save_file({"features": torch.randn(90, 64)}, "p.safetensors", metadata={"network": "raw-pixels"})
    assert main(["evaluate", *arguments]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert not Path("runs").exists()


def test_data_sets_without_images_are_not_offered(here: Path, capsys: Capture) -> None:
    path = here / "projects" / "toy" / "toy.py"
    path.write_text(MODEL.replace('"b": Config(hidden=(5, 6))', '"b": Config("ring8"), "c": Config("mnist")'))
    assert main(["evaluate", "toy", "--samples", keep(noise(80))]) == 2
    assert "choose: --dataset digits | mnist." in capsys.readouterr().err
    chosen = ["--weights", weights(), "--preset", "laptop", "--run", "b", "--metrics", "kid"]
    assert main(["evaluate", "toy", *chosen]) == 2
    said = capsys.readouterr().err
    assert "no data set 'ring8' of images." in said
    assert "what the paper measures of laptop/b: --metrics own." in said


def test_a_question_in_a_note_ends_with_its_mark(capsys: Capture) -> None:
    chosen = ["--samples", keep(noise(20, levels=2)), "--reference", keep(noise(20, 1, 256), "y.npy"), "--quiet"]
    assert main(["evaluate", *chosen, "--network", "raw-pixels", "--metrics", "kid"]) == 0
    assert "were floats cut off to whole numbers?\n" in capsys.readouterr().out


def test_a_data_set_that_cannot_be_had_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from common import data
    from common.errors import DataError

    def load(name: str) -> Any:
        raise DataError(f"{name} could not be had.")

    monkeypatch.setattr(data, "load", load)
    assert main(["evaluate", "--dataset", "mnist", "--samples", keep(noise(80))]) == 2
    assert "mnist could not be had" in capsys.readouterr().err


def test_interrupted_it_leaves_nothing(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(metrics, "measure", stop)
    assert main([*DIGITS, "--samples", keep(noise(80))]) == 130
    assert not Path("runs").exists()


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    Path("file").write_text("")
    assert main([*DIGITS, "--samples", keep(noise(80)), "--metrics", "kid", "--output", "file/below"]) == 2
    assert "cannot be written to" in capsys.readouterr().err


def test_scratch_files_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    assert main(["evaluate", "toy", "--weights", weights(), "--preset", "laptop", "--run", "a", "--quiet"]) == 0
    assert list(scratch.iterdir()) == []
    shutil.rmtree("runs")
