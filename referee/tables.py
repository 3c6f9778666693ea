"""Generated tables in READMEs: made from `project.yaml` and published records, between markers.

    <!-- referee:claims -->
    (generated)
    <!-- /referee:claims -->

A project's README may hold the sections claims, results, presets and deviations; the repository's README holds
projects. What stands outside the markers belongs to people and is never touched.

The table of projects belongs to main. If each proposal entered itself, any two of them would be in conflict, so no
submission touches it: whoever keeps main writes it from time to time, and it has to be right as of then. A project that
has changed since is not held against anybody; whatever else differs was typed by hand.
"""

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from common.errors import UserError, nearest
from common.records import PRESETS_ORDER, Record, write_text
from referee.history import History
from referee.project import Project, find_project, find_root, paper_names
from referee.show import AMENDED, KINDS, MARKS, TOO_GOOD, amended, amendments, duration, in_words, summary
from referee.standing import Standing, standing
from referee.verdicts import Verdict, all_scores, show_over_seeds

MARKER = re.compile(r"^<!-- (/?)referee:([\w-]+) -->[ \t]*$", re.MULTILINE)


def tables_command(options: argparse.Namespace) -> int:
    """`referee tables`."""
    root = find_root()
    names = paper_names(root)
    projects = [find_project(root, options.paper)] if options.paper else [Project(root, n) for n in names]
    standings = [standing(project) for project in projects]
    overview = root / "README.md"
    stale: list[str] = []
    fresh: dict[Path, str] = {}
    targets: list[tuple[Path, Mapping[str, Callable[[], str]]]] = [
        (readme, readme_sections(s))
        for s in standings
        for readme in [s.project.folder / "README.md"]
        if s.file.stage != "proposed" or readme.exists()  # a proposal owes its claims alone
    ]
    if not options.paper:
        targets.append((overview, {"projects": lambda: projects_table(standings)}))
    for path, sections in targets:  # all of them before any is written
        shown = path.relative_to(root).as_posix()
        try:
            old = path.read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError) as error:
            what = "is missing" if isinstance(error, FileNotFoundError) else "is not UTF-8 text"
            raise UserError(
                f"{shown} {what}. Write it, with <!-- referee:{next(iter(sections))} --> markers."
            ) from None
        new = fill(old, sections, shown)
        if new != old:
            stale.append(shown)
            fresh[path] = new
    problems = [problem for s in standings for problem in s.problems]
    if problems:
        raise UserError("\n".join(problems))
    if options.check:
        if overview in fresh:
            since = changed_since(root, overview.name)
            if without_rows(fresh[overview], since) == without_rows(overview.read_text(encoding="utf-8"), since):
                stale.remove(overview.name)
                print(f"{overview.name}: the table of projects waits for main to be brought up to date (no error).")
        for shown in stale:
            print(f"{shown}: a generated table is stale; run 'referee tables'.")
        return 1 if stale else 0
    for path, text in fresh.items():
        write_text(path, text)
        print(f"wrote {path.relative_to(root).as_posix()}")
    if not fresh:
        print("All tables are up to date.")
    return 0


def fill(text: str, sections: Mapping[str, Callable[[], str]], shown: str) -> str:
    """The text with each marked section written anew.

    Raises:
        UserError: there are no markers, or one is unknown, twice there, or not closed.
    """
    found = list(MARKER.finditer(text))
    if not found:
        raise UserError(
            f"{shown}: no markers. A table goes between <!-- referee:{next(iter(sections))} --> and "
            f"<!-- /referee:{next(iter(sections))} -->, each on a line of its own."
        )
    pieces: list[str] = []
    position = 0
    seen: set[str] = set()
    while found:
        opening = found.pop(0)
        name = opening.group(2)
        line = text.count("\n", 0, opening.start()) + 1
        if name not in sections:
            hint = nearest(name, sections)
            raise UserError(f"{shown}:{line}: unknown section '{name}'.{hint} Known: {', '.join(sections)}.")
        if opening.group(1) or name in seen:
            what = "closes what is not open" if opening.group(1) else "stands twice"
            raise UserError(f"{shown}:{line}: the marker '{name}' {what}.")
        if not found or found[0].groups() != ("/", name):
            raise UserError(f"{shown}:{line}: '{name}' is not closed; add <!-- /referee:{name} --> after it.")
        closing = found.pop(0)
        seen.add(name)
        pieces += [text[position : opening.start()], opening.group(0).rstrip(), "\n\n", sections[name](), "\n"]
        position = closing.start()
    return "".join([*pieces, text[position:]])


