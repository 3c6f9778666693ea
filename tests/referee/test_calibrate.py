"""Known mistakes: the corpus applies to the present code, and what is planted is measured, hidden and found again."""

import ast
import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from common.digest import code_digest
from common.records import Record
from referee import calibrate, measuring
from referee.calibrate import CalibrationError, Key, Mutation, Planted, compare, copy_tracked, corpus, draw, plant
from referee.checklist import load_checklist
from referee.checks import every_check
from referee.cli import main
from referee.documents import DocumentError
from referee.project import Project
from referee.reviews import Place, parse_review

ROOT = Path(__file__).parents[2]
CORPUS = corpus(ROOT)


def mutation(name: str = "m", file: str = "a.py", find: str | None = "x", **fields: object) -> Mutation:
    return Mutation(
        **{
            "id": name,
            "projects": ["toy"],
            "file": file,
            "find": find,
            "mistake": "Wrong.",
            "item": "faith-equations",
            "severity": "major",
            "why": "It matters.",
            "caught_by": ["tests"],
            **fields,
        }
    )


# -- The corpus --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files of this repository."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    target = tmp_path_factory.mktemp("copy")
    copy_tracked(ROOT, target)
    return target


@pytest.mark.parametrize("name", CORPUS)
def test_each_mistake_can_be_planted_in_the_present_code(name, copy):
    m = CORPUS[name]
    before = (copy / m.file).read_bytes()
    try:
        place = plant(copy, [m])[name]
        after = (copy / m.file).read_bytes()
    finally:
        (copy / m.file).write_bytes(before)
    assert after != before
    if m.copy_of is None:
        assert 1 <= place.first <= place.last <= after.count(b"\n")
    if m.is_code:  # a mistake that does not even compile, or that a linter sees, is not a silent one
        ast.parse(after)
        assert all(len(line) <= 120 for line in after.decode().splitlines())


@pytest.mark.parametrize("name", CORPUS)
def test_each_mistake_names_what_exists(name):
    m = CORPUS[name]
    assert m.item in load_checklist().items
    for project in m.projects:
        assert (ROOT / "projects" / project / "project.yaml").is_file()
        assert m.file.startswith(("common/", f"projects/{project}/"))
    for catcher in m.caught_by:
        what, _, rule = catcher.partition(" ")
        assert what != "check" or rule in every_check()


def test_the_corpus_is_large_and_mixed():
    assert len(CORPUS) >= 24
    assert {m.severity for m in CORPUS.values()} == {"critical", "major", "minor"}
    for paper in ("iwae", "vae"):
        assert len(calibrate.eligible(CORPUS, paper)) >= 10


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"find": None}, "either 'find' or 'copy_of'"),
        ({"copy_of": "b.py"}, "either 'find' or 'copy_of'"),
        ({"find": "x", "replace": "x"}, "changes nothing"),
        ({"find": None, "copy_of": "a.py"}, "changes nothing"),
        ({"file": "../outside.py"}, "not a path inside"),
        ({"file": "/etc/passwd"}, "not a path inside"),
        ({"caught_by": ["luck"]}, "caught_by"),
    ],
)
def test_a_mutation_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        mutation(**fields)


def test_a_broken_corpus_says_where(tmp_path):
    folder = tmp_path / "referee" / "mutations"
    with pytest.raises(CalibrationError, match="holds no mutations"):
        corpus(tmp_path)
    folder.mkdir(parents=True)
    entry = json.loads(mutation().model_dump_json())
    (folder / "a.yaml").write_text(json.dumps({"mutations": [entry | {"severe": "yes"}]}, indent=1))
    with pytest.raises(DocumentError, match=r"referee/mutations/a.yaml:\d+: CAL-005: .*'severe'.*'severity'"):
        corpus(tmp_path)
    (folder / "a.yaml").write_text(json.dumps({"mutations": [entry, entry]}))
    with pytest.raises(CalibrationError, match="'m' is used twice"):
        corpus(tmp_path)


# -- Planting ----------------------------------------------------------------------------------------------------------


