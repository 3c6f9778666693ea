"""`referee new`: what it makes runs, reads well, and cannot be turned into something else by a title."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from referee.checks import Submission, run
from referee.cli import main
from referee.loading import parse_project
from referee.project import Project
from referee.scaffold import FILES, MARKER, Entry, create, render

ROOT = Path(__file__).parents[2]
WORDS = {
    "--title": "A Paper on Toys",
    "--authors": "Ada Maker, Bo Player",
    "--venue": "ICLR",
    "--year": "2016",
    "--arxiv": "1509.00519",
    "--family": "vae",
    "--team": "ada,bo",
}
MADE = {"__init__.py", "project.yaml", "toys.py", "test_toys.py", "toys.ipynb", "README.md"}
HOSTILE = {
    "quotes": '"What\'s" a \'paper\'? """ + __import__(\'os\').abort() + """',
    "backslashes": r"\N{BULLET} \x41 C:\new\table \\",
    "yaml": "key: [a, {b: *c}] # no comment, & !tag | >- % @ `",
    "braces": "{name} {{0}} %s ${HOME} $(id) `id` __AUTHORS__ __PAPER__ __init__",
    "html": "<script>alert(1)</script> <!-- /referee:claims --> &lt;b&gt;",
    "markdown": "# *one* [two](javascript:x) ![three](x) | four `five` ~~six~~ $x^2$",
    "json": '", "cell_type": "code", "source": ["import os"], "x": "',
    "emoji": "Dés 🎲 à la mode — 図書館 ∇ log p(x)",
    "long": "Deep " * 59 + "ends",
    "one long word": "x" * 300,
    "only quotes": '""""""',
}


def new(*arguments: str, name: str = "toys", **words: str) -> int:
    given = {**WORDS, **{f"--{option}": text for option, text in words.items()}}
    options = [f"{option}={text}" for option, text in given.items() if text is not None]
    return main(["new", name, *options, *arguments])


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository without a project, and the command line inside it."""
    folder = tmp_path / "repository"
    (folder / "projects").mkdir(parents=True)
    (folder / "projects" / "__init__.py").write_text("")
    shutil.copytree(ROOT / "templates", folder / "templates")
    shutil.copy(ROOT / "pyproject.toml", folder)
    (folder / "README.md").write_text("# All\n\n<!-- referee:projects -->\n<!-- /referee:projects -->\n")
    monkeypatch.chdir(folder)
    return folder


def read(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def entry(title: str = "A Paper on Toys", **fields) -> Entry:
    given = {"name": "toys", "authors": ("Ada Maker", "Bo Player"), "venue": "ICLR", "year": 2016}
    return Entry(**{**given, "title": title, "arxiv": "1509.00519", "family": "vae", "team": ("ada", "bo"), **fields})


# -- What is made ------------------------------------------------------------------------------------------------------


def test_new_makes_a_project_and_says_what_is_left_to_write(there, capsys):
    assert new() == 0
    files = read(there / "projects" / "toys")
    assert set(files) == MADE
    file = Project(there, "toys").load()
    assert file.stage == "proposed"
    assert (file.paper.title, file.paper.year, file.paper.arxiv) == ("A Paper on Toys", 2016, "1509.00519")
    assert file.paper.authors == ["Ada Maker", "Bo Player"]
    assert [member.handle for member in file.team] == ["ada", "bo"]
    assert [claim.kind for claim in file.claims] == ["value", "ordering"]
    assert files["toys.py"].startswith(
        '"""A Paper on Toys. Ada Maker & Bo Player, ICLR 2016. https://arxiv.org/abs/1509.00519\n'
    )
    said = capsys.readouterr().out
    for name, text in files.items():
        for number in (n for n, line in enumerate(text.splitlines(), 1) if MARKER in line):
            if name != "README.md":  # whose tables repeat project.yaml
                assert re.search(rf"projects/toys/{re.escape(name)}: lines? .*\b{number}\b", said), (name, number)
    assert main(["tables", "toys", "--check"]) == 0


