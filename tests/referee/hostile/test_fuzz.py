"""Readers of untrusted text and bytes end with a result or with their own error, whatever they are given."""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from referee.checks import markdown
from referee.checks.base import printable
from referee.checks.command import inert
from referee.checks.notebook import notebook_cells
from referee.checks.reading import Unreadable, acting, parse_json, parse_python, safetensors_header
from referee.originality import compare, fingerprints, tokens

few = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

PIECES = ["```", "`", "``", "\n", "~~~", "<!-- referee:claims -->", "<!-- /referee:claims -->", "<script", "](", " a"]
markup = st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(max_size=200)
json_values: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@few
@given(st.text(max_size=300) | json_values.map(json.dumps))
def test_json(text: str) -> None:
    with contextlib.suppress(Unreadable):
        assert parse_json(text) == json.loads(text)


@few
@given(st.text(max_size=300))
def test_python(text: str) -> None:
    with contextlib.suppress(Unreadable):
        assert parse_python(text).body is not None


@few
@given(st.binary(max_size=200), st.integers(0, 300) | st.integers(0, 2**64 - 1))
def test_headers_of_weights(tmp_path: Path, content: bytes, length: int) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + content)
    with pytest.raises(Unreadable):
        safetensors_header(path, 10**6)


@few
@given(json_values, st.lists(st.integers() | st.none(), max_size=3), st.lists(st.integers(), max_size=2))
def test_headers_that_are_json(tmp_path: Path, value: Any, shape: list[Any], offsets: list[int]) -> None:
    header = json.dumps({"w": {"dtype": "U8", "shape": shape, "data_offsets": offsets}, "x": value})
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(Unreadable):
        safetensors_header(path, 10**6)


CELL = st.fixed_dictionaries(
    {"cell_type": st.sampled_from(["code", "markdown", "raw", "other"]) | json_values},
    optional={"source": json_values, "outputs": json_values, "execution_count": json_values},
)


@few
@given(st.fixed_dictionaries({"nbformat": st.just(4) | json_values, "cells": st.lists(CELL, max_size=4) | json_values}))
def test_notebooks(value: Any) -> None:
    text = json.dumps(value)
    try:
        found = notebook_cells(text)
    except Unreadable:
        return
    assert all(isinstance(c.source, str) and c.line >= 1 for c in found)


@few
@given(markup)
def test_markdown_keeps_its_lines(text: str) -> None:
    lines = list(markdown.lines(text))
    assert [line.text for line in lines] == text.split("\n")
    for line in lines:
        assert len(markdown.without_code(line.text)) == len(line.text)
    acting(text)


@few
@given(st.text(max_size=200))
def test_what_is_shown_is_inert(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    comment = re.sub("<!-- -->", "\N{INVISIBLE SEPARATOR}", inert(shown))
    assert not re.search(r"[@#]\w|://|<(?!br>)", comment)


@few
@given(st.text(max_size=300))
def test_tokens_of_anything(text: str) -> None:
    kinds, lines = tokens(text)
    assert len(kinds) == len(lines)
    assert lines == sorted(lines)
    prints = fingerprints(text, "a.py")
    compare(prints, prints, frozenset(), "project")
