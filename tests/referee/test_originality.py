"""Copied code is found however it was renamed, moved or laid out; honest code is left alone."""

import json
import keyword
import random
import re
from pathlib import Path
from typing import Any

import pytest

from referee.cli import main
from referee.originality import GRAM, WINDOW, compare, fingerprints, matches, tokens
from referee.project import Project, find_root

IWAE = (Path(__file__).parents[2] / "projects" / "iwae" / "iwae.py").read_text()
NAMES = re.compile(r"\b[a-z_]{3,}\b")


def renamed(source: str) -> str:
    """Other names, other comments, other layout, other texts."""
    lines = [line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]
    text = "\n\n".join(line.split("  # ")[0].replace("    ", "  ") for line in lines)
    return NAMES.sub(lambda m: m[0] if keyword.iskeyword(m[0]) else "v" + str(sum(map(ord, m[0]))), text)


def add(project: Project, name: str, source: str) -> Path:
    folder = project.root / "projects" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "project.yaml").write_text((project.folder / "project.yaml").read_text())
    (folder / f"{name}.py").write_text(source)
    return folder / f"{name}.py"


def test_names_comments_and_layout_do_not_count() -> None:
    a, _ = tokens('def f(x):  # one\n    """Doc."""\n    return x + 1.5e-3\n')
    b, _ = tokens("def  g( y ):\n\n  return y+2\n")
    assert a == b
    c, lines = tokens("x = 'a'\ny = '''b\nc'''\nz = 3")
    assert c == ["N", "=", "T", "N", "=", "T", "N", "=", "1"]
    assert lines == [1, 1, 1, 2, 2, 2, 4, 4, 4]


def test_no_piece_of_the_promised_length_is_missed() -> None:
    """Winnowing promises: a common run of GRAM + WINDOW - 1 tokens shares a fingerprint, whatever stands around it."""
    rng = random.Random(0)

    def some(count: int) -> str:
        return " ".join(rng.choices(["x", "1", "+", "-", "*", "/", "(", ")", "if", "for", "in", ",", ":"], k=count))

    for _ in range(200):
        piece = some(GRAM + WINDOW - 1)
        one, other = (fingerprints(f"{some(50)} {piece} {some(50)}", name) for name in "ab")
        assert set(one.places) & set(other.places)
        assert len(one.codes) < 0.4 * len(one.kinds)  # and few are kept


@pytest.mark.parametrize("change", [lambda s: s, renamed], ids=["as it is", "renamed"])
def test_a_copy_is_found(project: Project, change: Any) -> None:
    project.paper_file.write_text(change(IWAE))
    add(project, "iwae", IWAE)
    match, *_ = matches(project)
    assert (match.ours, match.theirs) == ("projects/toy/toy.py", "projects/iwae/iwae.py")
    assert match.share > 0.8
    assert match.tokens > 200


def test_a_copied_piece_is_found_where_it_stands(project: Project) -> None:
    lines = IWAE.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("class IWAE"))
    piece = lines[first : first + 40]
    project.paper_file.write_text(project.paper_file.read_text() + "\n\n" + "\n".join(piece) + "\n")
    add(project, "iwae", IWAE)
    (match,) = matches(project)
    ours = project.paper_file.read_text().splitlines()
    assert set(piece) & set(ours[match.our_lines[0] - 1 : match.our_lines[1]])
    assert first - 5 < match.their_lines[0] <= match.their_lines[1] < first + 60


def test_declared_common_and_own_code_do_not_count(project: Project) -> None:
    project.paper_file.write_text(IWAE)
    add(project, "iwae", IWAE)
    assert matches(project, borrowed=["toy.py"]) == []
    common = project.root / "common"
    common.mkdir()
    (common / "models.py").write_text(IWAE)
    assert matches(project) == []


def test_earlier_cohorts_and_sources(project: Project, tmp_path: Path) -> None:
    project.paper_file.write_text(IWAE)
    earlier = tmp_path / "2025" / "projects" / "old"
    earlier.mkdir(parents=True)
    (earlier / "old.py").write_text(IWAE)
    (match,) = matches(project, earlier=[tmp_path / "2025"])
    assert (match.where_from, match.theirs) == ("earlier", "2025/projects/old/old.py")
    (match,) = matches(project, sources=[earlier / "old.py"])
    assert match.where_from == "source"


def test_the_founding_projects_are_not_alike() -> None:
    for name in ("iwae", "vae"):
        assert matches(Project(find_root(), name)) == []


def test_hostile_files_take_no_time(project: Project) -> None:
    same = "x = 1\n" * 40_000
    project.paper_file.write_text(same)
    add(project, "other", same)
    assert matches(project)
    a, b = fingerprints(same, "a"), fingerprints(same, "b")
    assert compare(a, b, frozenset(), "project") is not None
    (project.folder / "huge.py").write_text("y = 2\n" * 100_000)  # larger than is read
    (project.folder / "link.py").symlink_to("/etc/passwd")
    assert {m.ours for m in matches(project)} == {"projects/toy/toy.py"}


def test_the_command(project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(project.root)
    project.paper_file.write_text(IWAE)
    add(project, "iwae", IWAE)
    assert main(["originality", "toy"]) == 0
    assert "% of the file is like projects/iwae/iwae.py" in capsys.readouterr().out
    assert main(["originality", "--format", "json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"iwae", "toy"}
    assert main(["originality", "toy", "--earlier", "nowhere"]) == 1
    assert "no such file or folder" in capsys.readouterr().err