def git(root: Path, *arguments: str) -> str:
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    who = {f"GIT_{role}_{what}": "ada" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("GIT_")}, **settings, **who}
    done = subprocess.run(["git", "-C", root, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_proposals_touch_their_own_folder_alone_and_are_merged_without_conflict(there, capsys):
    new(name="sketches")
    main(["tables"])
    git(there, "init", "-q", "-b", "main")
    git(there, "add", ".")
    git(there, "commit", "-qm", "A project")
    for name in ("strokes", "toys"):
        git(there, "switch", "-q", "-c", name, "main")
        assert new(name=name) == 0
        assert {line[3:] for line in git(there, "status", "--porcelain").splitlines()} == {f"projects/{name}/"}
        assert main(["tables", "--check"]) == 0  # before it is committed, and after
        git(there, "add", ".")
        git(there, "commit", "-qm", f"Propose {name}")
        assert main(["tables", "--check"]) == 0
    git(there, "switch", "-q", "main")
    for name in ("strokes", "toys"):
        git(there, "merge", "-q", "--no-ff", "-m", f"Merge {name}", name)
    capsys.readouterr()
    assert main(["tables", "--check"]) == 0
    assert "waits for main" in capsys.readouterr().out
    main(["tables"])
    assert (there / "README.md").read_text().count("](projects/") == 3


def test_a_paper_that_is_not_on_arxiv(there):
    assert new(arxiv=None) == 0
    assert Project(there, "toys").load().paper.arxiv is None
    assert all("arxiv.org" not in text for text in read(there / "projects" / "toys").values())


@pytest.mark.parametrize("number", ["1509.00519v3", "arXiv:1509.00519", "https://arxiv.org/abs/1509.00519v2"])
def test_arxiv_numbers_as_people_copy_them(there, number):
    assert new(arxiv=number) == 0
    assert Project(there, "toys").load().paper.arxiv == "1509.00519"


def test_authors_with_commas_in_their_names(there):
    assert new(authors="Sammy Davis, Jr.; Ada Maker") == 0
    assert Project(there, "toys").load().paper.authors == ["Sammy Davis, Jr.", "Ada Maker"]


def test_checks_find_what_is_left_to_write_and_nothing_else(there):
    assert new(family="mixture") == 0
    project = Project(there, "toys")

    def wanted(stage: str) -> dict[str, set[str]]:
        # of the project itself; people, reviews and dates are another matter
        findings = [f for f in run(Submission(project, stage)).findings if f.rule[:3] not in ("REV", "STG", "CRS")]
        return {
            rule: {Path(f.file).name for f in findings if f.rule == rule}
            for rule in {f.rule for f in findings if f.severity == "error"}
        }

    assert wanted("proposed") == {"DOC-003": {"project.yaml"}}
    left = wanted("v1")
    assert left.pop("DOC-003") == MADE - {"__init__.py"}
    assert left == {"LAY-001": {"results"}, "NB-005": {"toys.ipynb"}, "RES-002": {"project.yaml"}}  # no results yet

    places = {  # what is marked is found, line by line
        (f.file, f.line) for f in run(Submission(project, "v1"), only=["DOC-003"]).findings if ".ipynb" not in f.file
    }
    marked = {
        (f"projects/toys/{name}", number)
        for name, text in render(there, entry(family="mixture", authors=("A",))).items()
        for number, line in enumerate(text.splitlines(), 1)
        if MARKER in line and not name.endswith(".ipynb")
    }
    assert {p for p in places if "README" not in p[0]} == {m for m in marked if "README" not in m[0]}


COURSE = "name: A course\npeople:\n  - {handle: ada, roles: [developer]}\n  - {handle: bob, roles: [developer]}\n"


def test_a_proposal_is_one_file(there, capsys):
    new()
    assert "a proposal is projects/toys/project.yaml alone" in capsys.readouterr().out
    folder = there / "projects" / "toys"
    for path in folder.iterdir():
        if path.name != "project.yaml":
            path.unlink()
    text = (folder / "project.yaml").read_text()
    claims = text.partition("\ndeviations:")[0]
    (folder / "project.yaml").write_text(claims.replace(MARKER, "") + "\n")
    assert run(Submission(Project(there, "toys"), "proposed")).findings == ()


def test_a_handle_that_the_course_does_not_know_is_a_warning(there, capsys):
    (there / "course.yaml").write_text(COURSE)
    assert new(team="Ada,bo") == 0
    said = capsys.readouterr().err
    assert "course.yaml lists nobody as 'bo'. Did you mean 'bob'?" in said
    assert "'Ada'" not in said


def test_a_course_that_cannot_be_read_is_a_warning(there, capsys):
    (there / "course.yaml").write_text("people: {")
    assert new() == 0
    assert "could not be told: course.yaml:1: CRS-002" in capsys.readouterr().err
    assert set(read(there / "projects" / "toys")) == MADE


# -- Nothing is taken for something else -------------------------------------------------------------------------------


@pytest.mark.parametrize("title", HOSTILE.values(), ids=HOSTILE)
def test_a_title_stays_a_title(title):
    plain, files = render(ROOT, entry()), render(ROOT, entry(title, authors=(title, "Bo"), venue=title))
    assert parse_project(files["project.yaml"]).paper.title == title.strip()
    assert parse_project(files["project.yaml"]).paper.authors[0] == title.strip()

    said = ast.get_docstring(ast.parse(files["toys.py"])).split()  # white space aside, which wraps
    assert said[: len(title.split())] == title.split() or "".join(said).startswith("".join(title.split()))
    for name in ("toys.py", "test_toys.py", "__init__.py"):  # but for the first docstring, the same program
        tree, expected = ast.parse(files[name]), ast.parse(plain[name])
        assert ast.dump(ast.Module(tree.body[1:], [])) == ast.dump(ast.Module(expected.body[1:], []))

    cells, expected = (json.loads(f["toys.ipynb"])["cells"] for f in (files, plain))
    assert [(c["cell_type"], c["id"]) for c in cells] == [(c["cell_type"], c["id"]) for c in expected]
    assert [c["source"] for c in cells if c["cell_type"] == "code"] == [
        c["source"] for c in expected if c["cell_type"] == "code"
    ]
    for text in (files["README.md"], "".join(cells[0]["source"])):
        assert not re.search(r"<(?!!-- /?referee:\w+ -->)", text)  # no HTML but our own markers
        assert text.count("<!--") in (0, 6)
        assert not re.search(r"(?<!\\)\[(two|three)(?<!\\)\]", text)


def test_what_is_made_is_in_the_houses_style(there):
    for number, title in enumerate([WORDS["--title"], *HOSTILE.values()]):
        name = "abcdefghijkl"[number] * (30 if number % 2 else 1)
        assert new(name=name, title=title, authors=f"{re.sub('[,;]', '', title)}, Bo", venue=title) == 0
    for tool in (["ruff", "check", "--no-cache"], ["black", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", *tool, "projects", "templates"], capture_output=True, text=True, cwd=there
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"title": "two\nlines"}, "--title: holds the character U+000A"),
        ({"title": "turned ‮ around"}, "--title: holds the character U+202E"),
        ({"title": "null\0byte"}, "--title: holds the character U+0000"),
        ({"title": "escape \x1b[31m"}, "--title: holds the character U+001B"),
        ({"title": "\udcff"}, "--title: holds the character U+DCFF"),
        ({"title": "next\x85line"}, "--title: holds the character U+0085"),
        ({"title": "a\u2028b"}, "--title: holds the character U+2028"),
        ({"title": "\uffff"}, "--title: holds the character U+FFFF"),
        ({"title": "  "}, "--title: is empty"),
        ({"title": "x" * 301}, "--title: has 301 characters; at most 300"),
        ({"title": "WRITE: a title"}, "--title: begins with WRITE:"),
        ({"authors": "Ada,,Bo"}, "--authors: is empty"),
        ({"authors": ",".join("abcdefghij" * 6)}, "at most 50 people"),
        ({"venue": "ICLR\r"}, "--venue: holds the character U+000D"),
        ({"year": "16"}, "--year: '16' is no year"),
        ({"year": "2101"}, "--year: '2101' is no year"),
        ({"year": "٢٠١٦"}, "is no year"),
        ({"arxiv": "1513.00519"}, "--arxiv: '1513.00519' is no arXiv number"),
        ({"arxiv": "1509.00519\n"}, None),  # white space around it is no mistake
        ({"arxiv": "https://evil.example/abs/1509.00519"}, "is no arXiv number"),
        ({"family": "vea"}, "unknown family 'vea'. Did you mean 'vae'?"),
        ({"team": "ada, Ada"}, "nobody stands in a team twice"),
        ({"team": "ada,@bo"}, "--team: '@bo' is no public handle"),
        ({"team": "аda"}, "is no public handle"),  # its first letter is Cyrillic
        ({"team": ""}, "--team: '' is no public handle"),
    ],
    ids=str,
)
def test_words_that_cannot_be_are_refused(there, capsys, words, said):
    if said is None:
        assert new(**words) == 0
        return
    assert new(**words) == 2
    assert said in capsys.readouterr().err
    assert list((there / "projects").iterdir()) == [there / "projects" / "__init__.py"]


