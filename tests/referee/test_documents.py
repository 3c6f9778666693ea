"""The safe reader: what is wrong is named with line and rule for any model, and nothing harmful is opened."""

import os
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from referee.documents import (
    MAX_BYTES,
    DocumentError,
    parse_yaml,
    pattern,
    read_text,
    read_yaml,
    refuse,
    split_front_matter,
)
from referee.schema import Number, Part, Slug, Text


class Cat(Part):
    kind: Literal["cat"]
    lives: int


class Dog(Part):
    kind: Literal["dog"]
    id: Slug
    barks: bool = False


class Shelf(Part):
    width: Number


class House(Part):
    name: Text
    """What the bell says."""
    pets: Annotated[list[Annotated[Cat | Dog, Field(discriminator="kind")]], Field(default_factory=list)]
    rooms: Annotated[dict[str, list[Shelf]], Field(default_factory=dict)]
    colour: Annotated[str, pattern(r"^#[0-9a-f]{6}$", "it is a colour, like #ff8800")] | None = None

    @model_validator(mode="after")
    def _cats_first(self) -> "House":
        if any(isinstance(p, Cat) for p in self.pets[1:]):
            raise refuse("contradiction", "cats come first", at=("pets", 1))
        return self


NUMBER = "rooms, hall, entry 1: 'width': 'wide' is not a number; write it with a point and nothing else, like 84.78."


def found(text: str, first_line: int = 1) -> list[tuple[int, str, str]]:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text, House, rules="XYZ", shown="house.yaml", first_line=first_line)
    return [(p.line, p.rule, p.message) for p in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (1, "XYZ-007", "holds no fields; it starts with 'name: …' and so on.")),
        ("pets: []", (1, "XYZ-006", "the field 'name' is missing. What the bell says.")),
        (
            "name: a\npets:\n- {kind: dog, id: rex, bark: true}",
            (3, "XYZ-005", "pet 'rex': unknown field 'bark'. Did you mean 'barks'?"),
        ),
        ("name: a\npets:\n- {kind: cat}", (3, "XYZ-006", "pet 1: the field 'lives' is missing.")),
        ("name: a\npets:\n- {kind: cow}", (3, "XYZ-007", "pet 1: unknown kind 'cow'. One of cat, dog.")),
        ("name: a\npets:\n- {lives: 9}", (3, "XYZ-006", "pet 1: the field 'kind' is missing: cat or dog.")),
        ("name: a\npets:\n- {kind: cat, lives: many}", (3, "XYZ-007", "pet 1: 'lives' is not a whole number.")),
        (
            "name: a\nrooms:\n  hall:\n  - {width: 3}\n  - {width: 2, lamp: 1}",
            (5, "XYZ-005", "rooms, hall, entry 2: unknown field 'lamp'. Known: width."),
        ),
        ("name: a\nrooms:\n  hall:\n  - {width: wide}", (4, "XYZ-008", NUMBER)),
        ("name: a\ncolour: red", (2, "XYZ-007", "'colour' is 'red'; it is a colour, like #ff8800.")),
        (
            "name: a\npets:\n- {kind: dog, id: rex}\n- {kind: cat, lives: 9}",
            (4, "XYZ-011", "pet 2: cats come first."),
        ),
        ("name: a\nname: b", (2, "XYZ-004", "the field 'name' stands twice (first on line 1); delete one.")),
    ],
)
def test_any_model_is_explained(text: str, expected: tuple[int, str, str]) -> None:
    assert expected in found(text)


def test_lines_count_from_where_the_text_begins() -> None:
    assert found("name: a\ncolour: red", first_line=11)[0][0] == 12
    assert found("name: [", first_line=11)[0][0] >= 11
    assert found("name: a\nname: b", first_line=11)[0][2].startswith("the field 'name' stands twice (first on line 11)")


def test_right_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "house.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\r\npets: [{kind: dog, id: rex}]\r\n")
    house = read_yaml(path, House, rules="XYZ")
    assert house.pets[0] == Dog(kind="dog", id="rex")


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    def message(path: Path) -> str:
        with pytest.raises(DocumentError) as caught:
            read_text(path, rules="XYZ", shown="it")
        (problem,) = caught.value.problems
        assert (problem.file, problem.rule) == ("it", "XYZ-001")
        return problem.message

    secret = tmp_path / "secret"
    secret.write_text("name: a")
    (tmp_path / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"#" * (MAX_BYTES + 1))
    assert "symbolic link" in message(tmp_path / "link")
    assert "no plain file" in message(tmp_path / "pipe")  # and does not wait for a writer
    assert "cannot be read" in message(tmp_path)
    assert "cannot be read" in message(tmp_path / "nowhere")
    assert "larger than" in message(tmp_path / "large")


def test_front_matter() -> None:
    assert split_front_matter("---\na: 1\nb: 2\n---\n\n# Text\n", rules="X", shown="f") == (
        "a: 1\nb: 2\n",
        2,
        "\n# Text\n",
        5,
    )
    assert split_front_matter("---\r\na: 1\r\n---\r\nText", rules="X", shown="f")[2:] == ("Text", 4)
    for text, line, rule in (
        ("a: 1", 1, "X-002"),
        ("", 1, "X-002"),
        ("---\na: 1\n", 1, "X-002"),
        ("---\na: 1\n---\none\ntwo \u202e\n", 5, "X-012"),
        ("---\na: 1\n---\n\x1b[31mred", 4, "X-012"),
        ("---\na: 1\n---\nzero\u200bwidth", 4, "X-012"),
    ):
        with pytest.raises(DocumentError) as caught:
            split_front_matter(text, rules="X", shown="f")
        assert [(p.line, p.rule) for p in caught.value.problems] == [(line, rule)]


def refused_or_read(text: str) -> None:
    """Any text at all is read, or refused in our words."""
    for read in (
        lambda: parse_yaml(text, House, rules="XYZ", shown="f"),
        lambda: split_front_matter(text, rules="XYZ", shown="f"),
    ):
        try:
            read()
        except DocumentError as error:
            if not error.problems or any(p.line < 1 or not p.rule.startswith("XYZ-0") for p in error.problems):
                raise AssertionError(error.problems) from error


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    for attempt in (text, f"---\n{text}\n---\n{text}", f"name: {text}"):
        refused_or_read(attempt)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8), lambda s: st.lists(s, max_size=3), max_leaves=5
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(["name", "pets", "rooms", "colour", "x"]), values, max_size=4))
def test_any_values(fields: dict[str, object]) -> None:
    refused_or_read(yaml.safe_dump(fields, allow_unicode=True))
