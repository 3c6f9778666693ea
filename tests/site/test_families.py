"""The pages of families: what people wrote is whole and of the right length, what is generated is true."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

import common.probes
from common.errors import UserError
from referee.checklist import load_checklist
from referee.checks.code import EXPECTED
from referee.site import families
from referee.site.model import Site, load_site

ROOT = Path(__file__).parents[2]
WRITTEN = sorted((ROOT / "docs" / "families").glob("*.md"))


@pytest.fixture(scope="module")
def real() -> dict[str, families.Family]:
    return {f.name: f for f in families.families(load_site(ROOT))}


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "copy"))


def page(site: Site, family: str) -> str:
    (found,) = (p for p in families.pages(site) if p.path == f"families/{family}.md")
    return str(found.text)


# -- What people wrote -------------------------------------------------------------------------------------------------


def test_there_is_a_page_for_every_family_that_a_project_can_have(real: dict[str, families.Family]) -> None:
    assert list(real) == list(load_checklist().families)
    assert all(f.text for f in real.values())


@pytest.mark.parametrize("path", WRITTEN, ids=lambda p: p.stem)
def test_a_page_has_one_equation_and_few_words(path: Path) -> None:
    text = path.read_text()
    _, _, body = text.partition("\n---\n")
    prose = re.sub(r"(?s)\$\$.*?\$\$|<!--.*?-->|## Read on.*", "", body)
    assert 150 <= len(prose.split()) <= 350
    assert body.count("$$") == 2
    titles = re.findall(r"^## (.*)", body, re.MULTILINE)
    assert titles == ["Likelihood, sampling, training", "Projects", "Probes", "What goes wrong", "Read on"]
    linked = re.findall(r"https://\S+?(?=\))", body)
    assert len(linked) >= 2
    assert all(re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}", link) for link in linked)
    assert len(set(linked)) == len(linked)


def test_families_lead_to_each_other() -> None:
    """Every page can be reached from the others' text, and what it links to is there."""
    linked = {p.stem: set(re.findall(r"\]\((\w+)\.md\)", p.read_text())) for p in WRITTEN}
    names = {p.stem for p in WRITTEN}
    assert set().union(*linked.values()) <= names
    assert sum(map(len, linked.values())) >= len(names)


def test_formulas_hold_only_what_katex_reads() -> None:
    for path in WRITTEN:
        for formula in re.findall(r"(?s)\$\$(.*?)\$\$|(?<!\$)\$([^$\n]+)\$", path.read_text()):
            text = "".join(formula)
            assert text.count("{") == text.count("}"), (path.name, text)
            assert len(re.findall(r"\\left\b", text)) == len(re.findall(r"\\right\b", text)), (path.name, text)


# -- What is generated -------------------------------------------------------------------------------------------------


def test_the_registry_is_that_of_the_probes() -> None:
    found = families.registry()
    assert set(found) <= set(common.probes.__all__)
    helpers = {"ProbeResult", "batch_mean", "log_marginal", "per_example"}
    assert set(common.probes.__all__) - set(found) == helpers
    assert all(probe.checks for probe in found.values())
    for name, probe in found.items():
        assert getattr(common.probes, name).__module__ == probe.module


def test_probes_lead_to_their_explanation_where_the_site_has_it(repository: Path) -> None:
    assert "| [`bound`](../reference/common.probes.likelihood.md#bound) |" in page(load_site(ROOT), "vae")
    assert "| `bound` |" in page(load_site(repository), "vae")


def test_what_checks_expect_of_a_family_its_page_names(real: dict[str, families.Family]) -> None:
    for family, names in EXPECTED.items():
        assert set(names) <= set(real[family].probes), family


def test_every_probe_applies_somewhere(real: dict[str, families.Family]) -> None:
    assert set(families.registry()) == {name for f in real.values() for name in f.probes}


def test_projects_are_listed_with_what_came_out(repository: Path) -> None:
    site = load_site(repository)
    text = page(site, "vae")
    (row,) = (line for line in text.splitlines() if "../projects/toys.md" in line and "2016" in line)
    assert "toys, mnist" in row
    assert "| published |" in row
    counts = Counter(v.status for v in site.standing("toys").verdicts)
    for status, n in counts.items():
        assert f"</span> {n} {status}</span>" in row
    assert "None yet" not in text
    assert "`referee new <paper> --family mixture …`" in page(site, "mixture")


def test_probes_say_what_they_check_and_who_offers_them(copy: Path) -> None:
    file = copy / "projects/toys/project.yaml"
    file.write_text(file.read_text().replace("licence: MIT\n", "licence: MIT\nprobes: [bound, bijection, mine]\n", 1))
    text = page(load_site(copy), "vae")
    rows = {m[1]: m[0] for m in re.finditer(r"^\| `(\w+)` \|.*", text, re.MULTILINE)}
    assert "[toys](../projects/toys.md)" in rows["bound"]
    assert "[toys]" in rows["bijection"]  # not one of the family's, but there is one
    assert "mine" not in rows
    assert rows["normalisation"].endswith("| – |")
    assert "the probabilities of all states sum to 1" in rows["normalisation"]


def test_a_family_that_nobody_wrote_about_has_a_page(copy: Path) -> None:
    file = copy / "projects/toys/project.yaml"
    file.write_text(file.read_text().replace("family: vae", "family: hamiltonian-nets"))
    site = load_site(copy)
    text = page(site, "hamiltonian-nets")
    assert text.startswith("# hamiltonian")
    assert "../projects/toys.md" in text
    (index,) = (p for p in families.pages(site) if p.path == "families/index.md")
    assert "hamiltonian-nets.md" in str(index.text)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("family: vae", "family: vaes", "docs/families/vae.md: is about the family 'vaes'; call it vaes.md."),
        ("[bound,", "[bounds,", "docs/families/vae.md: there is no probe 'bounds'."),
        ("title:", "titel:", "docs/families/vae.md:3"),
        ("<!-- /referee:probes -->", "", "docs/families/vae.md:"),
    ],
)
def test_a_mistake_in_a_page_is_named(copy: Path, old: str, new: str, says: str) -> None:
    file = copy / "docs/families/vae.md"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=re.escape(says)):
        list(families.pages(load_site(copy)))


def test_hostile_names_are_text(repository: Path) -> None:
    text = "\n".join(str(p.text) for p in families.pages(load_site(repository)))
    assert "<script" not in text
    assert "<img" not in text
