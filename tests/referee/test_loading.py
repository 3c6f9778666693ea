"""Every mistake in `project.yaml` is named with its file, line and rule; all of a file's mistakes at once."""

import json
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import jsonschema
import pytest
import yaml

from common.records import PRESETS_ORDER
from referee.documents import MAX_BYTES, DocumentError, Tree
from referee.loading import check_module, load_project, parse_project
from referee.project import Project
from referee.schema import METRICS, SCHEMA_FILE, find_metric, json_schema

Edit = Callable[[str, str], None]


def problems(project: Project) -> list[tuple[int, str, str]]:
    with pytest.raises(DocumentError) as caught:
        project.load()
    for problem in caught.value.problems:
        assert str(problem).startswith(f"projects/toy/project.yaml:{problem.line}: {problem.rule}: ")
    return [(p.line, p.rule, p.message) for p in caught.value.problems]


def test_a_right_file(project: Project) -> None:
    file = project.load()
    value, ordering, figure = file.claims
    assert value.kind == "value"
    assert str(value.paper_value) == "84.70"  # with the places the paper printed
    assert ordering.kind == "ordering"
    assert ordering.runs == ["k50", "k5", "k1"]
    assert ordering.unit == "nats"
    assert figure.kind == "figure"
    assert file.paper.arxiv == "1509.00519"
    assert file.borrowed == []


@pytest.mark.parametrize(
    ("old", "new", "line", "rule", "says"),
    [
        ("stage: v1", "stage: [v1", 2, "PRJ-002", "not YAML"),
        ("title: A Paper", "title: A Paper: on", 4, "PRJ-002", "into quotes"),
        ("  year: 2016", "\tyear: 2016", 7, "PRJ-002", "tab"),
        ("stage: v1", "stage: &a v1", 1, "PRJ-003", "anchor"),
        ("licence: MIT", "licence: *a", 10, "PRJ-003", "alias"),
        ("licence: MIT", "licence: !!python/name:os.system MIT", 10, "PRJ-003", "tag"),
        ("licence: MIT", "licence: " + "[" * 40, 10, "PRJ-003", "deep"),
        ("deviations:", "---\ndeviations:", 42, "PRJ-003", "second document"),
        ("licence: MIT", "licence: MIT\nlicence: GPL", 11, "PRJ-004", "first on line 10"),
        ("    metric: nll", "    metric: nll\n    metric: nll", 19, "PRJ-004", "claim 1: the field 'metric'"),
        ("licence: MIT", "license: MIT\nlicence: MIT", 10, "PRJ-005", "Did you mean 'licence'"),
        ("    tolerance: 0.5", "    tolerence: 0.5\n    tolerance: 1", 24, "PRJ-005", "Did you mean 'tolerance'"),
        ("    tolerance: 0.5\n", "", 14, "PRJ-006", "claim 'nll-k50': the field 'tolerance' is missing"),
        ("    kind: value\n", "", 14, "PRJ-006", "'kind' is missing"),
        ("licence: MIT\n", "", 1, "PRJ-006", "'licence' is missing"),
        ("kind: value", "kind: valeu", 15, "PRJ-007", "Did you mean 'value'"),
        ("stage: v1", "stage: v3", 1, "PRJ-007", "proposed, v1, v2, published"),
        ('"1509.00519"', "1509.00519", 8, "PRJ-007", 'put it in quotes: "1509.00519"'),
        ('"1509.00519"', '"https://arxiv.org"', 8, "PRJ-007", "the number alone"),
        ("year: 2016", "year: soon", 7, "PRJ-007", "not a whole number"),
        ("runs: [k50, k5, k1]", "runs: [k50]", 33, "PRJ-007", "at least 2"),
        ("runs: [k50, k5, k1]", "runs: [k50, ../../x]", 33, "PRJ-007", "letters, digits"),
        ("team: [{", "team: [3, {", 9, "PRJ-007", "not a group of fields"),
        ("paper_value: 84.70", "paper_value: 84,70", 22, "PRJ-008", "'84,70' is not a number"),
        ("paper_value: 84.70", "paper_value: about 84", 22, "PRJ-008", "like 84.78"),
        ("paper_value: 84.70", "paper_value: 84:18", 22, "PRJ-008", "'84:18' is not a number"),
        ("paper_value: 84.70", "paper_value: .nan", 22, "PRJ-008", "not a number"),
        ("paper_value: 84.70", "paper_value: '84.70'", 22, "PRJ-008", "not a number"),
        ("paper_value: 84.70", "paper_value: true", 22, "PRJ-008", "not a number"),
        ("tolerance: 0.5", "tolerance: -0.5", 24, "PRJ-007", "greater than or equal to 0"),
        ("metric: nll", "metric: nlll", 18, "PRJ-009", "Did you mean 'nll'"),
        ("id: more-samples-help", "id: nll-k50", 25, "PRJ-010", "first on line 14"),
        ("direction: lower", "direction: higher", 23, "PRJ-011", "a better 'nll' is lower"),
        ("metric: nll", "metric: active_units", 18, "PRJ-011", "write 'unit: units'"),
        ("runs: [k50, k5, k1]", "runs: [k50, k5, k5]", 33, "PRJ-011", "stands twice"),
        ("licence: MIT", 'licence: "MIT\\e[31m"', 10, "PRJ-012", "U+001B"),
        ("licence: MIT", "licence: MIT\u202e", 10, "PRJ-012", "U+202E"),
        ("results/laptop/k50/samples.png", "../../README.md", 41, "PRJ-012", "not a path inside"),
        ("results/laptop/k50/samples.png", "/etc/passwd", 41, "PRJ-012", "not a path inside"),
    ],
)
def test_one_mistake(project: Project, edit: Edit, old: str, new: str, line: int, rule: str, says: str) -> None:
    edit(old, new)
    found = problems(project)
    assert (line, rule) in [(at, which) for at, which, _ in found], found
    assert any(says in message for at, which, message in found if (at, which) == (line, rule)), found