def readme_sections(s: Standing) -> dict[str, Callable[[], str]]:
    """What a project's README may hold between markers: the section's name, and how its text is made."""
    return {
        "claims": lambda: claims_table(s),
        "results": lambda: results_table(s),
        "presets": lambda: presets_table(s),
        "deviations": lambda: deviations_table(s),
    }


def md(text: str) -> str:
    """Text from a file as text in a Markdown table: nothing in it is markup, and it stays on one line."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$#!])", r"\\\1", text)


def code(text: str) -> str:
    """Text as code in a Markdown table, to the letter but for runs of white space.

    Backslashes escape nothing in code, so backticks inside are fenced by more of them; only a table's own `|` has to
    be escaped, which the table undoes before anything else is read.
    """
    text = " ".join(text.split())
    if not text:
        return ""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", r"\|")


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _link(text: str, s: Standing, path: str) -> str:
    """Text that leads to a file of the project, from its README."""
    folder = s.project.shown(s.project.folder) + "/"
    return f"[{md(text)}]({path.removeprefix(folder)})" if path.startswith(folder) else md(text)


def verdict_cell(verdict: Verdict) -> str:
    """'✓ reproduced', with a word where it is too good to be believed at once, or stale."""
    marks = (f" **{TOO_GOOD}**" if verdict.too_good else "") + (" **(stale)**" if verdict.stale else "")
    return f"{MARKS[verdict.status][0]} {verdict.status}{marks}"


def claims_table(s: Standing) -> str:
    """Claim, paper, ours, verdict: orderings first; then what needs saying in words; values nobody tried are folded."""
    waiting = [v for v in s.verdicts if v.kind == "value" and v.untried]
    listed = [v for kind in KINDS for v in s.verdicts if v.kind == kind and v not in waiting]
    rows = []
    for v in listed:
        at = (v.judged_at or "–") + (f" (claim: {v.preset})" if v.below else "")
        rows.append([_claim(v, s), _paper(v), _ours(v, s), verdict_cell(v), at])
    text = f"{summary(s.verdicts)[:1].upper()}{summary(s.verdicts)[1:]}.\n"
    if rows:
        text += "\n" + _table(["claim", "paper", "ours", "verdict", "judged at"], rows)
    if any(v.certainty == "mem" for v in s.verdicts):
        text += "\n¹ The published value is from memory and waits to be checked against the paper.\n"
    text += "".join(f"\n{AMENDED} {line}\n" for line in amendments(s, code, md))
    text += _notes(listed)
    if waiting:
        title = f"{len(waiting)} value{'s' * (len(waiting) > 1)} of the paper not attempted"
        table = _table(["claim", "paper", "preset"], [[_claim(v, s), _paper(v), v.preset] for v in waiting])
        text += f"\n<details>\n<summary>{title}</summary>\n\n{table}{_notes(waiting)}\n</details>\n"
    return text


def _notes(verdicts: Iterable[Verdict]) -> str:
    notes = [f"- {code(v.claim)}: {md(' '.join(said))}\n" for v in verdicts if (said := in_words(v))]
    return "\n" + "".join(notes) if notes else ""


def _claim(v: Verdict, s: Standing) -> str:
    mark = f" {AMENDED}" if v.claim in amended(s) else ""
    return code(v.claim) + mark + ("" if v.source == v.paper else f"<br><sub>{md(v.source)}</sub>")


def _ours(v: Verdict, s: Standing) -> str:
    if v.kind == "figure":
        return _link(v.ours.rpartition("/")[2], s, v.ours)
    return _link(v.ours, s, v.records[0]) if v.records else md(v.ours)


def _paper(v: Verdict) -> str:
    return md(v.paper) + (" ¹" if v.certainty == "mem" else "")


def results_table(s: Standing) -> str:
    """Every score of every published run."""
    rows = []
    for preset in _ordered(s):
        for run, evidence in s.evidence[preset].items():
            record = evidence.record
            for i, (score, spread) in enumerate(all_scores(evidence)):
                value = show_over_seeds(score, spread)
                first = [preset, _link(run, s, evidence.path)] if i == 0 else ["", ""]
                rows.append(
                    [*first, code(score.name), md(value), f"{score.n:,}", md(score.protocol), f"{record.steps:,}"]
                )
    if not rows:
        return "Nothing has been published yet.\n"
    return _table(["preset", "run", "score", "value", "n", "protocol", "steps"], rows)


def presets_table(s: Standing) -> str:
    """What each published preset took, and the command that runs it."""
    rows = []
    for preset in _ordered(s):
        records = [e.record for e in s.evidence[preset].values()]
        hardware = sorted({hardware_line(r.hardware) for r in records})
        command = code(f"referee run {s.project.name} --preset {preset}")
        rows.append([preset, added_up(records), md("; ".join(hardware)), command])
    if not rows:
        return "Nothing has been published yet.\n"
    return _table(["preset", "took", "on", "command"], rows)


def deviations_table(s: Standing) -> str:
    """What was done differently, numbered."""
    if not s.file.deviations:
        return "None declared.\n"
    rows = [[str(i), md(d.where), md(d.paper), md(d.ours), md(d.effect)] for i, d in enumerate(s.file.deviations, 1)]
    return _table(["", "where", "the paper", "here", "effect"], rows)


def projects_table(standings: list[Standing]) -> str:
    """The repository's projects, one line each."""
    rows = []
    for s in standings:
        paper = s.file.paper
        title = md(paper.title)
        if paper.arxiv:
            title = f"[{title}](https://arxiv.org/abs/{paper.arxiv})"
        authors = paper.authors[0] + (" et al." if len(paper.authors) > 1 else "")
        stale = " **(stale)**" if any(v.stale for v in s.verdicts) else ""
        rows.append(
            [
                _project(s.project.name, linked=(s.project.folder / "README.md").is_file()),
                f"{title}, {md(authors)}, {md(paper.venue)} {paper.year}",
                s.file.stage,
                summary(s.verdicts) + stale,
            ]
        )
    return _table(["project", "paper", "stage", "claims"], rows)


