"""A digest moves when code changes that a number may depend on, and no other; what runs is among what counts."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from common.digest import ENTRY, NO_INFLUENCE, code_digest, file_digests, reach
from common.experiment import Paper, Run, measure, prepare
from projects.evaluation_pitfalls import evaluation_pitfalls
from projects.iwae import iwae
from projects.made import made
from projects.realnvp import realnvp
from projects.wgan_gp import wgan_gp

ROOT = Path(__file__).resolve().parents[2]

TREE = {
    "projects/toy/toy.py": '''"""Doc."""
from common import plotting, tools
from common.data import load, make
from common.nets import Net
from common.unused import never


def train(config):
    from common.late import final

    return final(tools.scale(make(load()), tools.FACTOR), Net())


def evaluate(config, model, run):
    plotting.show(model)
''',
    "common/__init__.py": "",
    "common/data/__init__.py": """from common.data.inner import make, other
from common.data.registry import load
from common.data import silent
""",
    "common/data/inner.py": """from functools import cache
from math import sqrt

SIZE = 3
LEAST, MOST = 1, 9
UNUSED = 4


def helper():
    return sqrt(SIZE)


def make(x):
    return helper() + x + MOST


@cache
def other():
    return UNUSED
""",
    "common/data/registry.py": """from common.data.splits import Data


def load() -> Data:
    return Data(1)
""",
    "common/data/splits.py": """class Data:
    def double(self):
        return 2


def check():
    return 1
""",
    "common/data/silent.py": "import sys\n\nSILENT = 1\n\n\ndef silent():\n    return SILENT\n",
    "common/tools.py": """FACTOR = 2


def scale(x, by):
    return by * x


def unscaled(x):
    return x
""",
    "common/nets.py": """from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.shown import Shown


class Base:
    width = 1


class Net(Base):
    def forward(self, x):
        return self.inner(x)

    def inner(self, x):
        return x

    def shown(self, by: "Shown"):
        return by


class Alone(Base):
    pass
""",
    "common/shown.py": "import sys\n\nsys.argv.append('shown')\n\n\nclass Shown:\n    pass\n",
    "common/late.py": """from common import loud
from common.nets import *
from common.passed import handed


def final(x, net):
    return net(x) + by_name(handed)


def by_name(module):
    return module.answer()


def early():
    return loud
""",
    "common/passed/__init__.py": "from common.passed import handed\n",
    "common/passed/handed.py": "def answer():\n    return 1\n",
    "common/loud.py": """TABLE = {}
WIDTH = 1


def register(function):
    TABLE[function.__name__] = function
    return function


def fill():
    TABLE["width"] = WIDTH


fill()


@register
def registered():
    return inner()


def inner():
    return 1


def quiet():
    return 2


class Marked(dict, metaclass=type):
    mark = 1


if __name__ == "__main__":
    quiet()
""",
    "common/plotting.py": "def show(x):\n    return 1\n",
    "common/unused.py": "from common import tools\n\n\ndef never():\n    return tools.unscaled(1)\n",
    "common/nobodys.py": "A = 1\n",
    "common/experiment.py": """SEED = 0


def prepare(config):
    return SEED


def measure(evaluate, config, model, run):
    return evaluate(config, model, run)


def execute(paper):
    return paper
