"""The reference: what the docstrings say, readable, with names that lead to where they are explained."""

from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent
from types import MappingProxyType

import pytest

from referee.site.model import Site
from referee.site.reference import Reference, pages

Page = Callable[..., str]


@pytest.fixture
def page(tmp_path: Path) -> Page:
    """The page of a module with this text, in a package that has other modules, too."""

    def made(text: str, others: Mapping[str, str] = MappingProxyType({})) -> str:
        for name, content in {"__init__": "", "thing": text, **others}.items():
            path = (
                tmp_path
                / "common"
                / f"{name.replace('__init__', 'INIT').replace('_', '/').replace('INIT', '__init__')}.py"
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dedent(content), encoding="utf-8")
        reference = Reference(tmp_path)
        return reference.module(next(m for m in reference.modules if m.path == "common.thing"))

    return made


def test_nothing_is_imported_or_run(page: Page, tmp_path: Path) -> None:
    page(f'"""Words."""\nimport missing\nopen({str(tmp_path / "ran")!r}, "w")\n')
    assert not (tmp_path / "ran").exists()


def test_a_function(page: Page) -> None:
    made = page('''
        """A module. It has more."""

        def load(name: str, *rest: int, root: str | None = None, **more: object) -> list[str]:
            """Words of a name.

            A second paragraph, with `name` and
            another line.

            Args:
                name: what it is called,
                    on two lines.
                root, more: two at once.

            Returns:
                The words.

            Raises:
                Wrong: it is.
            """

        class Wrong(Exception):
            """What is wrong."""
        ''')
    assert "# `common.thing`\n\nA module&#46; It has more&#46;" in made
    assert "## `load` { #load }" in made
    assert "def load(name: str, *rest: int, root: str | None = None, **more: object) -> list[str]\n```" in made
    assert "A second paragraph, with `name` and another line&#46;" in made
    assert (
        "**Args**\n\n`name`\n:   what it is called, on two lines&#46;\n\n`root`, `more`\n:   two at once&#46;" in made
    )
    assert "**Returns**\n\nThe words&#46;" in made
    assert "**Raises**\n\n[`Wrong`](common.thing.md#Wrong)\n:   it is&#46;" in made


def test_a_long_signature_has_an_argument_a_line(page: Page) -> None:
    made = page(
        "def f(a_first_argument: int, *, a_second_argument: str = 'words', a_third_argument: float = 1.0): ...\n"
    )
    assert "def f(\n    a_first_argument: int,\n    *,\n    a_second_argument: str = 'words',\n" in made


def test_classes(page: Page) -> None:
    made = page('''
        from dataclasses import dataclass

        @dataclass(frozen=True)
        class Score:
            """A number.

            value: how much.
            """

            value: float  # in nats
            n: int = 0

            @property
            def half(self) -> float:
                """Half of it."""

            def _hidden(self): ...

        class Made(Base):
            """Of arguments."""

            def __init__(self, size: int) -> None: ...

            def __call__(self, x): ...

        LIMIT = 3
        """How many there may be."""

        OTHER = 4
        ''')
    assert "@dataclass\nclass Score:\n    value: float  # in nats\n    n: int = 0\n```" in made
    assert "`value`\n:   how much&#46;" in made
    assert "### `Score.half` { #Score.half }\n\n```python\n@property\ndef half(self) -> float\n```" in made
    assert "class Made(Base)(size: int)" in made
    assert "### `Made.__call__` { #Made.call }" in made
    assert "LIMIT = 3\n```\n\nHow many there may be&#46;" in made
    assert "_hidden" not in made
    assert "OTHER" not in made


def test_lists_tables_and_examples_keep_their_form(page: Page) -> None:
    made = page('''
        """What follows:
          - one, on
            two lines
          - two

            name     statement
            a  <b>   *x*

        >>> 1 + 1
        2
        """
        ''')
    assert "What follows&#58;\n\n- one, on two lines\n- two\n\n```text\nname     statement\na  <b>   *x*\n```" in made
    assert "```pycon\n>>> 1 + 1\n2\n```" in made


def test_names_lead_to_the_nearest_and_only_if_one_is_meant(page: Page) -> None:
    made = page(
        '''
        """See `make`, `common.other.only`, `only`, `twice`, `x`, `other`, `data.load` and `unknown`."""

        def make(x):
            """Not `x`, not `make` itself, but `only`."""
        ''',
        {
            "other": "def only(): ...\ndef twice(): ...\ndef x(): ...\n",
            "more": "def twice(): ...\n",
            "data/__init__": "from common.data.inner import load\n\n__all__ = ['load']\n",
            "data/inner": 'def load():\n    """Load."""\n',
        },
    )
    first, second = (line for line in made.split("\n") if "`make`" in line and not line.startswith("#"))
    assert "[`make`](common.thing.md#make)" in first
    assert first.count("[`only`](common.other.md#only)") == 1
    assert "[`common.other.only`](common.other.md#only)" in first
    assert ", `twice`, [`x`](common.other.md#x), [`other`](common.other.md)" in first
    assert "[`data.load`](common.data.inner.md#load)" in first
    assert " `unknown`" in first
    assert second == "Not `x`, not `make` itself, but [`only`](common.other.md#only)&#46;"


def test_text_is_text(page: Page) -> None:
    made = page('def f():\n    """<script>x</script> *a* [b](c) {: onclick=d } | `<i>|`"""\n')
    line = next(line for line in made.split("\n") if "script" in line)
    assert not set("<>*[]{}|") & set(line.replace("`<i>|`", "").replace(r"`<i>\|`", ""))


def test_the_repository_is_all_there() -> None:
    root = Path(__file__).parents[2]
    found = {page.path: str(page.text) for page in pages(Site(root, ()))}
    assert "[`load`](common.data.registry.md#load) | A data set by name, verified&#46; |" in found["reference/index.md"]
    for path in sorted((root / "common").rglob("*.py")):
        if path.name.startswith("_"):
            continue
        name = ".".join(path.relative_to(root).with_suffix("").parts)
        assert f"[{name}]".replace("_", "&#95;").replace(".", "&#46;") in found["reference/index.md"], name
        assert f"reference/{name}.md" in found
    assert list(pages(Site(root / "docs", ()))) == []
