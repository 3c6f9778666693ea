"""Records of other seeds are checked like those of the preset's own, and have to belong to one."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from referee import tables
from referee.checks import Submission, run
from referee.project import Project
from referee.standing import standing
from tests.referee.checks.test_rules import mine

RUN = "results/laptop/k50"


def edited(folder: Path, **fields: Any) -> None:
    """Change fields of a record, and write its configuration beside it."""
    record = json.loads((folder / "record.json").read_text()) | fields
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "config.json").write_text(json.dumps(record["config"]))


@pytest.fixture
def seeded(submitted: Project) -> Project:
    """A whole submission, in which the run k50 was made with three seeds."""
    own = submitted.folder / RUN
    edited(own, config={"k": 50, "seed": 0})
    for seed in (1, 2):
        other = own / f"seed-{seed}"
        other.mkdir()
        shutil.copyfile(own / "record.json", other / "record.json")
        edited(other, config={"k": 50, "seed": seed}, seed=seed)
        (other / "metrics.jsonl").write_text(f'{{"step": 1, "bound": -{80 + seed}.5}}\n')
    readme = submitted.folder / "README.md"
    text = tables.fill(readme.read_text(), tables.readme_sections(standing(submitted)), "README.md")
    readme.write_text(text)
    return submitted


def test_nothing_is_wrong_with_seeds(seeded: Project) -> None:
    assert run(Submission(seeded, "v1"), only=mine()).findings == ()
    assert "3 seeds" in (seeded.folder / "README.md").read_text()


SPOILT: list[tuple[str, str, str, Callable[[Path], object]]] = [
    (
        "RES-001",
        "seed-1",
        "its seed is 5, the folder says 1",
        lambda d: edited(d / "seed-1", config={"seed": 5}, seed=5),
    ),
    ("RES-001", "seed-1", "ran with k = 51", lambda d: edited(d / "seed-1", config={"k": 51, "seed": 1})),
    ("RES-001", "seed-1", "is the record of toy/laptop/k5", lambda d: edited(d / "seed-1", run="k5")),
    ("RES-001", "seed-0", "is that of the preset", lambda d: own_twice(d)),
    ("RES-001", "seed-2", "there is no record of the preset's own", lambda d: (d / "record.json").unlink()),
    ("RES-001", "seed-02", "lies in no run's folder", lambda d: (d / "seed-2").rename(d / "seed-02")),
    ("RES-001", "again", "lies in no run's folder", lambda d: (d / "seed-2").rename(d / "again")),
    ("RES-001", "seed-1", "not JSON", lambda d: (d / "seed-1" / "record.json").write_text("{")),
    (
        "RES-004",
        "",
        "present: k50 seed 1. Run 'referee run toy --preset laptop --seeds 1 --publish'",
        lambda d: edited(d / "seed-1", code_digest="0" * 64),
    ),
    ("RES-006", "seed-2", "holds no score", lambda d: edited(d / "seed-2", scores=[])),
    ("RES-009", "seed-1", "differs from the conf", lambda d: (d / "seed-1" / "config.json").write_text('{"k": 50}')),
    ("RES-009", "seed-1", "is missing", lambda d: (d / "seed-1" / "metrics.jsonl").unlink()),
    ("RES-012", "seed-2", "--only k50 --seeds 2 --fresh --publish'", lambda d: edited(d / "seed-2", git_sha="")),
    (
        "RES-014",
        "seed-2",
        "is the very file of seed 1: a copy, or the seed changes nothing",
        lambda d: shutil.copyfile(d / "seed-1" / "metrics.jsonl", d / "seed-2" / "metrics.jsonl"),
    ),
]


def own_twice(folder: Path) -> None:
    (folder / "seed-1").rename(folder / "seed-0")
    edited(folder / "seed-0", config={"k": 50, "seed": 0}, seed=0)


@pytest.mark.parametrize(("rule", "place", "says", "spoil"), SPOILT)
def test_what_is_wrong_with_a_seed_is_found(
    seeded: Project, rule: str, place: str, says: str, spoil: Callable[[Path], object]
) -> None:
    spoil(seeded.folder / RUN)
    outcome = run(Submission(seeded, "v1"), only={rule})
    assert [f for f in outcome.findings if says in f.message and place in f.file]


def test_the_present_settings_are_compared_but_for_the_seed(seeded: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from referee.checks import code

    settings = {run: {"k": int(run[1:]), "seed": 0} for run in ("k1", "k5", "k50")}
    for each in ("k1", "k5"):
        edited(seeded.results / "laptop" / each, config=settings[each])
    monkeypatch.setattr(code, "offered", lambda submission: type("Offered", (), {"presets": {"laptop": settings}}))

    def found() -> list[str]:
        outcome = run(Submission(seeded, "v1"), needs=("files", "code"), only={"RES-011"})
        return [finding.message for finding in outcome.findings]

    assert found() == []
    settings["k50"]["k"] = 49
    assert len(found()) == 3
    assert all("ran with k = 50, the preset has 49" in message for message in found())