def test_all_mistakes_at_once(project: Project, edit: Edit) -> None:
    edit("stage: v1", "stage: v3")
    edit("metric: nll", "metric: nlll")
    edit("paper_value: 84.70", "paper_value: 84,70")
    edit("id: more-samples-help", "id: nll-k50")
    edit("statement: k=50 < k=5 < k=1", "statment: k=50 < k=5 < k=1")
    found = [(line, rule) for line, rule, _ in problems(project)]
    assert found == [
        (1, "PRJ-007"),
        (18, "PRJ-009"),
        (22, "PRJ-008"),
        (25, "PRJ-006"),
        (25, "PRJ-010"),
        (29, "PRJ-005"),
    ]


def test_what_is_no_file_or_no_text(project: Project) -> None:
    path = project.folder / "project.yaml"
    path.write_bytes(b"stage: v1\nfamily: \xff\n")
    assert problems(project)[0][:2] == (2, "PRJ-001")
    path.write_text("# " + "x" * MAX_BYTES)
    assert "larger" in problems(project)[0][2]
    path.write_text("")
    assert problems(project)[0][1] == "PRJ-007"
    path.write_text("stage: \x07v1")
    assert problems(project)[0][:2] == (1, "PRJ-002")
    path.unlink()
    assert problems(project)[0][1] == "PRJ-001"


def test_bombs_go_off_nowhere() -> None:
    laughs = "a: &a [x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{f'*{chr(97 + i)},' * 9}]\n" for i in range(9))
    start = time.process_time()
    for text in (laughs, "[" * 200_000, "{a: " * 50_000, "- " * 100_000, "? " * 100_000):
        with pytest.raises(DocumentError):
            parse_project(text)
    assert time.process_time() - start < 10  # not a measurement: without the limits it is hours, or the memory's end


