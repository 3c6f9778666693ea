"""What of a Markdown file is prose, what is code, what is generated: line by line, in linear time whatever it is."""

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Literal, NamedTuple

from referee.tables import MARKER

FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")


class Line(NamedTuple):
    """A line of a Markdown file."""

    number: int  # from 1
    kind: Literal["prose", "code", "fence", "generated"]
    text: str


def lines(text: str) -> Iterator[Line]:
    """The lines and what each is: prose, code in a fence, the fence itself, or between the markers of a table."""
    fence = table = ""
    for number, line in enumerate(text.split("\n"), 1):
        marker = MARKER.match(line)
        if fence:
            closing = line.strip()
            if closing and set(closing) == {fence[0]} and len(closing) >= len(fence):
                fence = ""
                yield Line(number, "fence", line)
            else:
                yield Line(number, "code", line)
        elif marker and table:
            table = "" if marker.groups() == ("/", table) else table
            yield Line(number, "generated", line)
        elif table:
            yield Line(number, "generated", line)
        elif marker and not marker.group(1):
            table = marker.group(2)
            yield Line(number, "generated", line)
        elif (opening := FENCE.match(line)) and not (opening[1][0] == "`" and "`" in opening[2]):
            fence = opening[1]
            yield Line(number, "fence", line)
        else:
            yield Line(number, "prose", line)


def without_code(line: str) -> str:
    """A line of prose with its code in backticks blanked out."""
    parts = re.split("(`+)", line)  # text, backticks, text, ..., text
    if len(parts) < 3:
        return line
    runs: dict[int, list[int]] = {}
    for i in range(1, len(parts), 2):
        runs.setdefault(len(parts[i]), []).append(i)
    i = 1
    while i < len(parts):
        same = runs[len(parts[i])]
        after = bisect_right(same, i)
        if after == len(same):
            i += 2  # nothing closes it: these backticks are text
            continue
        for j in range(i, same[after] + 1):
            parts[j] = " " * len(parts[j])
        i = same[after] + 2
    return "".join(parts)


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines written by hand that are no code, numbered, code in backticks blanked out."""
    return ((line.number, without_code(line.text)) for line in lines(text) if line.kind == "prose")


def code(text: str) -> Iterator[tuple[int, str]]:
    """The lines of code blocks, numbered."""
    return ((line.number, line.text) for line in lines(text) if line.kind == "code")