def test_places_are_the_lines_that_differ(tmp_path):
    (tmp_path / "a.py").write_text("one\ntwo\nthree\nfour\nfive\nsix\n")
    places = plant(
        tmp_path,
        [
            mutation("last", find="five\nsix", replace="5\n6\n7"),
            mutation("context", find="two\nthree", replace="two\nand a half\nthree"),
            mutation("gone", find="four\n", replace=""),
        ],
    )
    assert (tmp_path / "a.py").read_text() == "one\ntwo\nand a half\nthree\n5\n6\n7\n"
    assert places == {
        "context": Place("a.py", 3, 3),
        "gone": Place("a.py", 5, 5),
        "last": Place("a.py", 5, 7),
    }


def test_all_or_nothing_is_planted(tmp_path):
    (tmp_path / "a.py").write_text("x y y\n")
    (tmp_path / "b.py").write_text("z\n")
    for wrong, message in (
        ([mutation("twice", find="y")], "stands 2 times in a.py"),
        ([mutation("never", find="w")], "stands 0 times in a.py"),
        ([mutation("no-file", file="c.py")], "c.py cannot be read"),
        ([mutation("one", find="x y"), mutation("two", find="y y")], "change the same text"),
        ([mutation("one", find=None, copy_of="b.py"), mutation("two")], "change the same file"),
    ):
        with pytest.raises(CalibrationError, match=message):
            plant(tmp_path, [mutation("good", file="b.py", find="z", replace="Z"), *wrong])
        assert (tmp_path / "a.py").read_text() == "x y y\n"
        assert (tmp_path / "b.py").read_text() == "z\n"


def test_a_file_of_another_run(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"\x00\xff")
    (tmp_path / "b.bin").write_bytes(b"\xfe")
    assert plant(tmp_path, [mutation(file="a.bin", find=None, copy_of="b.bin")]) == {"m": Place("a.bin")}
    assert (tmp_path / "a.bin").read_bytes() == b"\xfe"


# -- Measuring ---------------------------------------------------------------------------------------------------------

TOY = '''\
"""An invented paper."""

from common.probes import ProbeResult


def double(x):
    return 2 * x


def probe():
    return ProbeResult("even", "a double is even", double(1) % 2 == 0)


PRESETS = {}
PROBES = {"even": probe}
'''

TEST = """\
from projects.toy.toy import double

def test_double():
    assert double(3) == 6

def test_that_fails_anyway():
    assert False
"""


def git(root: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(root), *arguments], check=True, capture_output=True)


MUTATIONS = {
    m.id: m
    for m in (
        mutation("loud", "projects/toy/toy.py", "2 * x", replace="3 * x", caught_by=["tests", "probe even"]),
        mutation(
            "quiet",
            "projects/toy/toy.py",
            "2 * x",
            replace="(x + x if x < 7 else 0)",
            mistake="p(x | y).",
            caught_by=["tests"],
        ),
        mutation("page", "projects/toy/README.md", "By hand", replace="By foot", caught_by=["person"]),
    )
}


