"""Records go out and come back the same; what is wrong with one is said."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from common import records
from common.errors import RecordError
from common.records import Record, Score


def a_score(**changes):
    fields = {
        "name": "nll",
        "value": 86.5,
        "stderr": 0.25,
        "n": 10_000,
        "unit": "nats",
        "kind": "bound",
        "split": "test",
        "weights": "raw",
        "protocol": "L_5000",
    }
    return Score(**{**fields, **changes})


def a_record(**changes):
    fields = {
        "project": "iwae",
        "preset": "laptop",
        "run": "iwae-1l-k50",
        "config": {"k": 50, "stochastic": [50]},
        "scores": [a_score(), a_score(name="active_units", stderr=None, kind="exact")],
        "seed": 0,
        "steps": 100,
        "code_digest": "c0de",
        "git_sha": "5ha",
        "data_sha256": {"dynamic_mnist": "da7a"},
        "environment": {"torch": "2.13.0"},
        "hardware": {"cpu": "a", "cores": 2},
        "wall_s": 12.5,
        "finished": "2026-11-21T00:00:00+00:00",
    }
    return Record(**{**fields, **changes})


def test_a_record_comes_back_as_it_went(tmp_path):
    record = a_record()
    record.save(tmp_path)
    assert Record.load(tmp_path) == record
    assert record.score("nll").value == 86.5
    assert record.score("elbo") is None
    assert list(tmp_path.iterdir()) == [tmp_path / "record.json"]  # nothing half-written beside it


def test_results_are_found_from_small_to_large(tmp_path):
    for preset, run in (("paper", "b"), ("smoke", "b"), ("smoke", "a"), ("laptop", "a")):
        a_record(preset=preset, run=run).save(tmp_path / preset / run)
    (tmp_path / "smoke" / "unfinished").mkdir()
    found = records.results(tmp_path)
    assert list(found) == ["smoke", "laptop", "paper"]
    assert list(found["smoke"]) == ["a", "b"]


def test_replicates_are_found_own_seed_first_then_by_number(tmp_path):
    for run, seed in (("a", 3), ("a/seed-10", 10), ("a/seed-2", 2), ("b/seed-1", 1), ("c", 0)):
        a_record(run=run[0], seed=seed).save(tmp_path / "paper" / run)
    a_record().save(tmp_path / "smoke" / "d")
    for name in (".a.outdated/seed-1", "a/seed-02", "a/seed-x", "a/again", "a/seed-1/seed-2"):
        a_record().save(tmp_path / "paper" / name)  # put aside, or no such folder
    found = records.replicates(tmp_path)
    assert list(found) == ["smoke", "paper"]
    seeds = {run: [r.seed for r in of_run] for run, of_run in found["paper"].items()}
    assert seeds == {"a": [3, 2, 10], "b": [1], "c": [0]}
    assert records.results(tmp_path)["paper"]["a"].seed == 3
    assert "b" not in records.results(tmp_path)["paper"]


def test_a_folder_of_a_seed_is_named_in_one_way():
    assert [records.folder_seed(records.seed_folder(seed)) for seed in (0, 7, 2**32 - 1)] == [0, 7, 2**32 - 1]
    for name in ("seed", "seed-", "seed-01", "seed--1", "seed-1.5", "seed-1 ", "Seed-1", "seed-²", "seed-1\n"):
        assert records.folder_seed(name) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("seed"), "'seed' is missing"),
        (lambda r: r.pop("scores"), "'scores' is missing"),
        (lambda r: r.update(colour="red"), "unknown field 'colour'"),
        (lambda r: r.update(steps="many"), "'steps' is 'many', expected int"),
        (lambda r: r.update(wall_s=True), "'wall_s' is True"),
        (lambda r: r["scores"][0].pop("n"), r"scores\[0\].*'n' is missing"),
        (lambda r: r["scores"][0].update(value="low"), r"scores\[0\].*'value' is 'low'"),
        (lambda r: r["scores"][0].update(kind="guess"), "'guess' is not one of exact, bound, estimate"),
        (lambda r: r["scores"][0].update(n=0), "n=0"),
        (lambda r: r["scores"][0].update(value=1e300), r"below 1e\+12"),
        (lambda r: r["scores"][0].update(stderr=-0.1), "cannot be negative"),
        (lambda r: r["scores"][0].update(stderr=float("nan")), "finite"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(tmp_path, change, message):
    raw = dataclasses.asdict(a_record())
    change(raw)
    (tmp_path / "record.json").write_text(json.dumps(raw))
    with pytest.raises(RecordError, match=message):
        Record.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\x00"])
def test_a_record_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(RecordError, match=r"record\.json"):
        Record.load(tmp_path)


def test_a_score_is_finite():
    with pytest.raises(RecordError, match="finite"):
        a_score(value=float("nan"))


def test_metrics_and_examples(tmp_path):
    assert records.read_metrics(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "bound": -2.5}\n{"step": 2, "bound": -1.5}\n')
    assert records.read_metrics(tmp_path)[1] == {"step": 2, "bound": -1.5}
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    with pytest.raises(RecordError, match=r"metrics\.jsonl:2"):
        records.read_metrics(tmp_path)

    assert records.read_examples(tmp_path) == {}
    values = np.arange(5.0)
    records.write_examples(tmp_path, {"nll": values})
    np.testing.assert_array_equal(records.read_examples(tmp_path)["nll"], values.astype(np.float32))
    (tmp_path / "examples.safetensors").write_bytes(b"\x80\x04\x95 a pickle begins like this")
    with pytest.raises(RecordError, match="not a safetensors file"):
        records.read_examples(tmp_path)


def test_reading_records_does_not_import_torch():
    code = "import sys, common.records, common.errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
