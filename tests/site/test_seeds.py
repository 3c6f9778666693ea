"""Pages and the register show runs of several seeds as one, with the mean, its error and the spread."""

import dataclasses
from pathlib import Path

import pytest

from common.records import Record, Score
from referee.site import project, results
from referee.site.model import load_site
from tests.site.collection import ORDERING, VALUE, add, empty, publish, score
from tests.site.test_project import Seen, page_of
from tests.site.test_register import read

VALUES = {0: 84.9, 1: 84.7, 2: 84.8, 3: 85.0, 4: 84.6}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = empty(tmp_path / "repository")
    add(made, "toy", claims=[VALUE, ORDERING])
    for seed, value in VALUES.items():
        seeded(made, "paper", "k50", seed, value)
        for run, worse in {"k50": 0.0, "k5": 1.0}.items():
            seeded(made, "laptop", run, seed, value + worse)
    publish(made, "toy", "workstation", "k1")
    return made


def seeded(root: Path, preset: str, run: str, seed: int, value: float) -> None:
    one(root, "toy", preset, run, seed, score(value=value, stderr=0.1))


def one(root: Path, name: str, preset: str, run: str, seed: int, *scores: Score) -> None:
    """Publish a run with this seed; 0 is the preset's own."""
    place = run if seed == 0 else f"{run}/seed-{seed}"
    folder = publish(root, name, preset, place, *scores, seed=seed, config={"k": 1, "seed": seed})
    dataclasses.replace(Record.load(folder), run=run).save(folder)


def test_the_projects_page_shows_mean_error_and_spread(root: Path) -> None:
    site = load_site(root)
    page = page_of(site, "toy")
    seen = Seen(page.text)
    assert seen.unbalanced == []
    assert "≤ 84.80 ± 0.12 nats (84.60 to 85.00, 5 seeds)" in seen.text
    assert "k50 better than k5 by 1.00 ± 0.14 nats (5 seeds)" in seen.text
    assert "several seeds of 3 of them" in seen.text
    assert "record of k50, seed 3" in seen.text
    assert "referee run toy --preset paper --only k50 --seeds 0-4" in seen.text
    assert "Means over 5 seeds" in seen.text
    for seed in range(1, 5):  # every record that a link leads to is on the site
        assert f"projects/toy/results/paper/k50/seed-{seed}/record.json" in page.files
        assert f"toy/results/paper/k50/seed-{seed}/record.json" in seen.values("href", "a")


def test_one_seed_is_said_to_be_one(tmp_path: Path) -> None:
    made = empty(tmp_path / "repository")
    add(made, "toy", claims=[VALUE])
    publish(made, "toy", "paper", "k50")
    text = Seen(project.page(load_site(made), load_site(made).standing("toy")).text).text
    assert "one seed a run" in text
    assert "seeds" not in text.replace("unless several seeds are named", "")


def test_results_by_data_set_hold_one_row_a_run(root: Path) -> None:
    site = load_site(root)
    (sheet,) = results.sheets(site.standings)
    (table,) = sheet.sections[0].tables
    assert [(row.record.preset, row.record.run, row.value, row.spread) for row in table.rows] == [
        ("laptop", "k50", "≤ 84.80 ± 0.12", "84.60 to 85.00, 5 seeds"),
        ("paper", "k50", "≤ 84.80 ± 0.12", "84.60 to 85.00, 5 seeds"),
        ("workstation", "k1", "≤ 84.90 ± 0.20", ""),
        ("laptop", "k5", "≤ 85.80 ± 0.12", "85.60 to 86.00, 5 seeds"),
    ]
    text = next(str(page.text) for page in results.pages(site) if page.path == "results/mnist.md")
    assert text.count('<span class="sub">84.60 to 85.00, 5 seeds</span>') == 2


def test_sums_of_parts_stay_sums_over_seeds(root: Path) -> None:
    add(root, "parts", claims=[VALUE])
    for seed, (a, b) in {0: (10.0, 5.0), 1: (12.0, 6.0)}.items():
        kind = {"name": "active_units", "unit": "units", "kind": "exact", "stderr": None}
        scores = [
            score(**kind | {"name": name, "value": v}) for name, v in (("active_units_1", a), ("active_units_2", b))
        ]
        one(root, "parts", "paper", "k50", seed, score(**kind | {"value": a + b}), *scores)
    tables = [t for s in results.sheets(load_site(root).standings) for each in s.sections for t in each.tables]
    (summed,) = (t for t in tables if t.rows[0].project == "parts" and t.rows[0].score.name == "active_units")
    assert summed.added == ("active_units_1", "active_units_2")
    assert summed.rows[0].spread == "15.0 to 18.0, 2 seeds"


def test_the_register_lists_every_seed_and_what_was_averaged(root: Path) -> None:
    (entry,) = read(root)["projects"]
    paper = [run for run in entry["runs"] if run["preset"] == "paper"]
    assert [(run["run"], run["seed"], run["own_seed"]) for run in paper] == [("k50", s, s == 0) for s in range(5)]
    value, ordering = entry["claims"]
    assert (value["seeds"], value["spread"]) == ([0, 1, 2, 3, 4], [84.6, 85.0])
    assert (ordering["seeds"], ordering["spread"]) == ([0, 1, 2, 3, 4], None)
    assert len(value["records"]) == 5