@pytest.fixture
def repository(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small repository of these tests under git, with a few mutations."""
    toy = root / "projects" / "toy"
    (toy / "toy.py").write_text(TOY)
    (toy / "test_toy.py").write_text(TEST)
    (toy / "project.yaml").write_text((toy / "project.yaml").read_text().replace("probes: [good]", "probes: [even]"))
    for module in (measuring, calibrate):
        monkeypatch.setattr(module, "corpus", lambda root: MUTATIONS)
    monkeypatch.chdir(root)
    git(root, "init", "-q")
    commit(root)
    return root


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "x")


def state(root: Path) -> dict[str, bytes]:
    """All files of the repository but git's own."""
    files = (path for path in root.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def test_a_mistake_is_measured_in_a_copy_by_tests_probes_and_checks(repository, capsys):
    """With the real commands: the one mistake, and what fails without it."""
    ignore = shutil.ignore_patterns("__pycache__", "mutations")
    for package in ("common", "referee"):
        shutil.copytree(ROOT / package, repository / package, ignore=ignore)
    commit(repository)
    before = state(repository)
    assert main(["calibrate", "measure", "--only", "loud"]) == 0
    out = capsys.readouterr().out
    assert "loud: tests: test_toy::test_double; probes: even" in out
    after = state(repository)
    assert {name for name in after if before.get(name) != after[name]} == {
        "docs/calibration.json",
        "docs/calibration.md",
    }
    assert not before.keys() - after.keys()
    page = after["docs/calibration.md"].decode()
    assert "| `test_toy::test_double` | `even` | – |" in page
    assert "`test_toy::test_that_fails_anyway`" in page.split("Failed without any mistake")[1]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Commands that answer at once, and what they were asked: (folder, question)."""
    questions: list[tuple[str, str]] = []

    def ask(self: object, folder: Path, question: str, known: object = None) -> list[str]:
        questions.append((folder.name, question))
        source = (folder / "projects/toy/toy.py").read_text()
        if question.startswith("pytest"):
            failing = ["projects/toy/test_toy.py::test_anyway"]
            return failing + ["projects/toy/test_toy.py::test_double[1 2]"] * ("3 * x" in source)
        return ["even"] if question.startswith("probe") and "3 * x" in source else []

    monkeypatch.setattr(measuring._Commands, "ask", ask)
    monkeypatch.setattr(measuring._Commands, "write_tables", lambda self, folder: None)
    monkeypatch.setattr(measuring, "_require_own_code", lambda commands, copy: None)
    return questions


def test_the_table_tells_who_noticed_what(repository, asked, capsys):
    assert main(["calibrate", "measure"]) == 0
    summary = "3 mistakes: 1 noticed (1 by tests, 1 by probes, 0 by checks), 1 that only a person can see, 1 by nobody."
    assert summary in capsys.readouterr().out
    page = (repository / "docs/calibration.md").read_text()
    assert summary in page
    assert "| `projects/toy` | 2 | 1 | 1 | 0 | 0 | 1 |" in page
    assert "| what was published | 1 | 0 | 0 | 0 | 1 | 0 |" in page
    assert "| all | 3 | 1 | 1 | 0 | 1 | 1 |" in page
    code, published = page.split("## Planted in what was published")
    assert "| `loud`<br><sub>Wrong.</sub> | major | `test_toy::test_double` | `even` | – |" in code
    assert "| `quiet`<br>**nobody**<br><sub>p(x \\| y).</sub> | major | – | – | – |" in code
    assert "| `page`<br>**only a person**<br><sub>Wrong.</sub> | major | – |" in published
    assert "- `quiet`: tests." in page.split("Expected to notice, and did not")[1]
    assert {q for folder, q in asked if folder == "page"} == {"reread toy"}  # tests do not look at what was published
    assert {q for folder, q in asked if folder == "quiet"} == {"pytest projects/toy", "probe toy", "check toy"}


def test_a_probe_applied_to_common_code_counts_as_that_probe(tmp_path):
    unused = mutation(
        file="common/data/preprocess.py", projects=[], caught_by=["tests", "probe bits", "probe quantise"]
    )
    own, applied = questions = measuring.questions(tmp_path, unused)
    failed = {own: [], applied: [f"{measuring.APPLIED}::test_bits[256-Dequantise(levels=256)]"]}
    answers = {q: {"planted": measuring.identity(unused), "code": "", "failed": failed[q]} for q in questions}
    by = measuring.caught(tmp_path, unused, {unused.id: answers})
    assert by == {"tests": [], "probes": ["bits"], "checks": []}
    assert measuring.silent(unused, by) == ["tests", "probe quantise"]
    assert (ROOT / measuring.APPLIED).is_file()


def test_the_page_shows_what_was_measured_of_every_mistake():
    answers = json.loads((ROOT / measuring.KEPT).read_text(encoding="utf-8"))
    remedy = "run `referee calibrate measure`"
    for name, m in CORPUS.items():
        assert measuring.caught(ROOT, m, answers) is not None, f"{name} was not measured: {remedy} --only {name}"
    assert answers.keys() == {measuring.WITHOUT, *CORPUS}, f"{remedy}: it forgets what is not in the corpus any more"
    assert (ROOT / measuring.PAGE).read_text(encoding="utf-8") == measuring.page(ROOT, CORPUS, answers), remedy


@pytest.mark.parametrize(("path", "named"), [("test_any.py", 1), (measuring.APPLIED, 2)])
def test_one_test_that_fails_is_enough_but_every_applied_probe_is_asked(tmp_path, path, named):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text("def test_bits():\n    assert False\n\ndef test_quantise():\n    assert False\n")
    with measuring._Commands(timeout_s=60) as commands:
        failed = commands.ask(tmp_path, f"pytest {path}", [])
    assert failed == [f"{path}::test_bits", f"{path}::test_quantise"][:named]


def test_what_was_started_in_the_background_measures_the_same(tmp_path):
    """A shell lets it ignore Ctrl-C; what it runs must not, or its tests of Ctrl-C fail."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with measuring._stoppable(), measuring._Commands(timeout_s=60) as commands:
            _, output = commands.run(tmp_path, ["-c", "import signal; print(signal.getsignal(signal.SIGINT))"])
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert "default_int_handler" in output


def test_only_what_changed_is_asked_again(repository, asked, capsys):
    main(["calibrate", "measure", "--only", "quiet,page"])
    asked.clear()
    main(["calibrate", "measure"])
    assert {folder for folder, _ in asked} == {"loud"}
    asked.clear()
    main(["calibrate", "measure"])
    assert not asked
    main(["calibrate", "measure", "--fresh", "--only", "page"])
    assert asked == [("clean", "reread toy"), ("page", "reread toy")]
    asked.clear()
    (repository / "projects/toy/toy.py").write_text(TOY + "\n\nMORE = 1\n")
    main(["calibrate", "measure", "--table"])
    assert not asked
    main(["calibrate", "measure"])
    assert len(asked) == 4 + 3 + 3 + 1
    asked.clear()
    (repository / "projects/toy/test_toy.py").write_text(TEST + "\n\nMORE = 1\n")  # of which no probe knows
    main(["calibrate", "measure"])
    assert {question for _, question in asked} == {"pytest projects/toy", "check toy", "reread toy"}
    assert capsys.readouterr().out.count("page: nobody") == 4


def test_an_interruption_loses_nothing(repository, asked, monkeypatch):
    ask = measuring._Commands.ask

    def interrupted(self, folder, question, known=None):
        if (folder.name, question) == ("quiet", "probe toy"):
            raise KeyboardInterrupt
        return ask(self, folder, question, known)

    monkeypatch.setattr(measuring._Commands, "ask", interrupted)
    assert main(["calibrate", "measure"]) == 130
    monkeypatch.setattr(measuring._Commands, "ask", ask)
    asked.clear()
    assert main(["calibrate", "measure"]) == 0
    assert ("loud", "pytest projects/toy") not in asked
    assert ("quiet", "pytest projects/toy") not in asked
    assert ("quiet", "probe toy") in asked


def test_no_answer_is_none_and_counts_for_nothing(repository, asked, monkeypatch, capsys):
    ask = measuring._Commands.ask

    def slow(self, folder, question, known=None):
        return None if (folder.name, question) == ("loud", "probe toy") else ask(self, folder, question, known)

    monkeypatch.setattr(measuring._Commands, "ask", slow)
    assert main(["calibrate", "measure"]) == 0
    out = capsys.readouterr().out
    assert "loud: no answer from 'probe toy' in 600 s" in out
    assert "2 mistakes: 0 noticed" in out
    assert "1 more are not measured yet" in out
    monkeypatch.setattr(measuring._Commands, "ask", lambda *arguments: None)
    assert main(["calibrate", "measure", "--fresh"]) == 1
    assert "larger --timeout" in capsys.readouterr().err


def test_a_copy_holds_the_working_tree_above_the_history(repository):
    """What was accepted when is read from the history."""

    def commits(folder: Path) -> list[str]:
        command = ["git", "-C", str(folder), "rev-list", "HEAD"]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()

    (repository / "projects/toy/toy.py").write_text("EDITED = 1\n")
    (repository / "not_tracked").write_text("")
    copy = repository.parent / "copy"
    calibrate.clone(repository, copy)
    calibrate.commit(copy)
    assert (copy / "projects/toy/toy.py").read_text() == "EDITED = 1\n"
    assert not (copy / "not_tracked").exists()
    assert commits(copy)[1:] == commits(repository)


def test_records_of_a_copy_say_that_its_code_made_them(root, make):
    for folder in ("k5", "k5/seed-1"):
        make("laptop", folder, code_digest="0" * 64)
    calibrate.restamp(root, ["toy", "no_such_project"])
    toy = Project(root, "toy")
    for folder in ("k5", "k5/seed-1"):
        assert Record.load(toy.results / "laptop" / folder).code_digest == code_digest(toy.paper_file)


def test_a_command_that_hangs_ends_with_all_that_it_started(tmp_path):
    commands = measuring._Commands(timeout_s=1.0)
    child = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', %r]); time.sleep(60)"
    grandchild = f"import time; time.sleep(2.5); open({str(tmp_path / 'alive')!r}, 'w')"
    start = time.monotonic()
    status, _ = commands.run(tmp_path, ["-c", child % grandchild])
    assert status is None
    assert time.monotonic() - start < 10
    time.sleep(2.5)
    assert not (tmp_path / "alive").exists()
    commands.stop()
    with pytest.raises(CalibrationError):
        commands.run(tmp_path, ["-c", ""])


def test_what_a_copy_must_not_do(tmp_path):
    with pytest.raises(CalibrationError, match="not its own code"):
        measuring._require_own_code(measuring._Commands(60), tmp_path)  # has no code: an installed one is found
    with pytest.raises(CalibrationError, match="no git repository"):
        copy_tracked(tmp_path, tmp_path / "copy")


def test_unknown_mistakes_and_broken_results_are_refused(repository, asked, capsys):
    assert main(["calibrate", "measure", "--only", "lout"]) == 2
    assert "Did you mean 'loud'?" in capsys.readouterr().err
    (repository / "docs").mkdir()
    (repository / "docs/calibration.json").write_text("{")
    assert main(["calibrate", "measure"]) == 1
    assert "not JSON" in capsys.readouterr().err


# -- A reviewer's exercise ---------------------------------------------------------------------------------------------


def start(root: Path, **changes: str) -> int:
    options = {"--as": "ada", "--seed": "7", "--into": "../ada", "--private": "../keys", "--mistakes": "1"}
    options |= {f"--{name}": value for name, value in changes.items()}
    return main(["calibrate", "start", "toy", *(word for pair in options.items() for word in pair)])


def test_a_reviewer_gets_a_copy_with_mistakes_and_nothing_that_tells(repository, capsys):
    (repository / "referee/mutations").mkdir(parents=True)
    (repository / "referee/mutations/toy.yaml").write_text("secret")
    (repository / "tests").mkdir()
    (repository / "tests/test_it.py").write_text("secret")
    commit(repository)
    before = state(repository)
    assert start(repository) == 0
    assert state(repository) == before
    folder = repository.parent / "ada"
    key = Key.model_validate_json((repository.parent / "keys" / "ada-toy.key.json").read_text())
    (planted,) = key.mistakes
    chosen = MUTATIONS[planted.id]
    assert chosen.replace in (folder / planted.path).read_text().split("\n")[planted.first - 1]
    told = capsys.readouterr().out + "".join(path.read_text() for path in folder.rglob("*.md"))
    assert chosen.id not in told
    assert chosen.mistake not in told
    assert not any("secret" in path.read_text() for path in folder.rglob("*.*") if ".git" not in path.parts)
    assert not list(folder.rglob("test_*.py"))
    form = (folder / "reviews/toy/ada.md").read_text()
    assert parse_review(form, "ada.md").head.commit == key.commit
    git(folder, "diff", "--exit-code", "HEAD")  # one commit, to which a review is pinned
    assert not list(repository.parent.glob(".exercise-*"))


def test_what_is_drawn_depends_on_the_seed_and_the_reviewer_alone(copy):
    choices = calibrate.eligible(CORPUS, "iwae")
    draws = {
        (seed, who): [m.id for m in draw(copy, choices, 4, seed, who)] for seed in range(4) for who in ("ada", "bo")
    }
    assert draws[0, "ada"] == [m.id for m in draw(copy, choices, 4, 0, "ada")]
    assert len(set(map(tuple, draws.values()))) == 8
    assert all(m.find is not None for m in choices)
    together = draw(copy, choices, 12, 3, "ada")
    before = {m.file: (copy / m.file).read_bytes() for m in together}
    try:
        assert len(plant(copy, together)) == 12
    finally:
        for file, content in before.items():
            (copy / file).write_bytes(content)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"private": "keys"}, "--private .* inside the repository"),
        ({"into": "ada"}, "--into .* inside the repository"),
        ({"private": "../ada/keys"}, "inside the reviewer's folder"),
        ({"into": "..", "private": "../../keys"}, "exists already"),
        ({"as": "../ada"}, "no public handle"),
        ({"mistakes": "0"}, "at least one"),
        ({"mistakes": "99"}, "ask for fewer"),
    ],
)
def test_an_exercise_that_would_give_itself_away_is_refused(changes, message, repository, capsys):
    before = sorted(path.name for path in repository.parent.iterdir())
    assert start(repository, **changes) in (1, 2)
    assert re.search(message, capsys.readouterr().err)
    assert sorted(path.name for path in repository.parent.iterdir()) == before