@pytest.mark.parametrize(
    "name",
    [
        *["", "Toys", "2toys", "to-ys", "../toys", "toys/x", "toys.py", "t oys", "töys", "__init__", "_toys", "a" * 31],
        *["class", "random", "test", "torch", "numpy", "common", "referee", "conftest", "results", "test_toys"],
    ],
)
def test_names_that_cannot_be_are_refused(there, capsys, name):
    assert new(name=name) == 2
    assert "name" in capsys.readouterr().err
    assert list((there / "projects").iterdir()) == [there / "projects" / "__init__.py"]


def test_everything_wrong_is_said_at_once(there, capsys):
    assert new(year="x", family="x", team="x y") == 2
    said = capsys.readouterr().err
    assert all(f"new: --{option}: " in said for option in ("year", "family", "team"))


@pytest.mark.parametrize("what", ["folder", "empty folder", "file", "dangling link"])
def test_nothing_is_overwritten(there, capsys, what):
    target = there / "projects" / "toys"
    match what:
        case "folder" | "empty folder":
            target.mkdir()
            if what == "folder":
                (target / "notes.txt").write_text("mine")
        case "file":
            target.write_text("mine")
        case _:
            target.symlink_to("nowhere")
    assert new() == 2
    assert "is there already; nothing was changed" in capsys.readouterr().err
    assert not (target / "project.yaml").exists()


