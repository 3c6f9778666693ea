"""ORG: whose the work is: licences, what was borrowed, and what stands elsewhere, too."""

import re
from collections.abc import Iterator

from referee.checks.base import FROM_V1, WARN_FROM_V1, Found, Submission, check
from referee.checks.reading import line_of

PERMISSIVE = frozenset(
    {
        "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "0BSD", "Apache-2.0", "ISC", "Unlicense", "CC0-1.0", "Zlib",
        "PSF-2.0", "BSL-1.0", "CC-BY-4.0", "Python-2.0",
    }
)  # fmt: skip
"""SPDX names of licences whose code may stand in this collection, which is MIT, with its notice kept."""

COPYLEFT = re.compile(r"^(?:A|L)?GPL-|^MPL-|^EPL-|^EUPL-|^CC-BY-SA", re.IGNORECASE)
OTHER = re.compile(
    r"NC\b|noncommercial|-ND\b|proprietary|research only|all rights reserved|unknown|none", re.IGNORECASE
)

ADMITS = re.compile(
    r"(?i)\b(?:adapted|copied|taken|borrowed|ported|modified|derived|based\s+on)\b[^\n]{0,80}\bhttps?://"
    r"|\bcopyright\s+(?:\(c\)|©)\s{0,3}\d{4}|\bSPDX-License-Identifier:|\bLicensed under the Apache License"
    r"|https?://(?:www\.)?(?:github|gitlab)\.com/[\w.-]+/[\w.-]+/(?:blob|tree|raw)/|stackoverflow\.com/[aq]\w{0,20}/\d"
)
"""Words by which code says that it comes from elsewhere."""


@check(
    "ORG-001",
    "The project's licence lets others use it",
    why="A reproduction that nobody may run or change is none.",
    fix="State an SPDX name under 'licence' in project.yaml; the collection's own is MIT.",
)
def licence_is_open(submission: Submission) -> Iterator[Found]:
    licence = submission.file.licence
    if licence not in PERMISSIVE:
        known = ", ".join(sorted(PERMISSIVE)[:6])
        message = (
            f"states the licence '{licence[:60]}', which is not among the permissive ones ({known}, …); choose one."
        )
        yield submission.at("project.yaml"), _line(submission, "licence:"), message


@check(
    "ORG-002",
    "What was borrowed is there, with a source and a licence that allows it",
    why="Taking code is fine when it is said whose it is and the licence allows it.",
    fix="Give path, source (an address), licence (an SPDX name) and what was taken.",
)
def borrowed_is_declared(submission: Submission) -> Iterator[Found]:
    path = submission.at("project.yaml")
    for entry in submission.file.borrowed:
        line = _line(submission, entry.path)
        if not any(e.kind in ("file", "folder") and e.path == submission.at(entry.path) for e in submission.entries):
            yield path, line, f"'borrowed' names '{entry.path[:80]}', which is not there; correct the path."
        if not re.search(r"https?://\S+\.\S+|doi:10\.|arXiv[: ]?\d", entry.source, re.IGNORECASE):
            yield path, line, f"'borrowed' gives no address for '{entry.path[:80]}'; say where it was taken from."
        what = f"'{entry.path[:60]}' has the licence '{entry.licence[:60]}'"
        if OTHER.search(entry.licence):
            yield path, line, f"{what}, which forbids this use; take it out, or write it anew from the paper."
        elif COPYLEFT.search(entry.licence):
            yield path, line, f"{what}, which asks the same of all that uses it; write it anew from the paper."
        elif entry.licence not in PERMISSIVE:
            yield path, line, f"{what}, which is no SPDX name known here; write it as SPDX does, like MIT."


@check(
    "ORG-003",
    "Code that says it comes from elsewhere is declared",
    why="A comment in the code is not where a reader looks for whose it is.",
    fix="Add the file to 'borrowed' in project.yaml, with source and licence.",
    severity=WARN_FROM_V1,
)
def origins_are_declared(submission: Submission) -> Iterator[Found]:
    declared = [submission.at(entry.path) for entry in submission.file.borrowed]
    for entry in submission.files(".py"):
        if any(entry.path.is_relative_to(path) for path in declared):
            continue
        text = submission.text(entry.path)
        if found := ADMITS.search(text):
            message = f"says that code comes from elsewhere ('{found[0][:60]}'); declare it under 'borrowed'."
            yield entry.path, line_of(text, found.start()), message


@check(
    "ORG-004",
    "The code is the team's own",
    why="The point is to implement the paper, not to copy an implementation.",
    fix="Declare what was taken under 'borrowed', or write it anew. People judge: one equation gives like code.",
    severity=WARN_FROM_V1,
    needs="others",
)
def code_is_original(submission: Submission) -> Iterator[Found]:
    from referee.originality import matches

    for match in matches(submission.project, borrowed=[entry.path for entry in submission.file.borrowed]):
        where = f"{match.theirs}:{match.their_lines[0]}-{match.their_lines[1]}"
        ours = f"lines {match.our_lines[0]}-{match.our_lines[1]}"
        what = f"{match.share:.0%} of the file is like {where} (longest piece: {match.tokens} tokens, {ours})"
        message = f"{what}; declare it under 'borrowed', or let a person judge."
        yield submission.root / match.ours, match.our_lines[0], message


@check(
    "ORG-005",
    "Who did what is said",
    why="Work is somebody's; roles tell a reader whom to ask.",
    fix="List each member once under 'team', with a role that says what they did.",
    severity=FROM_V1,
)
def team_is_stated(submission: Submission) -> Iterator[Found]:
    seen: set[str] = set()
    for member in submission.file.team:
        handle = member.handle.lower()
        if handle in seen:
            message = f"the team names '{member.handle}' twice; give one entry with both roles."
            yield submission.at("project.yaml"), _line(submission, member.handle), message
        seen.add(handle)


def _line(submission: Submission, text: str) -> int:
    """The first line of project.yaml that holds a text."""
    whole = submission.text(submission.at("project.yaml"))
    return line_of(whole, max(0, whole.find(text)))
