"""Tables of results hold only what is comparable, say what each number is, and lead to the claims."""

import re
from pathlib import Path

import pytest
import yaml

from referee.schema import METRICS, metric_called
from referee.site import project, results
from referee.site.model import load_site
from referee.site.results import Sheet, Table, sheets
from tests.site.collection import ORDERING, VALUE, add, empty, publish, score


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return empty(tmp_path / "repository")


def found(root: Path) -> dict[str, Sheet]:
    return {sheet.dataset: sheet for sheet in sheets(load_site(root).standings)}


def tables(root: Path, dataset: str = "mnist", metric: str = "nll") -> list[Table]:
    return next(list(s.tables) for s in found(root)[dataset].sections if s.name == metric)


def listed(table: Table) -> list[str]:
    return [f"{row.project}/{row.record.run}" for row in table.rows]


def test_projects_stand_in_one_table_only_with_the_same_protocol(root: Path) -> None:
    for name in ("a", "b"):
        add(root, name)
    publish(root, "a", "paper", "k50", score(value=85.0))
    publish(root, "b", "paper", "k50", score(value=84.0))
    publish(root, "b", "paper", "k5", score(value=80.0, protocol="mnist, L_5000"))
    assert [(t.protocol, listed(t)) for t in tables(root)] == [
        ("mnist, L_10", ["b/k50", "a/k50"]),
        ("mnist, L_5000", ["b/k5"]),
    ]


@pytest.mark.parametrize("differs", [{"split": "val"}, {"unit": "bits"}, {"protocol": ""}])
def test_what_differs_in_split_unit_or_protocol_is_not_compared(root: Path, differs: dict[str, str]) -> None:
    add(root, "a")
    publish(root, "a", "paper", "k50", score())
    publish(root, "a", "paper", "k5", score(**differs))
    assert sorted(map(listed, tables(root))) == [["a/k5"], ["a/k50"]]


def test_another_content_under_the_same_name_is_not_compared(root: Path) -> None:
    add(root, "a")
    publish(root, "a", "paper", "k50")
    publish(root, "a", "paper", "k5", data={"mnist": "f" * 64})
    assert len(tables(root)) == 2
    assert "or on different contents of the data set" in dict(texts(root))["results/mnist.md"]


def test_sums_of_parts_are_not_compared_with_undivided_scores(root: Path) -> None:
    add(root, "a", claims=[{**VALUE, "metric": "active_units", "unit": "units", "direction": "higher"}])
    units = {"name": "active_units", "unit": "units", "kind": "exact", "stderr": None}
    publish(root, "a", "paper", "one", score(**units, value=20))
    parts = [score(**units | {"name": f"active_units_{i}"}, value=10) for i in (1, 2)]
    publish(root, "a", "paper", "two", score(**units, value=20), *parts)
    assert sorted((listed(t), t.added) for t in tables(root, metric="active_units")) == [
        (["a/one"], ()),
        (["a/two"], ("active_units_1", "active_units_2")),
    ]


def test_the_best_stands_first_whichever_way_that_is(root: Path) -> None:
    add(root, "a")
    for run, value in (("low", -100.0), ("high", -80.0)):
        publish(root, "a", "paper", run, score(value=value), score(name="elbo", value=value))
    assert listed(tables(root, metric="nll")[0]) == ["a/low", "a/high"]
    assert listed(tables(root, metric="elbo")[0]) == ["a/high", "a/low"]


def test_bounds_estimates_and_exact_values_are_told_apart_in_words(root: Path) -> None:
    add(root, "a")
    for run, kind in (("b", "bound"), ("e", "estimate"), ("x", "exact")):
        publish(root, "a", "paper", run, score(kind=kind), score(name="elbo", value=-84.9, kind=kind))
    kinds = {(r.score.name, r.record.run): r.kind for m in ("nll", "elbo") for r in tables(root, metric=m)[0].rows}
    assert kinds == {
        ("nll", "b"): "upper bound",
        ("elbo", "b"): "lower bound",
        **{(name, run): word for name in ("nll", "elbo") for run, word in (("e", "estimate"), ("x", "exact"))},
    }
    assert "a bound that looks worse may belong to a better model" in dict(texts(root))["results/mnist.md"]


def test_one_kind_alone_needs_no_warning(root: Path) -> None:
    add(root, "a")
    publish(root, "a", "paper", "k50")
    assert "a bound that looks worse" not in dict(texts(root))["results/mnist.md"]


def test_the_papers_value_and_the_verdict_stand_beside_ours(root: Path) -> None:
    add(root, "a")
    publish(root, "a", "laptop", "k50", score(value=90.0))
    publish(root, "a", "paper", "k50", score(value=84.6))
    publish(root, "a", "paper", "k1", score(value=88.0))
    (table,) = tables(root)
    rows = {(r.record.preset, r.record.run): r for r in table.rows}
    judged = rows["paper", "k50"]
    assert (judged.value, judged.paper, judged.judged) == ("≤ 84.60 ± 0.20", "84.7", True)
    assert judged.verdict is not None
    assert judged.verdict.status == "reproduced"
    smaller = rows["laptop", "k50"]  # the claim is judged by the other record
    assert (smaller.paper, smaller.judged) == ("84.7", False)
    assert rows["paper", "k1"].claim is None


def test_the_papers_error_stands_beside_its_value(root: Path) -> None:
    add(root, "a", claims=[{**VALUE, "paper_stderr": 0.05}, {**VALUE, "id": "untried", "run": "k1", "paper_stderr": 2}])
    publish(root, "a", "paper", "k50", score(value=84.6))
    ((row,),) = (table.rows for table in tables(root))
    assert row.paper == "84.7 ± 0.05"
    text = dict(texts(root))["results/mnist.md"]
    assert ">84.7 ± 0.05</a>" in text
    assert ">84.7 ± 2</td>" in text