""",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def moved(tree: Path, file: str, old: str, new: str) -> bool:
    """Whether the digest of the toy paper is another one with `new` in the place of `old`."""
    paper, path = tree / "projects/toy/toy.py", tree / file
    assert path.read_text().count(old) == 1
    before = code_digest(paper)
    path.write_text(path.read_text().replace(old, new))
    return code_digest(paper) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("projects/toy/toy.py", "Net())", "Net(), 1)", id="the paper"),
        pytest.param("projects/toy/toy.py", "from common.unused import never", "", id="an import of the paper"),
        pytest.param("common/data/inner.py", "+ x", "- x", id="a function, through a re-export"),
        pytest.param("common/data/inner.py", "sqrt(SIZE)", "SIZE", id="a function that it calls"),
        pytest.param("common/data/inner.py", "SIZE = 3", "SIZE = 5", id="a constant that this one uses"),
        pytest.param("common/data/inner.py", "1, 9", "1, 8", id="one of two names assigned at once"),
        pytest.param("common/data/inner.py", "from math import sqrt", "from cmath import sqrt", id="where it is from"),
        pytest.param("common/data/inner.py", "import sqrt", "import exp as sqrt", id="what it is there"),
        pytest.param("common/data/__init__.py", "import make, other", "import other as make", id="what is re-exported"),
        pytest.param("common/data/splits.py", "return 2", "return 3", id="a class that is handed out"),
        pytest.param("common/tools.py", "by * x", "x", id="an attribute of a module"),
        pytest.param("common/tools.py", "FACTOR = 2", "FACTOR = 3", id="a constant of a module"),
        pytest.param("common/nets.py", "        return x\n", "        return -x\n", id="a method that a method calls"),
        pytest.param("common/nets.py", "width = 1", "width = 2", id="what a class inherits from"),
        pytest.param("common/late.py", "net(x)", "-net(x)", id="what a function imports"),
        pytest.param("common/nets.py", "class Alone(Base):\n    pass", "class Alone:\n    pass", id="import *"),
        pytest.param("common/passed/handed.py", "return 1", "return 2", id="a module that is passed on"),
        pytest.param("common/loud.py", "WIDTH = 1", "WIDTH = 2", id="what runs when a module is imported"),
        pytest.param("common/loud.py", "fill()\n\n\n@", "@", id="a call when a module is imported"),
        pytest.param("common/loud.py", "return inner()", "return 5", id="what is registered"),
        pytest.param("common/loud.py", "    return 1\n", "    return 7\n", id="what a registered function calls"),
        pytest.param("common/loud.py", "mark = 1", "mark = 2", id="a class with a metaclass"),
        pytest.param("common/data/silent.py", "SILENT = 1\n", "sys.argv = []\nSILENT = 1\n", id="a new side effect"),
        pytest.param("common/data/silent.py", "def silent", "@sys.exit\ndef silent", id="a decorator that may do more"),
        pytest.param("common/experiment.py", "SEED = 0", "SEED = 1", id="what a run begins with"),
        pytest.param("common/experiment.py", "return evaluate(", "return 2 * evaluate(", id="what a run ends with"),
    ],
)
def test_what_is_reached_counts(tree: Path, file: str, old: str, new: str) -> None:
    assert moved(tree, file, old, new)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        pytest.param("projects/toy/toy.py", '"""Doc."""', "# Why.", id="prose"),
        pytest.param(
            "common/data/inner.py", "    return sqrt", "    '''Said\n\n    so.'''\n\n    return sqrt", id="doc"
        ),
        pytest.param("common/data/inner.py", "SIZE = 3", "SIZE = 3  # three", id="a comment"),
        pytest.param("common/data/inner.py", "UNUSED = 4", "UNUSED = 5", id="a constant nobody uses"),
        pytest.param("common/data/inner.py", "def other", "def another", id="a function that is only imported"),
        pytest.param("common/data/inner.py", "return UNUSED", "return 0", id="and what is in it"),
        pytest.param("common/data/registry.py", "Data(1)", "Data(int(1))", id="without influence"),
        pytest.param("common/data/splits.py", "return 1", "return 0", id="beside a class that is handed out"),
        pytest.param("common/tools.py", "return x\n", "return -x\n", id="another attribute of a module"),
        pytest.param("common/loud.py", "return 2", "return 3", id="beside what runs, and under __main__"),
        pytest.param("common/shown.py", "'shown'", "'other'", id="imported for types alone: nothing runs"),
        pytest.param("common/plotting.py", "return 1", "return 2", id="plotting"),
        pytest.param("common/unused.py", "return tools", "return -tools", id="imported and not used"),
        pytest.param("common/nobodys.py", "A = 1", "A = 2", id="not imported"),
        pytest.param("common/experiment.py", "return paper", "return None", id="what keeps the books"),
        pytest.param("common/late.py", "return loud", "return 0", id="a whole module, which nobody reaches"),
    ],
)
def test_what_is_not_reached_does_not_count(tree: Path, file: str, old: str, new: str) -> None:
    assert not moved(tree, file, old, new)


def test_where_a_definition_stands_does_not_count(tree: Path) -> None:
    helper = "def helper():\n    return sqrt(SIZE)\n\n\n"
    path = tree / "common/data/inner.py"
    before = code_digest(tree / "projects/toy/toy.py")
    path.write_text(path.read_text().replace(helper, "") + "\n\n" + helper)
    assert code_digest(tree / "projects/toy/toy.py") == before


def test_the_order_of_what_runs_and_of_one_name_counts(tree: Path) -> None:
    assert moved(tree, "common/tools.py", "FACTOR = 2\n", "FACTOR = 2\nFACTOR = 3\n")
    assert moved(tree, "common/tools.py", "FACTOR = 2\nFACTOR = 3\n", "FACTOR = 3\nFACTOR = 2\n")
    assert moved(tree, "common/loud.py", "fill()\n\n\n@", "fill()\nTABLE.clear()\n\n\n@")
    assert moved(tree, "common/loud.py", "fill()\nTABLE.clear()\n\n\n@", "TABLE.clear()\nfill()\n\n\n@")


def test_two_names_that_change_places_count(tree: Path) -> None:
    """Both functions are reached either way; who is given which is another matter."""
    for file, old in (("common/late.py", "def final(x, net):"), ("projects/toy/toy.py", "def train(config):")):
        path = tree / file
        path.write_text(path.read_text().replace(old, f"from common.tools import scale as a, unscaled as b\n\n{old}"))
        path.write_text(path.read_text().replace("    return ", "    a, b\n    return ", 1))
    assert moved(tree, "common/late.py", "scale as a, unscaled as b", "unscaled as a, scale as b")


def test_a_name_that_is_not_found_counts_for_all_of_the_module(tree: Path) -> None:
    paper = tree / "projects/toy/toy.py"
    paper.write_text(paper.read_text().replace("tools.FACTOR", "tools.given"))
    assert moved(tree, "common/tools.py", "return x\n", "return -x\n")


def test_a_module_imported_by_its_whole_name_counts(tree: Path) -> None:
    paper = tree / "projects/toy/toy.py"
    paper.write_text(paper.read_text().replace("from common.unused import never", "import common.nobodys as n\nn.A"))
    assert moved(tree, "common/nobodys.py", "A = 1", "A = 2")


def test_what_a_relative_import_gives_counts(tree: Path) -> None:
    path = tree / "common/data/__init__.py"
    path.write_text(path.read_text().replace("from common.data.inner import", "from .inner import"))
    assert moved(tree, "common/data/inner.py", "+ x", "- x")
    assert not moved(tree, "common/data/inner.py", "UNUSED = 4", "UNUSED = 5")


PAPER = """
from common import probes

