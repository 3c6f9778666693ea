"""The conformance table: what a row means, when the kept table is stale, and that its closed forms come out again."""

import importlib
import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.conformance import table
from benchmarks.conformance.__main__ import main
from benchmarks.conformance.metrics import METRICS
from benchmarks.conformance.table import Case, Row, Table, apart, work_out

COSTLY = ("ais", "bdmc")
"""Metrics whose rows take seconds each; tests/common/evaluation has smaller ones."""


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return table.cases()


@pytest.fixture(scope="module")
def kept() -> dict[tuple[str, str, str], Row]:
    return {row.key: row for row in Table.load().rows}


def case(ours: float, value: float, *, package: str = "", differs: str = "", allowed: float = 0.01) -> Case:
    def compute() -> tuple[float, float]:
        return ours, value

    return Case("fd", "some data", "closed form", "a formula", package, "relative", allowed, differs, "", compute)


# -- What a row means --------------------------------------------------------------------------------------------------


def test_a_difference_is_of_the_reference_or_in_its_unit_or_in_errors() -> None:
    assert apart(101.0, 100.0, None, "relative") == pytest.approx(0.01)
    assert apart(-101.0, -100.0, None, "relative") == pytest.approx(0.01)
    assert apart(101.0, 100.0, None, "absolute") == pytest.approx(1.0)
    assert apart(101.0, 100.0, 0.5, "standard errors") == pytest.approx(2.0)
    assert apart(0.0, 0.0, None, "relative") == 0
    assert apart(1e-30, 0.0, None, "relative") == math.inf


@pytest.mark.parametrize(
    ("ours", "differs", "outcome"),
    [
        (1.005, "", "holds"),
        (1.02, "", "fails"),
        (math.nan, "", "fails"),
        (1.02, "Defined otherwise.", "differs"),
        (1.005, "Defined otherwise.", "fails"),  # then the note is wrong
    ],
)
def test_a_row_holds_differs_or_fails(ours: float, differs: str, outcome: str) -> None:
    assert work_out(case(ours, 1.0, differs=differs)).outcome == outcome


def test_a_row_whose_package_is_missing_says_so_and_has_no_values() -> None:
    row = work_out(case(1.0, 1.0, package="no-such-package-at-all"))
    assert (row.outcome, row.ours, row.value, row.difference) == ("not run", None, None, None)


def test_a_row_states_one_limit_and_a_metric_that_there_is() -> None:
    with pytest.raises(ValueError, match="state one of relative, absolute and errors, not 2"):
        table.closed_form("fd", "some data", "a formula", relative=1e-3, absolute=1e-3)
    with pytest.raises(ValueError, match="nonsense is not among METRICS"):
        table.slow("nonsense", "some data", "slowly", relative=1e-3)


# -- When the table is stale -------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code that decides the table, elsewhere."""
    for folder in ("common", "benchmarks/conformance"):
        shutil.copytree(table.ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.safetensors", "*.pyc"))
    return tmp_path


@pytest.mark.parametrize(
    ("path", "old", "new", "stale"),
    [
        ("common/evaluation/frechet.py", "/ (self.n - 1)", "/ self.n", True),
        ("common/evaluation/neighbours.py", "import torch\n", "import torch\nx = 1\n", True),  # imported by a metric
        ("benchmarks/conformance/audio.py", "relative=1e-12", "relative=1e-1", True),
        ("common/evaluation/frechet.py", "Lower is better", "Less is better", False),  # prose
        ("common/training/ema.py", "import torch\n", "import torch\nx = 1\n", False),  # decides no metric
    ],
)
def test_code_that_decides_a_row_makes_the_table_stale(path: str, old: str, new: str, stale: bool, copy: Path) -> None:
    before = table.digests(copy)
    file = copy / path
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")
    said = list(table.complaints(Table(1, "", "", {}, before, []), table.digests(copy)))
    assert said == ([f"{path} changed since the table was made"] if stale else [])


def test_what_fails_or_did_not_run_is_complained_of() -> None:
    rows = [work_out(case(2.0, 1.0)), work_out(case(1.0, 1.0, package="no-such-package"))]
    rows += [work_out(case(1.0, 1.0)), work_out(case(2.0, 1.0, differs="Defined otherwise."))]
    said = list(table.complaints(Table(1, "", "", {}, {"gone.py": "0"}, [], rows), {"new.py": "1"}))
    assert said == [
        "gone.py is gone since the table was made",
        "new.py changed since the table was made",
        "fd, some data: 2.0 here, 1.0 by a formula",
        "fd, some data: no-such-package was not installed",
    ]


def test_the_check_says_what_is_wrong_in_one_line_each(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks.conformance", "--check"])
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "KEPT", tmp_path / "table.json")
    assert main() == 1
    assert capsys.readouterr().err == "table.json: there is no conformance table; run 'make conformance'.\n"
    monkeypatch.setattr(table, "digests", dict)
    Table(1, "", "", {}, {"gone.py": "0"}, []).save()
    assert main() == 1
    assert capsys.readouterr().err == "table.json: gone.py is gone since the table was made; run 'make conformance'.\n"


# -- The kept table ----------------------------------------------------------------------------------------------------


def test_the_table_is_kept_as_it_is_read(tmp_path: Path) -> None:
    made = Table(1, "make conformance", "now", {"torch": "2"}, {}, [], [work_out(case(1.0, 1.0))])
    made.save(tmp_path / "table.json")
    assert Table.load(tmp_path / "table.json") == made
    json.loads((tmp_path / "table.json").read_text(), parse_constant=pytest.fail)  # neither NaN nor infinity


def test_every_metric_has_a_row_and_every_row_is_kept(cases: list[Case], kept: dict[tuple[str, str, str], Row]) -> None:
    keys = [(c.metric, c.case, c.reference) for c in cases]
    assert len(keys) == len(set(keys))
    assert set(keys) == set(kept)
    assert {c.metric for c in cases} == set(METRICS)
    assert {row.outcome for row in kept.values()} <= {"holds", "differs"}


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_names_a_function_that_there_is(name: str) -> None:
    module, _, function = METRICS[name].function.rpartition(".")
    assert callable(getattr(importlib.import_module(module), function))


def test_closed_forms_and_slow_references_come_out_again(
    cases: list[Case], kept: dict[tuple[str, str, str], Row]
) -> None:
    wrong = []
    for each in cases:
        if each.kind == "implementation" or each.metric in COSTLY:
            continue
        now = work_out(each)
        before = kept[now.key]
        assert before.ours is not None
        assert now.ours is not None
        near = 0.5 * before.stderr if before.stderr else 1e-6 * abs(before.ours)
        if now.outcome != "holds" or abs(now.ours - before.ours) > near:
            wrong.append((asdict(now), before.ours))
    assert wrong == []


def test_a_changed_value_is_noticed(cases: list[Case], kept: dict[tuple[str, str, str], Row]) -> None:
    """The comparison above can fail: with a metric that is a tenth of a percent off, no deterministic row holds."""
    sure = [c for c in cases if c.kind == "closed form" and c.measure == "relative"]
    assert len(sure) > 8
    for each in sure:
        ours, value, *_ = each.compute()
        assert work_out(replace(each, compute=lambda o=ours, v=value: (1.001 * o, v))).outcome == "fails"