def test_a_second_exercise_does_not_replace_the_key(repository, capsys):
    assert start(repository) == 0
    sealed = repository.parent / "keys" / "ada-toy.key.json"
    before = sealed.read_bytes()
    assert start(repository, into="../again", seed="8") == 2
    assert "exists already" in capsys.readouterr().err
    assert sealed.read_bytes() == before
    assert sealed.stat().st_mode & 0o077 == 0


# -- Scoring -----------------------------------------------------------------------------------------------------------

HEAD = """\
---
reviewer: ada
paper: toy
round: 1
commit: "{commit}"
checklist: 1
conflict_of_interest: none
hardware: two cores
minutes: 90
ai_use: none
recommendation: major
---
## Summary
Well written.
## Checklist
## Findings
"""


def review(*findings: tuple[str, str], handle: str = "ada"):
    text = HEAD.format(commit="0" * 40).replace("reviewer: ada", f"reviewer: {handle}")
    for number, (severity, place) in enumerate(findings, start=1):
        text += f"### F{number} · {severity} · `{place}`\nThis is wrong.\n"
    return parse_review(text, "ada.md")


def planted(name: str, severity: str, first: int, last: int, path: str = "projects/toy/toy.py") -> Planted:
    return Planted(
        id=name, severity=severity, item="faith-equations", mistake="Wrong.", path=path, first=first, last=last
    )


