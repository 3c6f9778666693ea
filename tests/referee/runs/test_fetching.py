"""`referee fetch`: what a paper needs is found where it is said, got once, verified, and said when it is missing."""

import ast
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data import Split, formats, registry
from common.data import names as data_sets
from common.data.splits import content_digest
from common.downloads import Unavailable
from common.records import Record
from referee.cli import main, parser
from referee.project import Project, paper_names
from referee.runs import fetching, scheduling
from referee.runs.fetching import Need, absent, needs

MakeRecord = Callable[..., Record]
Capture = pytest.CaptureFixture[str]
REPOSITORY = Path(__file__).parents[3]
PIXELS = np.arange(12 * 16, dtype=np.uint8).reshape(12, 4, 4)


@dataclass(frozen=True)
class Shop:
    """A source that has the file, and notes who asks."""

    asked: list[str] = field(default_factory=list)
    content: np.ndarray | None = field(default_factory=lambda: PIXELS)

    def __str__(self) -> str:
        return "the shop"

    def fetch(self, folder: Path) -> None:
        self.asked.append(folder.name)
        if self.content is None:
            raise Unavailable("it is closed")
        np.savez(folder / "x.npz", x=self.content)


def split(arrays: dict[str, np.ndarray]) -> dict[str, Split]:
    x = torch.from_numpy(np.array(arrays["x"])).reshape(12, 1, 4, 4)
    return {name: Split(x[cut]) for name, cut in (("train", slice(8)), ("val", slice(8, 10)), ("test", slice(10, 12)))}


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shop:
    """The registry knows 'wares', which a shop has; the cache is empty, and no folder of the user's is read."""
    monkeypatch.setenv("REFEREE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("REFEREE_DATA", raising=False)
    monkeypatch.delenv("REFEREE_OFFLINE", raising=False)
    here = Shop()
    entry = registry.DataSet(
        name="wares",
        folders=("wares",),
        arrays={"x": ((12, 4, 4), None)},
        layouts=({"x": ("x.npz", formats.npz("x"))},),
        assemble=split,
        levels=256,
        sha256=content_digest(split({"x": PIXELS})),
        sources=(here,),
    )
    monkeypatch.setitem(registry.REGISTRY, "wares", entry)
    return here


@pytest.fixture
def toy(there: Path, project: Project) -> Project:
    """The invented paper with a data set: wares in 'laptop' and 'paper', the digits in 'smoke'."""
    text = project.paper_file.read_text().replace("    seed: int = 0", '    data: str = "wares"\n    seed: int = 0', 1)
    text = text.replace(
        '"smoke": {"k1": Config(), "k5": Config(k=5)}', '"smoke": {"k1": Config(data="digits")}'
    ).replace("from common.records import Score", "from common.records import Score\nRANKS = 3")
    project.paper_file.write_text(text)
    return project


def with_weights(toy: Project, content: bytes | None, sha256: str | None = None) -> None:
    """The laptop preset takes weights of the project `giver`, which have that content or are not there."""
    digest = hashlib.sha256(content or b"").hexdigest() if sha256 is None else sha256
    fields = f'    weights: str = "giver/laptop/a"\n    weights_sha256: str = "{digest}"\n    seed: int = 0'
    toy.paper_file.write_text(toy.paper_file.read_text().replace("    seed: int = 0", fields, 1))
    if content is not None:
        path = toy.root / "projects" / "giver" / "results" / "laptop" / "a" / "weights.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(content)


# -- What is needed ----------------------------------------------------------------------------------------------------


def test_a_setting_that_is_a_data_sets_name_is_needed(shop: Shop, toy: Project) -> None:
    assert needs(toy, "smoke") == [Need("data", "digits")]
    assert needs(toy, "laptop") == [Need("data", "wares")]
    assert needs(toy) == [Need("data", "digits"), Need("data", "wares")]


def test_so_is_what_a_claim_compares_at_that_preset(shop: Shop, toy: Project) -> None:
    path = toy.folder / "project.yaml"
    path.write_text(
        path.read_text().replace("dataset: toys\n    preset: paper", "dataset: omniglot\n    preset: paper")
    )
    assert Need("data", "omniglot") in needs(toy, "paper")
    assert Need("data", "omniglot") not in needs(toy, "laptop")


def test_so_is_what_a_record_was_made_with(shop: Shop, toy: Project, make: MakeRecord) -> None:
    make("laptop", "k5", data="frey_faces", score={"protocol": "toys, lenet-mnist@a24bccc1, 5,000 of them"})
    make("paper", "k50", data="ring8")  # drawn as it is needed
    assert needs(toy, "laptop") == [
        Need("data", "frey_faces"),
        Need("data", "wares"),
        Need("network", "lenet-mnist@a24bccc1"),
    ]
    assert needs(toy, "paper") == [Need("data", "wares")]


def test_a_paper_that_sees_by_networks_needs_those_of_its_data_sets(shop: Shop, toy: Project) -> None:
    text = toy.paper_file.read_text().replace('"wares"', '"fashion_mnist"')
    toy.paper_file.write_text(text)
    assert [need.kind for need in needs(toy, "laptop")] == ["data"]
    toy.paper_file.write_text(text.replace("RANKS = 3", "from common.evaluation.features import lenet"))
    assert Need("network", "lenet-fashion_mnist") in needs(toy, "laptop")
    assert [need.kind for need in needs(toy, "smoke")] == ["data"]  # the digits have no network


def test_weights_of_another_project_are_needed(shop: Shop, toy: Project) -> None:
    with_weights(toy, b"numbers")
    assert Need("weights", "giver/laptop/a", hashlib.sha256(b"numbers").hexdigest()) in needs(toy, "laptop")


@pytest.mark.parametrize("paper", paper_names(REPOSITORY))
def test_no_data_set_that_a_published_papers_code_names_is_missed(paper: str) -> None:
    """Every word of the code that is a data set's name, in a setting of which a preset makes no use left out."""
    project = Project(REPOSITORY, paper)
    tree = ast.parse(project.paper_file.read_text())
    literals = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    loaded = {
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == "load" and call.args
        if isinstance(call.args[0], ast.Constant)
    }
    found = {need.name for need in needs(project) if need.kind == "data"}
    assert loaded & set(data_sets()) <= found
    assert found <= literals | {claim.dataset for claim in project.load().claims}
    assert found


def test_of_a_real_paper() -> None:
    assert needs(Project(REPOSITORY, "ddim"), "laptop") == [
        Need("data", "mnist"),
        Need("network", "lenet-mnist@a24bccc1"),
        Need("weights", "ddpm/laptop/eps-simple", "7fd177720d3fdbb27956d9f8d0198775dfbc95c256c41bbdd0601cb0b17279fb"),
    ]


# -- Getting it --------------------------------------------------------------------------------------------------------


def test_what_is_missing_is_fetched_once(shop: Shop, toy: Project, tmp_path: Path, capsys: Capture) -> None:
    assert main(["fetch", "toy", "--preset", "laptop"]) == 0
    out = capsys.readouterr().out
    size = (tmp_path / "cache" / "wares" / "x.npz").stat().st_size
    assert "↓ data     wares  fetched\n" in out
    assert f"    from the shop to {tmp_path / 'cache' / 'wares'}, {size / 1e3:.1f} kB\n" in out
    assert "All 1 here and verified: toy, preset laptop." in out
    assert main(["fetch", "toy", "--preset", "laptop"]) == 0
    assert "✓ data     wares  there\n" in capsys.readouterr().out
    assert len(shop.asked) == 1


def test_what_lies_in_a_folder_of_yours_is_there(
    shop: Shop, toy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    (tmp_path / "mine" / "wares").mkdir(parents=True)
    np.savez(tmp_path / "mine" / "wares" / "x.npz", x=PIXELS)
    monkeypatch.setenv("REFEREE_DATA", str(tmp_path / "mine"))
    assert main(["fetch", "toy", "--preset", "laptop"]) == 0
    assert f"{tmp_path / 'mine' / 'wares'}, " in capsys.readouterr().out
    assert shop.asked == []


def test_what_cannot_be_had_is_said_and_the_rest_is_got(shop: Shop, toy: Project, capsys: Capture) -> None:
    with_weights(toy, None)
    assert main(["fetch", "toy"]) == 1
    out = capsys.readouterr().out
    assert "✓ data     digits          there\n    comes with scikit-learn\n" in out
    assert "↓ data     wares           fetched\n" in out
    assert "✗ weights  giver/laptop/a  missing\n" in out
    assert "Make them: 'referee run giver --preset laptop --only a'" in out
    assert "1 of 3 missing: toy, all presets." in out


def test_a_closed_source_is_said_in_full(
    shop: Shop, toy: Project, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    entry = registry.REGISTRY["wares"]
    monkeypatch.setitem(registry.REGISTRY, "wares", replace(entry, sources=(Shop(content=None),)))
    assert main(["fetch", "toy", "--preset", "laptop"]) == 1
    out = capsys.readouterr().out
    assert "✗ data     wares  missing\n    wares could not be had. Tried, in this order:\n" in out
    assert "the shop: it is closed" in out


def test_offline_it_only_looks(
    shop: Shop, toy: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("REFEREE_OFFLINE", "1")
    assert main(["fetch", "toy", "--preset", "laptop"]) == 1
    out = capsys.readouterr().out
    assert "wares is not on this machine" in out
    assert "run 'referee fetch <paper>' where there is a network" in out
    assert shop.asked == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("content", "sha256", "says"),
    [
        (b"numbers", None, "✓ weights  giver/laptop/a  there\n    projects/giver/results/laptop/a/weights.safetensors"),
        (b"numbers", "0" * 64, "wanted is SHA-256 000000000000…, but projects/giver/results/laptop/a/weights"),
        (b"numbers", "", "no SHA-256 is given"),
    ],
)
def test_weights_are_verified(
    content: bytes, sha256: str | None, says: str, shop: Shop, toy: Project, capsys: Capture
) -> None:
    with_weights(toy, content, sha256)
    assert main(["fetch", "toy", "--preset", "laptop"]) == (0 if says[0] == "✓" else 1)
    assert says in capsys.readouterr().out


def test_a_network_of_another_digest_is_missing(shop: Shop, toy: Project, make: MakeRecord, capsys: Capture) -> None:
    make("laptop", "k5", data="wares", score={"protocol": "toys, lenet-mnist@00000000"})
    assert main(["fetch", "toy", "--preset", "laptop"]) == 1
    assert "the weights here are lenet-mnist@a24bccc1, not lenet-mnist@00000000" in capsys.readouterr().out


def test_a_network_that_comes_with_what_is_installed(
    shop: Shop, toy: Project, make: MakeRecord, capsys: Capture
) -> None:
    make("laptop", "k5", data="wares", score={"protocol": "toys, lenet-mnist@a24bccc1"})
    assert main(["fetch", "toy", "--preset", "laptop"]) == 0
    assert "✓ network  lenet-mnist@a24bccc1  there\n    comes with what is installed\n" in capsys.readouterr().out


def test_a_warning_is_a_line_and_not_a_traceback(shop: Shop, toy: Project, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "cache" / "wares").mkdir(parents=True)
    np.savez(tmp_path / "cache" / "wares" / "x.npz", x=PIXELS + 1)
    assert main(["fetch", "toy", "--preset", "laptop"]) == 0
    captured = capsys.readouterr()
    assert "    In the cache, " in captured.out
    assert "It is set aside as x.npz.bad-" in captured.out
    assert "UserWarning" not in captured.out + captured.err


def test_what_is_absent_is_seen_without_a_look_inside(shop: Shop, toy: Project, tmp_path: Path) -> None:
    runs = toy.module().PRESETS
    both = [*runs["smoke"].values(), *runs["laptop"].values()]
    assert absent(both) == ["wares"]
    assert absent(runs["smoke"].values()) == []  # the digits come with a package
    (tmp_path / "cache" / "wares").mkdir(parents=True)
    (tmp_path / "cache" / "wares" / "x.npz").write_bytes(b"not opened")
    assert absent(both) == []
    assert shop.asked == []


def test_a_call_of_jobs_says_what_is_not_fetched_yet(shop: Shop, toy: Project, capsys: Capture) -> None:
    arguments = ["run", "toy", "--preset", "laptop", "--only", "k1", "--on", "local"]
    options, rest = parser().parse_known_args(arguments)
    options.typed = arguments
    _, notes = scheduling.prepare(toy.root, options, rest)
    said = "not on this machine, and jobs without a network will fail for want of wares: 'referee fetch toy'"
    assert said in notes
    assert main(["fetch", "toy"]) == 0
    _, notes = scheduling.prepare(toy.root, options, rest)
    assert not any("wares" in note for note in notes)


# -- The command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "which papers? Some of toy; or --all"),
        (["toy", "--all"], "which papers?"),
        (["tyo"], "unknown paper 'tyo'. Did you mean 'toy'?"),
        (["toy", "--preset", "lap"], "unknown preset 'lap'. Did you mean 'laptop'?"),
        (["--all", "--preset", "lap"], "no paper has the preset lap"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], says: str, shop: Shop, toy: Project, capsys: Capture) -> None:
    assert main(["fetch", *arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""
    assert shop.asked == []


def test_all_papers_pass_over_proposals_and_those_without_the_preset(shop: Shop, toy: Project, capsys: Capture) -> None:
    other = toy.root / "projects" / "proposal"
    other.mkdir()
    (other / "project.yaml").write_text("stage: proposed\n")
    assert main(["fetch", "--all", "--preset", "paper"]) == 0
    assert "All 1 here and verified: toy, preset paper." in capsys.readouterr().out


def test_of_several_papers_each_thing_is_got_once_and_says_for_whom(
    shop: Shop, toy: Project, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(fetching, "paper_names", lambda root: ["toy", "twin"])
    monkeypatch.setattr(fetching, "find_project", lambda root, name: replace(toy, name=name))
    monkeypatch.setattr(fetching, "needs", lambda project, preset: [Need("data", "wares")])
    monkeypatch.setattr(fetching, "_has", lambda project, preset: True)
    assert main(["fetch", "--all"]) == 0
    assert "↓ data     wares  fetched  (toy, twin)\n" in capsys.readouterr().out
    assert len(shop.asked) == 1
