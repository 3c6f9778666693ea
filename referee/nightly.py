"""What a nightly run came to: written by the workflow's last job, kept by the forge, shown by the site.

    referee forge status FOLDER     what the night's jobs left -> one JSON text
    referee forge fetch             the last night's, from the forge -> build/night.json, where the site looks for it

A night's findings hold text of projects: it is data, bounded here and escaped where it is shown.
"""

import io
import json
import os
import zipfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError

from common.errors import UserError
from referee.history import History, printable
from referee.project import paper_names
from referee.schema import Part

FILE = Path("build") / "night.json"
"""Where the last night's status lies, from the repository's root; made, never committed."""

ARTIFACT = "night"
"""What the workflow calls the file that it keeps; it holds one file, night.json."""

MAX_BYTES = 4 * 1024 * 1024
MAX_SAID = 20  # findings of a project that are kept
MAX_WORDS = 400  # letters of each

_Line = Annotated[str, StringConstraints(max_length=MAX_WORDS)]


class PaperNight(Part):
    """How one project fared."""

    paper: Annotated[str, StringConstraints(max_length=64)]
    stage: Annotated[str, StringConstraints(max_length=20)]
    passed: bool
    errors: Annotated[int, Field(ge=0)]
    warnings: Annotated[int, Field(ge=0)]
    said: list[_Line] = Field(default_factory=list, max_length=MAX_SAID)
    """The first errors, or the first warnings where there is no error."""


class Night(Part):
    """A full re-run: checks, tests, probes, notebooks and smoke presets of every project."""

    commit: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
    finished: datetime
    run: Annotated[str, StringConstraints(pattern=r"^(https://[A-Za-z0-9./_-]{1,200})?$")] = ""
    """Its page at the forge."""
    tests: Annotated[str, StringConstraints(max_length=20)] = ""
    """What `make lint` and `make test` came to: success, failure, …"""
    projects: Annotated[str, StringConstraints(max_length=20)] = ""
    """The same of the jobs that ran the projects, their smoke presets among them."""
    papers: Annotated[list[PaperNight], Field(max_length=10_000)]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(p.passed for p in self.papers) and {self.tests, self.projects} <= {"", "success", "skipped"}


def gather(texts: Iterable[str], root: Path, now: datetime) -> Night:
    """One night from what `referee check --format json` printed in its jobs; a project that none of them speaks of
    broke off.

    Args:
        texts: content of each job's file.
    """
    papers: dict[str, PaperNight] = {}
    for text in texts:
        try:
            for p in json.loads(text)["papers"]:
                papers[str(p["paper"])] = _paper(p)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue  # the job broke off while it wrote
    for name in paper_names(root):
        if name not in papers:
            broken = "The checks broke off; the run's page shows where."
            papers[name] = PaperNight(paper=name, stage="", passed=False, errors=0, warnings=0, said=[broken])
    server, repository, run = (
        os.environ.get(n, "") for n in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID")
    )
    return Night(
        commit=History(root).commit("HEAD"),
        finished=now.replace(microsecond=0),
        run=f"{server}/{repository}/actions/runs/{run}" if run.isdecimal() else "",
        tests=os.environ.get("TESTS", ""),
        projects=os.environ.get("PROJECTS", ""),
        papers=[papers[name] for name in sorted(papers)],
    )


def _paper(p: dict[str, Any]) -> PaperNight:
    counts = p["counts"]
    worst = "error" if counts["error"] else "warning"
    said = [
        printable(f"{f['rule']} {f['file']}: {f['message']}", MAX_WORDS)[
            :MAX_WORDS
        ]  # what is shown by its code is longer
        for f in p["findings"]
        if f["severity"] == worst
    ]
    return PaperNight(
        paper=str(p["paper"]),
        stage=str(p["stage"]),
        passed=bool(p["passed"]),
        errors=int(counts["error"]),
        warnings=int(counts["warning"]),
        said=said[:MAX_SAID],
    )


def last_night(root: Path) -> Night | None:
    """What is known of the last full re-run; None where nothing is.

    Raises:
        UserError: the file is there and is no such status.
    """
    path = root / FILE
    if not path.is_file():
        return None
    if path.stat().st_size > MAX_BYTES:
        raise UserError(f"{FILE.as_posix()} is larger than {MAX_BYTES // 1024} KiB; delete it, or fetch it anew.")
    return parse(path.read_bytes(), FILE.as_posix())


def parse(raw: bytes, shown: str) -> Night:
    """A night from its JSON text. UserError when it is none."""
    try:
        return Night.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the text"
        raise UserError(
            f"{shown} is no status of a night ({printable(where, 60)}: {first['msg']}); delete it, or fetch it anew."
        ) from None


def unpacked(archive: bytes) -> bytes:
    """The one file of the artifact's ZIP archive. UserError when it is not that."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as found:
            (info,) = found.infolist()
            if info.filename != FILE.name or info.file_size > MAX_BYTES:
                raise ValueError
            with found.open(info) as file:
                raw = file.read(MAX_BYTES + 1)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError):
        raise UserError(f"the forge's '{ARTIFACT}' is no archive of {FILE.name} alone.") from None
    if len(raw) > MAX_BYTES:
        raise UserError(f"the forge's {FILE.name} is larger than {MAX_BYTES // 1024} KiB.")
    return raw