KEY = Key(
    handle="ada",
    paper="toy",
    seed=7,
    commit="0" * 40,
    mistakes=[
        planted("one", "critical", 10, 12),
        planted("two", "critical", 40, 40),
        planted("three", "minor", 5, 5, "common/x.py"),
    ],
)


def test_precision_and_recall_by_severity():
    result = compare(
        review(
            ("major", "projects/toy/toy.py:11"),
            ("minor", "projects/toy/toy.py:25"),  # nothing was planted there
            ("minor", "projects/toy/toy.py:5"),  # the line of another file
            ("question", "projects/toy/toy.py:40"),  # a question claims nothing
        ),
        KEY,
    )
    assert result.found == {"one": "F1"}
    assert result.missed == ("two", "three")
    assert result.other == ("F2", "F3")
    assert (result.precision, result.recall) == (1 / 3, 1 / 3)
    assert result.recall_by_severity == {"critical": (1, 2), "minor": (0, 1)}
    assert result.minutes == 90


def test_one_finding_names_one_mistake_only():
    result = compare(review(("critical", "projects/toy/toy.py:1-400")), KEY)
    assert len(result.found) == 1
    assert compare(review(), KEY).precision is None
    assert compare(review(), KEY).recall == 0


def test_a_review_of_something_else_is_not_scored():
    with pytest.raises(CalibrationError, match="bo's review of toy, the key is for ada's of toy"):
        compare(review(handle="bo"), KEY)
    with pytest.raises(CalibrationError, match="about commit 000000000000, the key about another copy"):
        compare(review(), KEY.model_copy(update={"commit": "1" * 40}))


def test_score_command(tmp_path, capsys):
    path, key = tmp_path / "ada.md", tmp_path / "key.json"
    finding = "### F1 · critical · `projects/toy/toy.py:12`\nThis is wrong.\n"
    path.write_text(HEAD.format(commit="0" * 40) + finding)
    key.write_text(KEY.model_dump_json())
    assert main(["calibrate", "score", str(path), "--key", str(key)]) == 0
    out = capsys.readouterr().out
    assert "found as F1" in out
    assert out.count("missed") == 2
    assert "precision 100% · recall 33% (critical 1 of 2, minor 0 of 1)" in out
    assert main(["calibrate", "score", str(path), "--key", str(key), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["missed"] == ["two", "three"]
    key.write_text('{"handle": "ada"}')
    assert main(["calibrate", "score", str(path), "--key", str(key)]) == 1
    assert "not a key" in capsys.readouterr().err
