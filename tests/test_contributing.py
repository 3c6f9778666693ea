"""The guide keeps its promises: its commands can be typed as they stand, its links lead somewhere."""

import re
import shlex
import textwrap
from pathlib import Path

import pytest

from referee.cli import parser
from referee.course import Course
from referee.documents import parse_yaml

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SETTINGS = (ROOT / ".github" / "workflows" / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^ *```sh\n(.*?)^ *```$", GUIDE, flags=re.M | re.S)
LINES = [line.strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines()]
SPOKEN = re.findall(r"`(referee [^`]+)`", re.sub(r"```.*?```", "", GUIDE, flags=re.S))
COMMANDS = sorted({part.strip() for line in LINES for part in line.split("&&") if "referee " in part} | set(SPOKEN))


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_can_be_typed(command):
    words = shlex.split(command, comments=True)
    assert words[0] == "referee"
    if words[-1] == "--help":
        with pytest.raises(SystemExit, match="0"):
            parser().parse_args(words[1:])
        return
    _, rest = parser().parse_known_args(words[1:])
    assert rest == []


def test_the_guide_shows_every_step_of_the_process():
    said = {tuple(w for w in command.split()[1:3] if w.isalpha()) for command in COMMANDS}
    for step in ("new", "run", "check", "gate", "respond", "decide", "assign", "status", "verdicts", "tables", "probe"):
        assert any(words[:1] == (step,) for words in said), step
    for step in [("review", "start"), ("review", "check"), ("calibrate", "start"), ("calibrate", "measure")]:
        assert any(words[:2] == step for words in said), step


def test_the_course_that_is_shown_can_be_read():
    (block,) = re.findall(r"^   ```yaml\n(   not_in_course:.*?)^   ```$", GUIDE, flags=re.M | re.S)
    course = parse_yaml(f"name: x\n{textwrap.dedent(block)}", Course, rules="CRS", shown="CONTRIBUTING.md")
    assert [p.handle for p in course.people if "editor" in p.roles]


def test_a_proposal_commits_one_file():
    assert 'git add projects/real_nvp/project.yaml && git commit -m "Propose real_nvp"' in LINES


def test_links_of_the_guide_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", GUIDE):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.parametrize("text", [GUIDE, SETTINGS], ids=["CONTRIBUTING", "workflows"])
def test_steps_are_numbered_in_order(text):
    for part in re.split(r"^## ", text, flags=re.M):
        numbers = [int(n) for n in re.findall(r"^(\d+)\. ", part, flags=re.M)]
        assert numbers == list(range(1, len(numbers) + 1)), part.splitlines()[0]


def test_merging_keeps_the_commits_that_were_reviewed():
    assert "Create a merge commit" in GUIDE
    assert all("--no-ff" in line for line in LINES if "git merge" in line)
    assert any("git merge --no-ff" in line for line in LINES)
    assert ".github/workflows/README.md#settings-that-files-cannot-make" in GUIDE
    for setting in ("allow_merge_commit=true", "allow_squash_merge=false", "allow_rebase_merge=false"):
        assert setting in SETTINGS


def test_submissions_leave_the_table_of_projects_alone():
    """Two that touched README.md would be in conflict."""
    developer, _, editor = (part for part in re.split(r"^## As ", GUIDE, flags=re.M)[1:])
    assert "README.md &&" not in developer
    assert "referee tables real_nvp\n" in developer
    assert "referee tables &&" in editor