def test_all_files_or_none(there, capsys, monkeypatch):
    import referee.scaffold

    written, write = [], referee.scaffold.write_text

    def full(path: Path, text: str) -> None:
        written.append(path)
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        write(path, text)

    monkeypatch.setattr(referee.scaffold, "write_text", full)
    assert new() == 1
    assert "cannot be made: No space left on device. Nothing was changed." in capsys.readouterr().err
    assert list((there / "projects").iterdir()) == [there / "projects" / "__init__.py"]


def test_a_broken_neighbour_is_no_obstacle(there):
    (there / "projects" / "other").mkdir()
    (there / "projects" / "other" / "project.yaml").write_text("stage: [")
    assert new() == 0
    assert set(read(there / "projects" / "toys")) == MADE


def test_a_missing_template_is_named(there, capsys):
    (there / "templates" / "project" / "paper.py").unlink()
    assert new() == 1
    assert "templates/project/paper.py cannot be read" in capsys.readouterr().err


def test_the_template_is_no_longer_than_a_newcomer_reads():
    assert (ROOT / "templates" / "project" / "paper.py").read_text().count("\n") <= 170
    assert set(os.listdir(ROOT / "templates" / "project")) - {"__pycache__"} == set(FILES)


def test_every_word_of_the_template_is_replaced():
    for name, text in render(ROOT, entry()).items():
        assert not re.search(r"__[A-Z]+__", text), name