def test_a_claim_about_other_data_stands_beside_nothing(root: Path) -> None:
    add(root, "a")
    publish(root, "a", "paper", "k50", data={"digits": "0" * 64})
    assert [row.claim for row in tables(root, "digits")[0].rows] == [None]
    assert [v.claim for _, v in found(root)["mnist"].sections[0].waiting] == ["nll-k50"]


def test_values_without_ours_are_listed_once_and_the_best_first(root: Path) -> None:
    worse = {**VALUE, "id": "worse", "run": "k1", "paper_value": 90}
    better = {**VALUE, "id": "better", "run": "k5", "paper_value": 80}
    add(root, "a", claims=[worse, VALUE, better])
    publish(root, "a", "paper", "k50")
    (section,) = found(root)["mnist"].sections
    assert [v.claim for _, v in section.waiting] == ["better", "worse"]


def test_orderings_that_were_looked_at_are_shown(root: Path) -> None:
    add(root, "a", claims=[ORDERING, {**ORDERING, "id": "untried", "runs": ["x", "y"]}])
    publish(root, "a", "laptop", "k50", score(value=80.0))
    publish(root, "a", "laptop", "k5", score(value=90.0))
    (section,) = found(root)["mnist"].sections
    assert [(p, v.claim, v.status) for p, v in section.orderings] == [("a", "more-helps", "reproduced")]


def test_runs_that_only_try_the_code_are_left_out(root: Path) -> None:
    add(root, "a")
    publish(root, "a", "smoke", "k50", data={"digits": "0" * 64})
    assert list(found(root)) == ["mnist"]
    assert found(root)["mnist"].runs == 0


def texts(root: Path) -> list[tuple[str, str]]:
    return [(page.path, str(page.text)) for page in results.pages(load_site(root))]


def test_every_data_set_has_a_page_of_its_own_whatever_records_call_it(root: Path) -> None:
    add(root, "a")
    names = ["index", "README", "../../etc", "mnist", "MNIST", "x.md", "</title><script>alert(1)</script>", "…", "a b"]
    for i, name in enumerate(names):
        publish(root, "a", "paper", f"r{i}", data={name: "0" * 64})
    paths = [path for path, _ in texts(root)]
    assert len(paths) == len(names) + 1
    assert len({path.lower() for path in paths}) == len(paths)
    for path in paths:
        assert path.removeprefix("results/").removesuffix(".md").replace("-", "").replace("_", "").isalnum(), path
    assert "results/readme.md" not in [path.lower() for path in paths]  # builders take it for an index
    assert "results/MNIST.md" in paths  # a name that is plain stays as it is
    assert not any("<script>alert" in text or "</title>" in text for _, text in texts(root))
    for _, text in texts(root):  # the theme puts what front matter says into HTML as it is
        said = yaml.safe_load(text.split("---\n")[1])
        assert not set('<>"') & set(said["title"] + said["description"])


def test_links_lead_to_claims_that_are_there(root: Path) -> None:
    add(root, "a", claims=[VALUE, ORDERING, {**VALUE, "id": "untried", "run": "k1"}])
    for run in ("k50", "k5"):
        publish(root, "a", "laptop", run)
        publish(root, "a", "paper", run)
    there = {page.path: str(page.text) for page in project.pages(load_site(root))}
    links = {link for _, text in texts(root) for link in re.findall(r'href="\.\./(projects/\w+)\.html#([^"]+)"', text)}
    assert {anchor for _, anchor in links} == {"claim-nll-k50", "claim-more-helps", "claim-untried"}
    for target, anchor in links:
        assert f'id="{anchor}"' in there[f"{target}.md"]


def test_every_known_metric_can_be_shown(root: Path) -> None:
    add(root, "a")
    every = [*METRICS, "fd[lenet-mnist@a24bccc1]", "fd[raw-pixels]"]
    publish(
        root,
        "a",
        "paper",
        "k50",
        *(score(name=name, unit=metric_called(name).unit) for name in every[::-1]),
        score(name="odd"),
        score(name="fd[lenet-mnist]x"),
    )
    assert [s.name for s in found(root)["mnist"].sections] == every


def test_a_data_set_without_runs_says_so_once(root: Path) -> None:
    add(root, "a", claims=[VALUE, {**VALUE, "id": "again", "run": "k5"}])
    text = dict(texts(root))["results/mnist.md"]
    assert "**Nothing of ours yet:**" in text
    assert text.count("not attempted") == 0  # not once a row
    assert "None of these was attempted yet." in text
    publish(root, "a", "paper", "k50")
    assert "Nothing of ours yet" not in dict(texts(root))["results/mnist.md"]


def test_what_came_of_a_value_that_stands_in_no_table_is_said(root: Path) -> None:
    add(root, "a", claims=[VALUE, {**VALUE, "id": "again", "run": "k5"}])
    publish(root, "a", "smoke", "k50")
    text = dict(texts(root))["results/mnist.md"]
    assert text.count("> compute-limited<") == 1
    assert text.count("> not attempted<") == 1
    assert "None of these was attempted" not in text


def test_of_a_count_no_way_is_called_better(root: Path) -> None:
    add(root, "a", claims=[{**VALUE, "metric": "active_units", "unit": "units", "direction": "higher"}])
    text = dict(texts(root))["results/mnist.md"]
    assert "is better" not in text
    assert "more is not better in itself" in text
