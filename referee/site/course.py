"""The course page (dates, people, who is at which stage) and the status of the last full re-run."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from common.errors import UserError
from referee.checks.base import STAGES
from referee.nightly import Night, PaperNight, last_night
from referee.project import paper_names
from referee.site.model import Page, Site
from referee.site.writing import code, md, table
from referee.status import Status, awaited, status
from referee.words import number_of

DEADLINES = {"proposed": "proposals", "v1": "version 1", "reviews": "reviews", "v2": "version 2"}
ROLES = {"developer": "developers", "reviewer": "reviewers", "editor": "editors"}


def pages(site: Site) -> Iterable[Page]:
    """`course/index.md` and `course/status.md`."""
    yield Page("course/index.md", _course(site))
    yield Page("course/status.md", _status(site))


# -- The course --------------------------------------------------------------------------------------------------------


def _course(site: Site) -> str:
    course = site.course
    parts = ["# Course", f"**{md(course.name)}**"]
    deadlines = list(course.all_deadlines())
    if deadlines:
        parts.append("## Dates")
        parts.append(table(["due", "until"], [[DEADLINES[d.name], str(d)] for d in deadlines]))
        late = course.late
        off = f"{float(late.penalty):.0%}".replace("%", " %")
        parts.append(
            f"What comes up to {late.hours} hours late is accepted with {off} of its points off, and then refused. "
            f"Times are those of {md(course.timezone)}."
        )
    else:
        parts.append("A rolling collection: papers come when they come, and nothing has a deadline.")
    parts += ["## Projects", _projects(site)]
    if people := _people(site):
        parts += ["## People", people]
    parts.append(
        "Where to begin: [as a developer](../guides/developers.md), [as a reviewer](../guides/reviewers.md), "
        "[as an editor](../guides/editors.md). [How grades are computed](../guides/grading.md)."
        if (site.root / "docs" / "grading.md").is_file() and (site.root / "CONTRIBUTING.md").is_file()
        else ""
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def statuses(site: Site) -> Iterator[Status]:
    """Where every project stands, also those that cannot be read in full."""
    # The time matters for nothing but how long it is to a deadline, which is not shown.
    now = datetime.fromtimestamp(0, UTC)
    for name in paper_names(site.root):
        yield status(site.root, name, site.course, site.assignment, now)


def _projects(site: Site) -> str:
    readable = {s.project.name for s in site.standings}
    rows = []
    found = list(statuses(site))
    for s in sorted(found, key=lambda s: (STAGES.index(s.stage) if s.stage in STAGES else -1, s.paper), reverse=True):
        name = f"[{md(s.paper)}](../projects/{s.paper}.md)" if s.paper in readable else md(s.paper)
        listed = [f"{md(h)}{' ✓' if written else ''}" for h, written in s.reviewers.items()]
        reviewers = ", ".join([*listed, *(f"{md(h)} ✓ (unasked)" for h in s.additional)])
        deadline = awaited(site.course, s.stage, s.reviewers) if site.course.includes(s.paper) else None
        due = f"{DEADLINES[deadline.name]}: {deadline}" if deadline else "–"
        waits = "; ".join(map(md, s.open)) or "–"
        rows.append([name, s.stage or "?", waits, due, reviewers or "–"])
    if not rows:
        return "There is no project yet."
    said = [f"{n} {stage}" for stage in STAGES if (n := sum(s.stage == stage for s in found))]
    note = "A ✓ stands behind reviewers who have written their review."
    return f"{', '.join(said)}.\n\n{table(['project', 'stage', 'waits for', 'due', 'reviewers'], rows)}\n{note}"


def _people(site: Site) -> str:
    rows = []
    for role, title in ROLES.items():
        listed = [p for p in site.course.people if role in p.roles]
        if listed:
            rows.append([title, ", ".join(md(p.handle) for p in listed)])
    return table(["", "handles"], rows) if rows else ""


# -- The last full re-run ----------------------------------------------------------------------------------------------


def night(site: Site) -> Night | None:
    """The last full re-run of everything, as far as it is known here."""
    return last_night(site.root)


def rerun(site: Site) -> str:
    """The last full re-run in a few words: '2027-01-15, all passed'."""
    try:
        last = night(site)
    except UserError:
        last = None
    if last is None:
        return "none yet"
    failed = sum(not p.passed for p in last.papers)
    said = "all passed" if last.passed else f"{failed} of {len(last.papers)} failed" if failed else "something failed"
    return f"{last.finished.astimezone(UTC):%Y-%m-%d}, {said}"


def _status(site: Site) -> str:
    head = "# Does it still run?\n\n"
    try:
        last = night(site)
    except UserError as error:
        return f"{head}{md(str(error))}\n\n{_results(site, None)}"
    if last is None:
        said = (
            "**No full re-run yet.** Every night, once the workflow *nightly* is switched on, all projects are run "
            "again from scratch: tests, probes, notebooks and the smoke preset. What it comes to is shown here. "
            "On your own machine, that is `referee check --run --notebooks`."
        )
        return f"{head}{said}\n\n{_results(site, None)}"
    failed = [p for p in last.papers if not p.passed]
    count = number_of(len(last.papers), "project")
    if last.passed:
        verdict = f"**All is well**: {count} passed every check"
    else:
        verdict = f"**Not all is well**: {len(failed)} of {count} did not pass"
    run = f"[its page]({last.run})" if last.run else "by hand"
    said = (
        f"{verdict}. The last full re-run of tests, probes, notebooks and smoke presets ended at "
        f"{last.finished.astimezone(UTC):%Y-%m-%d %H:%M} UTC, at the commit {code(last.commit[:10])} ({run})."
    )
    for result, what in ((last.tests, "The repository's own tests and style"), (last.projects, "The projects' jobs")):
        if result not in ("", "success", "skipped"):
            said += f" {what} ended with {code(result)}."
    parts = [head.strip(), said, _results(site, last)]
    for paper in last.papers:
        if paper.said:
            parts.append(f"## {md(paper.paper)}\n\n" + "".join(f"- {md(line)}\n" for line in paper.said))
    return "\n\n".join(parts) + "\n"


def _results(site: Site, last: Night | None) -> str:
    """When each project's results were made, and how it fared in the night."""
    nights = {p.paper: p for p in last.papers} if last else {}
    rows = []
    for s in site.standings:
        records = [e.record for runs in s.evidence.values() for e in runs.values()]
        newest = max((r.finished for r in records), default="")
        stale = "stale: the code has changed since" if any(v.stale for v in s.verdicts) else "of the present code"
        rows.append(
            [
                f"[{md(s.project.name)}](../projects/{s.project.name}.md)",
                s.file.stage,
                f"{md(newest[:10])}, {stale}" if newest else "none published",
                *([_fared(nights.get(s.project.name))] if last else []),
            ]
        )
    if not rows:
        return "There is no project yet."
    return table(["project", "stage", "newest published run", *(["last re-run"] if last else [])], rows)


def _fared(paper: PaperNight | None) -> str:
    if paper is None:
        return "not in it"
    warnings = number_of(paper.warnings, "warning")
    if paper.passed:
        return f"✓ passed, {warnings}" if paper.warnings else "✓ passed"
    return f"✗ {number_of(paper.errors, 'error')}, {warnings}"