# -- It runs as it stands ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with a project that `referee new` has made."""
    root = tmp_path_factory.mktemp("copy")
    for folder in ("common", "referee", "templates"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "projects").mkdir()
    (root / "projects" / "__init__.py").write_text("")
    shutil.copy(ROOT / "pyproject.toml", root)
    (root / "README.md").write_text("# All\n\n<!-- referee:projects -->\n<!-- /referee:projects -->\n")
    words = [f"{option}={text}" for option, text in {**WORDS, "--title": HOSTILE["quotes"]}.items()]
    done = call(root, "referee", "new", "toys", *words)
    assert done.returncode == 0, done.stderr
    return root


def call(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )


def test_its_probes_pass(made):
    done = call(made, "referee", "probe", "toys", "--format", "json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [(p["name"], p["passed"]) for p in json.loads(done.stdout)["probes"]] == [
        ("normalisation", True),
        ("invariance", True),
        ("resume", True),
    ]


def executed(root: Path, results: Path | None = None) -> list[list[str]]:
    """The text that each code cell of the notebook prints."""
    import nbformat
    from nbclient import NotebookClient
    from traitlets.config import Config

    config = Config()
    config.KernelManager.transport_encryption = "auto"
    notebook = nbformat.read(root / "projects" / "toys" / "toys.ipynb", as_version=4)
    where = {"metadata": {"path": str(root / "projects" / "toys")}}
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    if results:
        environment["REFEREE_RESULTS"] = str(results)
    NotebookClient(notebook, timeout=120, resources=where, config=config).execute(env=environment)
    return printed(notebook)


def printed(notebook) -> list[list[str]]:
    return [["".join(o.get("text", "")) for o in c["outputs"]] for c in notebook["cells"] if c["cell_type"] == "code"]


def test_it_runs_and_its_notebook_shows_the_results(made):
    notebook = json.loads((made / "projects" / "toys" / "toys.ipynb").read_text())
    assert executed(made) == printed(notebook)  # what it holds is what it gives, before anything ran
    assert [c["execution_count"] for c in notebook["cells"] if c["cell_type"] == "code"] == [1, 2, 3, 4, 5]

    done = call(made, "referee", "run", "toys", "--preset", "smoke", "--quiet", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    runs = made / "runs" / "toys"
    values = {
        run: json.loads((runs / "smoke" / run / "record.json").read_text())["scores"][0]["value"]
        for run in ("k1", "k20")
    }
    assert values["k20"] < values["k1"] - 1  # it learns: what it claims of itself is true
    assert (runs / "smoke" / "k1" / "samples.png").stat().st_size > 0
    assert "largest preset with records: smoke (2 runs)" in executed(made, runs)[0][0]
    judged = call(made, "referee", "verdicts", "toys", "--runs", "--format", "json")
    assert judged.returncode == 0, judged.stderr


MISTAKES = {
    "proportions": ("log_pi_K[:, None] + bernoulli", "bernoulli"),
    "mean over components": ("torch.logsumexp(log_joint_KB, 0)", "log_joint_KB.mean(0)"),
    "samples ignore the proportions": ("torch.softmax(self.mixing, 0), n,", "torch.ones_like(self.mixing), n,"),
    "sign of the loss": ("nll = -model.log_prob(x_BD).mean()", "nll = model.log_prob(x_BD).mean()"),
    "trained on the test split": ("Batches(data.train,", "Batches(data.test,"),
    "evaluated on the training split": ("data.test.x.flatten(1), torch", "data.train.x.flatten(1), torch"),
    "a bound": ('kind="exact"', 'kind="bound"'),
}


def test_its_tests_pass_and_see_mistakes(made):
    """All in one session, since most of the time goes into importing torch."""
    for number, (old, new) in enumerate([("", ""), *MISTAKES.values()]):
        name = f"mistake_{number}"
        folder = create(made, name, render(made, entry(name=name)))
        path = folder / f"{name}.py"
        text = path.read_text()
        assert not old or text.count(old) == 1, old
        path.write_text(text.replace(old, new) if old else text)
    done = call(made, "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "--tb=no", "-rf", "projects")
    failed = set(re.findall(r"^FAILED projects/(\w+)/", done.stdout, flags=re.M))
    assert failed == {f"mistake_{number}" for number in range(1, len(MISTAKES) + 1)}, done.stdout