def size(n):
    return n

def grid(n):
    return row(n)

def row(n):
    return size(n)

@cache
def tiny():
    return train({})

class Config:
    n: int = 3

def train(config):
    return size(config)

EXTRA = 1
WIDTHS: tuple = (1, 2)
PRESETS: dict = {"paper": grid(WIDTHS)}
PROBES = {"resume": lambda: probes.resume(tiny)}
"""


@pytest.mark.parametrize(
    ("old", "new", "moves"),
    [
        ('"paper": grid(WIDTHS)', '"paper": grid(WIDTHS), "laptop": {}', False),
        ("return row(n)", "return row(n + 1)", False),  # only PRESETS uses it
        ("return size(n)", "return size(n + 1)", False),  # only PRESETS uses it, through another
        ("(1, 2)", "(1, 3)", False),
        ("@cache", "@lru_cache(maxsize=1)", False),  # only PROBES uses it
        ('"resume": lambda', '"again": lambda', False),
        ("return n\n", "return n + 1\n", True),  # training uses it, too
        ("return size(config)", "return size(PRESETS)", True),  # and from then on presets count
        ("return size(config)", "return size(config) + 1", True),  # of the interface, though only a probe calls it
        ("n: int = 3", "n: int = 4", True),
        ("EXTRA = 1", "EXTRA = 2", True),  # nobody uses it: kept, to be safe
    ],
)
def test_presets_and_probes_and_what_only_they_use_do_not_count(tree: Path, old: str, new: str, moves: bool) -> None:
    (tree / "projects/toy/toy.py").write_text(PAPER)
    assert moved(tree, "projects/toy/toy.py", old, new) is moves


def test_what_only_presets_and_probes_use_of_common_does_not_count(tree: Path) -> None:
    tools = "from common import tools\nPRESETS = {'a': tools.FACTOR}\nPROBES = {'a': tools.scale}\n"
    (tree / "projects/toy/toy.py").write_text(tools + "def train(config):\n    return tools.unscaled(1)\n")
    assert not moved(tree, "common/tools.py", "FACTOR = 2", "FACTOR = 3")
    assert not moved(tree, "common/tools.py", "by * x", "by + x")
    assert moved(tree, "common/tools.py", "return x\n", "return -x\n")


def test_presets_that_training_reads_count(tree: Path) -> None:
    (tree / "projects/toy/toy.py").write_text(PAPER.replace("return size(config)", "return PRESETS"))
    assert moved(tree, "projects/toy/toy.py", "(1, 2)", "(1, 3)")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"# no comment"', '"# another"'),
        ('"""two\n# lines"""', '"""two\n\n# lines"""'),
        ("x = 1; 'text'", "x = 2; 'text'"),
    ],
)
def test_a_string_that_is_used_is_no_prose(tree: Path, old: str, new: str) -> None:
    source = 'X = "# no comment"  # a comment\nY = """two\n# lines"""\nx = 1; \'text\'\n'
    (tree / "projects/toy/toy.py").write_text(source)
    assert moved(tree, "projects/toy/toy.py", old, new)