def without_rows(text: str, projects: Iterable[str]) -> str:
    """A text without these projects' rows of the table of projects."""
    rows = tuple(f"| {_project(name, linked=linked)} |" for name in projects for linked in (True, False))
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(rows))


def changed_since(root: Path, file: str) -> set[str]:
    """The projects that are not as they were when a file was last committed.

    None where the file is being edited now, or where git knows nothing of it; where only a part of the history was
    fetched, and git cannot say, all of them.
    """
    history = History(root)
    if not history.exists or history.git("diff", "--quiet", "HEAD", "--", file) is None:
        return set()
    if history.shallow:
        return set(paper_names(root))
    last = (history.git("log", "-1", "--format=%H", "--", file) or b"").decode().strip()
    if not last:
        return set()
    listed = history.git("diff", "--name-only", "--no-renames", "-z", last, "--", "projects") or b""
    listed += history.git("ls-files", "--others", "--exclude-standard", "-z", "--", "projects") or b""
    parts = [path.decode("utf-8", "replace").split("/") for path in listed.split(b"\0")]
    return {names[1] for names in parts if len(names) > 2}


def _project(name: str, *, linked: bool) -> str:
    return f"[{code(name)}](projects/{name}/README.md)" if linked else code(name)


def added_up(records: Sequence[Record]) -> str:
    """'5 runs, whose times add up to 26 min': records say what each run took, not which went side by side."""
    took = duration(sum(r.wall_s for r in records))
    return f"1 run, {took}" if len(records) == 1 else f"{len(records)} runs, whose times add up to {took}"


def hardware_line(hardware: Mapping[str, str | int]) -> str:
    """'Intel Xeon, 2 cores, 1 thread a run, NVIDIA H200', from a record."""
    cores, threads = hardware.get("cores"), hardware.get("threads")
    parts = [
        str(hardware.get("cpu", "")),
        f"{cores} core{'s' * (cores != 1)}" if cores else "",
        f"{threads} thread{'s' * (threads != 1)} a run" if threads else "",
        hardware.get("gpu", ""),
    ]
    return ", ".join(str(p) for p in parts if p)


def _ordered(s: Standing) -> list[str]:
    """The presets with records, from small to large; those with changed settings are left out."""
    return [preset for preset in PRESETS_ORDER if preset in s.evidence]