def test_numbers_as_people_read_them() -> None:
    tree = Tree("file", "PRJ")
    values = tree.value(tree.compose("[84.70, -3, 1e-3, +2., 1_000, 0x10, 010, 84:18, yes, no, true, ~, .5]"), ())
    expected = [Decimal("84.70"), -3, Decimal("1e-3"), Decimal("2."), "1_000", "0x10", 10, "84:18", "yes", "no"]
    assert values == [*expected, True, None, Decimal(".5")]


def test_the_module_has_what_the_file_names(project: Project, edit: Edit) -> None:
    presets = {"paper": ["k50"], "laptop": ["k1", "k5", "k50"]}
    assert check_module(project.load(), presets, ["good"]) == []
    edit("    run: k50", "    run: k500")
    edit("weights: [laptop/k50]", "weights: [smoke/k50]")
    messages = [p.message for p in check_module(project.load(), presets, ["goood"])]
    assert len(messages) == 3
    assert any("preset 'paper' has no run 'k500'. Did you mean 'k50'?" in m for m in messages)
    assert any("no preset 'smoke'" in m for m in messages)
    assert any("no probe 'good'. Did you mean 'goood'?" in m for m in messages)


def test_needs_of_a_preset_that_there_is_not_are_found_with_their_line(project: Project) -> None:
    path = project.folder / "project.yaml"
    text = path.read_text()
    path.write_text(f"{text}compute:\n  hardware: a GPU\n  presets:\n    paper: {{gpus: 1}}\n    labtop: {{cpus: 1}}\n")
    presets = {"paper": ["k50"], "laptop": ["k1", "k5", "k50"]}
    (problem,) = check_module(project.load(), presets, ["good"], text=path.read_text())
    assert (problem.line, problem.rule) == (len(text.splitlines()) + 5, "PRJ-013")
    assert "no preset 'labtop'. Did you mean 'laptop'?" in problem.message


def test_the_json_schema_is_in_step(project: Project) -> None:
    assert SCHEMA_FILE.read_text() == json_schema(), "run: python -m referee.schema"
    schema = json.loads(json_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    data = yaml.safe_load((project.folder / "project.yaml").read_text())
    jsonschema.validate(data, schema)
    data["claims"][0]["metric"] = "nlll"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, schema)


def test_presets_are_those_of_the_records() -> None:
    schema = json.loads(json_schema())
    assert tuple(schema["$defs"]["ValueClaim"]["properties"]["preset"]["enum"]) == PRESETS_ORDER
    assert all(m.direction in ("lower", "higher") and m.unit for m in METRICS.values())


@pytest.mark.parametrize("path", sorted(Path(__file__).parents[2].glob("projects/*/project.yaml")), ids=str)
def test_the_repositorys_own_files(path: Path) -> None:
    assert load_project(path).claims


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("fd[lenet-mnist@a24bccc1]", True),
        ("fd[lenet-fashion_mnist@78f260ff]", True),
        ("fd[raw-pixels]", True),
        ("fd[inception-2015-12-05]", True),
        ("fd[lenet-mnist@a24bccc]", False),  # seven digits
        ("fd[lenet-mnist@A24BCCC1]", False),
        ("fd[]", False),
        ("fd", False),
        ("fd[lenet](x)", False),
        ("fd[a] fd[b]", False),
        ("fd[lenet\n]", False),
        ("fd[lenet-mnist@a24bccc1]\n", False),
    ],
)
def test_a_frechet_distance_says_by_which_network(name: str, known: bool) -> None:
    metric = find_metric(name)
    assert (metric is not None) == known
    pattern = json.loads(json_schema())["$defs"]["ValueClaim"]["properties"]["metric"]
    assert jsonschema.Draft202012Validator(pattern).is_valid(name) == known or name.endswith("\n")  # "$" and re differ
    if metric:
        assert (metric.unit, metric.direction) == ("squared units", "lower")
        assert ("FID" in metric.what) == ("inception" in name)
