"""Downloads: one file from one address, and the folder where what was fetched is kept.

Knows nothing of what the files are: whoever asks for them verifies them.
"""

import contextlib
import errno
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

TIMEOUT_S = 8.0  # without a single byte for so long, a server counts as unreachable


NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""What a file system answers that has no locks: NFS whose lock service is off, Lustre mounted without them."""


class Unavailable(Exception):
    """A source that cannot deliver; the message says why, for a person."""


def cache_root() -> Path:
    """The folder that downloads are kept in: REFEREE_CACHE, or one in the user's cache folder."""
    chosen = os.environ.get("REFEREE_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "refereed-generative-models"


def offline() -> bool:
    """Whether REFEREE_OFFLINE says that there is no network here, as on a cluster's nodes ('' and '0' say no)."""
    return os.environ.get("REFEREE_OFFLINE", "") not in ("", "0")


def download(url: str, path: Path) -> None:
    """One file, with a progress bar on stderr. Raises Unavailable, leaving no incomplete file."""
    request = urllib.request.Request(url, headers={"User-Agent": "refereed-generative-models"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            announced = response.headers.get("Content-Length")
            total = int(announced) if announced and announced.isdigit() else None
            received = _receive(response, path, total)
        if total is not None and received != total:
            raise Unavailable(f"{path.name} was cut off after {received:,} of {total:,} bytes")
    except urllib.error.HTTPError as error:
        raise Unavailable(f"the server answered {error.code} {error.reason} for {url}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        path.unlink(missing_ok=True)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise  # not the network's fault: no other source would do better
        reason = getattr(error, "reason", None) or error
        raise Unavailable(f"no answer for {path.name} ({reason})") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _receive(response: http.client.HTTPResponse, path: Path, total: int | None) -> int:
    received = 0
    bar = tqdm(total=total, desc=path.name, unit="B", unit_scale=True, unit_divisor=1024)
    with open(path, "wb") as out, bar:
        while chunk := response.read(1 << 18):
            out.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    return received


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[bool]:
    """One process at a time may fill a folder of the cache; the others wait and find it filled.

    The lock is the operating system's, so a killed process does not leave it behind. On NFS it holds between machines
    with version 4, or with version 3 and its lock service. Where there is none (Windows, some file systems of clusters)
    two processes fetch twice, which is slow but right: files are put in place whole. Yields whether this one is alone.
    """
    try:
        import fcntl
    except ImportError:
        yield False
        return
    with open(folder.parent / f".{folder.name}.lock", "w") as lock:
        alone = True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another process is fetching {folder.name}: waiting for it.", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            alone = False
        yield alone
