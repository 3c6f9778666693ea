"""A repository's history, read at once instead of file by file: a hundred projects cost little more than one."""

import re
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cached_property

from referee.checks.base import STAGES
from referee.history import MAX_COMMITS, Commit, History, HistoryError
from referee.project import PAPER_NAME
from referee.stages import stated_stage

FOLDERS = ("projects", "reviews")
AT_ONCE = 200  # files that git is asked for in one go
MAX_TEXT = 256 * 1024  # bytes of a project.yaml

_HEAD = re.compile(r"\x01([0-9a-f]{40}|[0-9a-f]{64}) (-?\d{0,18})")


def _file(paper: str) -> str:
    return f"projects/{paper}/project.yaml"


def _stage(raw: bytes) -> str | None:
    """The stage that a file states, if there is such a one."""
    stage = stated_stage(raw.decode("utf-8", "replace"))
    return stage if stage in STAGES else None


class Past(History):
    """The history up to HEAD."""

    def of_path(self, path: str, tip: str) -> list[tuple[Commit, bool]]:
        """As `History.of_path`; of projects and reviews up to HEAD, git is asked once for all of them."""
        if tip == "HEAD" and path.startswith(tuple(f"{folder}/" for folder in FOLDERS)) and self._all is not None:
            return self._all.get(path, [])
        return super().of_path(path, tip)

    @cached_property
    def _all(self) -> dict[str, list[tuple[Commit, bool]]] | None:
        """The changes of every file, oldest first; None where git has to be asked for each."""
        if self.shallow:
            return None
        try:
            listed = self.git(
                "log", "--first-parent", "--no-renames", "--name-status", "-z", "--format=%x01%H %ct",
                f"--max-count={MAX_COMMITS}", "HEAD", "--", *FOLDERS,
            )  # fmt: skip
        except HistoryError:
            return None
        found: dict[str, list[tuple[Commit, bool]]] = {}
        words = iter((listed or b"").decode("utf-8", "surrogateescape").split("\0"))
        commit: Commit | None = None
        for word in words:
            if head := _HEAD.fullmatch(word):
                commit = Commit(head[1], int(head[2] or -1))
            elif word.strip() and commit is not None:  # a status; what follows is a path, whatever it looks like
                found.setdefault(next(words, ""), []).append((commit, not word.strip().startswith("D")))
        return {path: changes[::-1] for path, changes in found.items()}

    def stages(self, paper: str) -> list[tuple[datetime | None, str]]:
        """When a project reached which stage, as its `project.yaml` said; a merge counts when it was merged."""
        found: list[tuple[datetime | None, str]] = []
        for commit, there in self.of_path(_file(paper), "HEAD"):
            stage = self._stated.get((commit.sha, paper)) if there else None
            if stage is not None and (not found or found[-1][1] != stage):
                found.append((commit.moment, stage))
        return found

    @cached_property
    def _stated(self) -> dict[tuple[str, str], str | None]:
        """What every `project.yaml` said of its stage at each commit that changed it: (commit, paper) -> stage."""
        files = [path for path in self._all or {} if path.startswith("projects/") and path.count("/") == 2]
        named = (path.split("/") for path in files)
        papers = [paper for _, paper, name in named if name == "project.yaml" and PAPER_NAME.fullmatch(paper)]
        asked = [
            (commit.sha, paper) for paper in papers for commit, there in self.of_path(_file(paper), "HEAD") if there
        ]
        said: dict[tuple[str, str], str | None] = {}
        for i in range(0, len(asked), AT_ONCE):
            part = asked[i : i + AT_ONCE]
            said |= zip(part, map(_stage, self._texts(part)), strict=True)
        return said

    def _texts(self, asked: Iterable[tuple[str, str]]) -> Iterator[bytes]:
        """Each project's file at a commit; nothing where it is no file, or too large."""
        asked = list(asked)
        with tempfile.TemporaryFile() as given:
            given.write("".join(f"{sha}:{_file(paper)}\n" for sha, paper in asked).encode())
            given.seek(0)
            told = self.git("cat-file", "--batch", given=given, limit=AT_ONCE * (MAX_TEXT + 100)) or b""
        at = 0
        for _ in asked:
            end = told.find(b"\n", at)
            words = told[at:end].split()
            at = end + 1
            if len(words) != 3 or words[1] == b"missing":
                yield b""
                continue
            size = int(words[2])
            yield told[at : at + size] if words[1] == b"blob" and size <= MAX_TEXT else b""
            at += size + 1