def test_a_module_that_is_not_python_is_said(tree: Path) -> None:
    (tree / "common/tools.py").write_text("def scale(:\n")
    with pytest.raises(SyntaxError):
        code_digest(tree / "projects/toy/toy.py")


def test_digests_of_files_are_of_whole_files(tree: Path) -> None:
    def found() -> dict[str, str]:
        return file_digests([tree / "common/late.py"], tree)

    before = found()
    assert {"common/late.py", "common/nets.py"} <= set(before)
    assert "common/tools.py" not in before
    (tree / "common/late.py").write_text(TREE["common/late.py"].replace("return loud", "return 0  # changed"))
    assert {path for path, digest in found().items() if digest != before[path]} == {"common/late.py"}
    (tree / "common/late.py").write_text(TREE["common/late.py"] + "\n# a comment\n")
    assert found() == before


def test_what_a_run_goes_through_is_there() -> None:
    """Renamed in `common.experiment`, they would silently count no more, or as a whole module."""
    reached = {
        f"{m.name}.{n}"
        for m, each in reach(ROOT / "projects/iwae/iwae.py").statements().items()
        for s in each
        for n in s.defines
    }
    assert set(ENTRY) <= reached
    assert "common.experiment.execute" not in reached


# -- What runs counts --------------------------------------------------------------------------------------------------


def exempt(file: str) -> bool:
    """Whether a file's module is one of NO_INFLUENCE, or in one."""
    parts = Path(file).relative_to(ROOT).with_suffix("").parts
    return any(".".join(parts[: i + 1]) in NO_INFLUENCE for i in range(len(parts)))


def executed(run: Callable[[], Any]) -> set[tuple[str, int, str]]:
    """(file, line, name) of every function of `common` that ran.

    Not of those in NO_INFLUENCE, what these called, and what ran because a module was imported.
    """
    inside = f"{ROOT}/common/"
    found: dict[Any, bool] = {}

    def note(frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(inside) or found.get(code):
            return
        caller: FrameType | None = frame
        while caller is not None and caller.f_code is not top:
            here = caller.f_code
            if here.co_filename.startswith(inside) and (here.co_name == "<module>" or exempt(here.co_filename)):
                return
            caller = caller.f_back
        found[code] = True

    top = executed.__code__
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return {(code.co_filename, code.co_firstlineno, code.co_name) for code in found}


RUNS: list[tuple[Any, str, dict[str, Any]]] = [
    (iwae, "vae-1l-k1", {"passes": (1,), "batch_size": 300, "eval_k": 20, "eval_examples": 20}),
    (made, "digits-1", {"passes": 2}),
    (realnvp, "digits-flat", {"steps": 20}),
    (wgan_gp, "digits-gp", {"steps": 3, "samples": 100}),
    (wgan_gp, "surface-ring8-gp", {"steps": 3}),
    (evaluation_pitfalls, "same-n500", {}),
    (evaluation_pitfalls, "likelihood-noisy", {}),
]


@pytest.mark.parametrize(("paper", "name", "shorter"), RUNS, ids=[name for _, name, _ in RUNS])
def test_what_a_run_executes_counts(paper: Paper, name: str, shorter: dict[str, Any], tmp_path: Path) -> None:
    """Of real papers: were one function missing among what is reached, records would stay fresh as it changes."""
    config = dataclasses.replace(paper.PRESETS["smoke"][name], **shorter)
    run = Run(tmp_path, torch.device("cpu"), config={}, seed=0, progress=False)

    def carry_out() -> None:
        prepare(config)
        measure(paper.evaluate, config, paper.train(config, run), run)

    lines: dict[str, list[tuple[int, int]]] = {}
    for module, statements in reach(Path(paper.__file__)).statements().items():
        base = ROOT.joinpath(*module.name.split("."))
        file = str(base / "__init__.py" if module.package else base.with_suffix(".py"))
        lines[file] = [(statement.first, statement.last) for statement in statements]
    ran = executed(carry_out)
    assert len(ran) > 15  # or nothing was looked at
    missing = [each for each in ran if not any(a <= each[1] <= b for a, b in lines.get(each[0], ()))]
    assert not missing


def test_reading_digests_does_not_import_torch() -> None:
    code = "import sys, common.digest; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
