"""Tables in READMEs are made from records, nowhere else; what people wrote around them stays."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from common.errors import UserError
from common.records import Record
from referee.cli import main
from referee.project import Project
from referee.standing import standing
from referee.tables import claims_table, code, fill, md, presets_table, results_table

MakeRecord = Callable[..., Record]


@pytest.fixture(autouse=True)
def _inside(there: Path) -> None:
    """Every test runs inside the repository."""


def test_written_checked_and_stale(project: Project, make: MakeRecord, capsys: pytest.CaptureFixture[str]) -> None:
    make("paper", "k50", 84.95, 0.10)
    assert main(["tables", "--check"]) == 1
    assert "projects/toy/README.md: a generated table is stale" in capsys.readouterr().out
    assert main(["tables"]) == 0
    text = (project.folder / "README.md").read_text()
    assert "| `nll-k50`<br><sub>Table 1, k=50</sub> | 84.70 nats |" in text
    assert "[≤ 84.95 ± 0.10 nats](results/paper/k50/record.json) | ≈ within tolerance | paper |" in text
    assert "- `nll-k50`: Worse by 0.25 nats, between 0.04 and 0.46; tolerance 0.5.\n" in text
    assert text.startswith("# Toy\n\nBy hand.\n")
    assert text.endswith("\nAlso by hand.\n")
    overview = (project.root / "README.md").read_text()
    assert "[A Paper on Toys](https://arxiv.org/abs/1509.00519), Ada Maker et al., ICLR 2016 | v1 |" in overview
    assert "1 within tolerance, 2 not attempted |" in overview
    capsys.readouterr()
    assert main(["tables", "--check"]) == 0
    assert main(["tables"]) == 0
    assert "up to date" in capsys.readouterr().out
    make("paper", "k50", 84.6, 0.21)
    assert main(["tables", "--check"]) == 1
    out = capsys.readouterr().out
    assert "projects/toy/README.md" in out
    assert "\nREADME.md: " in out
    assert "within tolerance" in (project.folder / "README.md").read_text()  # a check changes nothing


def test_a_table_edited_by_hand_is_stale(project: Project, make: MakeRecord) -> None:
    make("paper", "k50", 99.0)
    main(["tables"])
    readme = project.folder / "README.md"
    readme.write_text(readme.read_text().replace("✗ not reproduced", "✓ reproduced"))
    assert main(["tables", "--check"]) == 1
    main(["tables"])
    assert "✗ not reproduced" in readme.read_text()


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", root, *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def committed(project: Project, make: MakeRecord) -> Project:
    """A project whose tables are right, in a repository of git."""
    make("paper", "k50", 99.0)
    main(["tables"])
    git(project.root, "init", "-q", "-b", "main")
    git(project.root, "add", "-A")
    git(project.root, "commit", "-qm", "Results")
    return project


def test_the_overview_may_wait_for_a_project_that_has_changed(
    committed: Project, edit: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    edit("stage: v1", "stage: v2")
    assert main(["tables", "--check"]) == 0
    assert "waits for main" in capsys.readouterr().out
    git(committed.root, "commit", "-qam", "Version 2")
    assert main(["tables", "--check"]) == 0
    (committed.root / "README.md").write_text((committed.root / "README.md").read_text() + "\nMore.\n")
    assert main(["tables", "--check"]) == 1  # whoever edits the file brings it up to date
    assert main(["tables"]) == 0
    assert "| v2 |" in (committed.root / "README.md").read_text()


@pytest.mark.parametrize("old", ["1 not reproduced", "ICLR", "| stage |"])
def test_an_overview_edited_by_hand_is_stale(committed: Project, old: str) -> None:
    overview = committed.root / "README.md"
    overview.write_text(overview.read_text().replace(old, "9 reproduced"))
    assert main(["tables", "--check"]) == 1
    git(committed.root, "commit", "-qam", "By hand")
    assert main(["tables", "--check"]) == 1


def test_in_a_part_of_the_history_nobody_is_blamed(
    committed: Project, edit: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit("stage: v1", "stage: v2")
    git(committed.root, "commit", "-qam", "Version 2")
    git(tmp_path, "clone", "-q", "--depth", "1", committed.root.as_uri(), "shallow")
    monkeypatch.chdir(tmp_path / "shallow")
    assert main(["tables", "--check"]) == 0


def test_a_stale_record_is_said_to_be_stale(project: Project, make: MakeRecord) -> None:
    make("paper", "k50", 84.95, 0.1, code_digest="other")
    main(["tables"])
    assert "within tolerance **(stale)**" in (project.folder / "README.md").read_text()
    assert "**(stale)**" in (project.root / "README.md").read_text()


def test_a_broken_record_stops_before_anything_is_written(
    project: Project, make: MakeRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    make("paper", "k50")
    (project.results / "paper" / "k50" / "record.json").write_text("{")
    before = (project.folder / "README.md").read_text()
    assert main(["tables"]) == 1
    assert "record.json" in capsys.readouterr().err
    assert (project.folder / "README.md").read_text() == before


def test_results_and_presets(project: Project, make: MakeRecord) -> None:
    s = standing(project)
    assert results_table(s) == presets_table(s) == "Nothing has been published yet.\n"
    make("laptop", "k1", 86.0, 0.2)
    make("smoke", "k1", 87.0, 0.2)
    s = standing(project)
    rows = results_table(s).splitlines()
    assert rows[2].startswith("| smoke | [k1](results/smoke/k1/record.json) | `nll` | ≤ 87.00 ± 0.20 nats | 100 |")
    assert rows[3].startswith("| laptop |")
    assert "| laptop | 1 run, 1 min 1 s | A CPU, 2 cores | `referee run toy --preset laptop` |" in presets_table(s)
    make("laptop", "k5", hardware={"cpu": "A CPU", "cores": 2, "threads": 1})
    row = "| laptop | 2 runs, whose times add up to 2 min 2 s | A CPU, 2 cores; A CPU, 2 cores, 1 thread a run |"
    assert row in presets_table(standing(project))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nothing here\n", "no markers"),
        ("<!-- referee:clams -->\n<!-- /referee:clams -->\n", "f.md:1: unknown section 'clams'. Did you mean 'claims'"),
        ("\n<!-- referee:claims -->\n", "f.md:2: 'claims' is not closed"),
        ("<!-- /referee:claims -->\n", "closes what is not open"),
        ("<!-- referee:claims -->\n<!-- /referee:claims -->\n" * 2, "f.md:3: the marker 'claims' stands twice"),
        ("<!-- referee:claims -->\n<!-- referee:results -->\n", "not closed"),
    ],
)
def test_markers_that_cannot_be_filled(text: str, says: str) -> None:
    with pytest.raises(UserError, match=r"f\.md") as caught:
        fill(text, {"claims": lambda: "x\n", "results": lambda: "y\n"}, "f.md")
    assert says in str(caught.value)


def test_filling_twice_changes_nothing() -> None:
    sections = {"claims": lambda: "| a |\n"}
    once = fill("a\n<!-- referee:claims -->\nold\n<!-- /referee:claims -->\nb", sections, "f.md")
    assert once == "a\n<!-- referee:claims -->\n\n| a |\n\n<!-- /referee:claims -->\nb"
    assert fill(once, sections, "f.md") == once


def test_text_from_files_is_no_markup(project: Project) -> None:
    assert md("a|b\n<!-- /referee:claims --> `c` [d](e) *f*") == (
        "a\\|b &lt;\\!-- /referee:claims --&gt; \\`c\\` \\[d\\](e) \\*f\\*"
    )
    path = project.folder / "project.yaml"
    path.write_text(
        path.read_text().replace("k=50 < k=5", "'x | y <!-- /referee:claims --> <script> k=50 < k=5", 1) + ""
    )
    path.write_text(path.read_text().replace("< k=1\n", "< k=1'\n", 1))
    assert main(["tables"]) == 0
    text = (project.folder / "README.md").read_text()
    assert "<script>" not in text
    assert text.count("<!-- /referee:claims -->") == 1
    assert main(["tables", "--check"]) == 0


def read(markdown: str) -> list[str]:
    """What a reader sees in the pieces of code of a Markdown text, tables included."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    return [child.content for token in tokens for child in token.children or [] if child.type == "code_inline"]


@given(st.text(alphabet="ab_\\`|* <&![]-", max_size=12))
@example("active_units")
@example("a|b")
@example("`")
@example("``a` ```")
@example("a\\|b\\")
@example("<!-- /referee:claims -->")
def test_code_is_shown_to_the_letter(text: str) -> None:
    table = f"| a | b |\n| --- | --- |\n| {code(text)} | {code('next')} |\n"
    plain = " ".join(text.split())
    assert read(table) == ([plain] if plain else []) + ["next"]


def test_names_of_scores_have_no_backslash(project: Project, make: MakeRecord) -> None:
    make("laptop", "k1", 20, None, score={"name": "active_units", "unit": "units"})
    assert "| `active_units` |" in results_table(standing(project))


def test_orderings_come_first_and_values_nobody_tried_are_folded(
    project: Project, make: MakeRecord, edit: Callable[[str, str], None]
) -> None:
    value = (project.folder / "project.yaml").read_text().partition("claims:\n")[2].partition("  - id: more")[0]
    edit(value, value + value.replace("nll-k50", "nll-k7").replace("run: k50", "run: k7\n    note: seven at once"))
    assert "<summary>2 values of the paper not attempted</summary>\n\n| claim" in claims_table(standing(project))
    for run in ("k50", "k5", "k1"):
        make("laptop", run, picture=True)
    make("paper", "k50", 84.0)
    shown, folded = claims_table(standing(project)).split("<details>")
    assert read(shown)[:3] == ["more-samples-help", "nll-k50", "samples"]
    assert read(folded.partition("</summary>")[2]) == ["nll-k7", "nll-k7"]  # in the table, and its note
    assert "1 value of the paper" in folded
    assert "seven at once" in folded
    assert "[samples.png](results/laptop/k50/samples.png)" in shown


def test_missing_readme(project: Project, edit: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]) -> None:
    (project.folder / "README.md").unlink()
    edit("stage: v1", "stage: proposed")  # which owes its claims alone
    assert main(["tables"]) == main(["tables", "--check"]) == 0
    assert "\n| `toy` | [A Paper" in (project.root / "README.md").read_text()  # no link that leads nowhere
    edit("stage: proposed", "stage: v1")
    assert main(["tables"]) == 1
    assert "projects/toy/README.md is missing" in capsys.readouterr().err


def test_amendments_stand_below_the_claims(project: Project, edit: Callable[[str, str], None]) -> None:
    assert "†" not in claims_table(standing(project))
    entry = "amendments:\n  - {claim: nll-k50, date: 2026-01-02, change: changed, reason: It was *50* | 500.}\n"
    edit("deviations:\n", f"{entry}deviations:\n")
    text = claims_table(standing(project))
    assert "| `nll-k50` †<br>" in text
    assert "\n† Changed 2026-01-02, after the proposal was accepted: `nll-k50`. It was \\*50\\* \\| 500.\n" in text
    assert text.count("†") == 2
