"""Package managers as sources, played by small scripts: what they deliver, and how they fail."""

import os
import tarfile
import time
from pathlib import Path

import pytest

from common import downloads
from common.data import sources
from common.data.sources import Debian, Npm, local_folders
from common.downloads import Unavailable, cache_root

NPM = Npm("some-data@1.0.0", {"a": "package/data/a", "b": "package/data/b"})
DEBIAN = Debian("some-data", {"a": "usr/share/some/a"})


@pytest.fixture
def client(tmp_path, monkeypatch):
    """Puts a shell script in the place of a package manager: nothing else can be found."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def write(name: str, script: str) -> None:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        path.chmod(0o755)

    return write


@pytest.fixture
def into(tmp_path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def tgz(path: Path, members: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            (path.parent / "content").write_text(content)
            archive.add(path.parent / "content", arcname=name)


def test_npm(client, into, tmp_path):
    members = {"package/data/a": "AA", "package/data/b": "BB", "../../evil": "x", "package/c": "c"}
    tgz(tmp_path / "package.tgz", members)
    client("npm", f'echo "$@" > {tmp_path}/called; cp {tmp_path}/package.tgz some-data-1.0.0.tgz')
    NPM.fetch(into)
    assert {path.name: path.read_text() for path in into.iterdir()} == {"a": "AA", "b": "BB"}
    assert not list(tmp_path.rglob("evil"))
    called = (tmp_path / "called").read_text()
    assert called.startswith("pack some-data@1.0.0")
    assert "--ignore-scripts" in called


def test_npm_delivers_something_else(client, into, tmp_path):
    tgz(tmp_path / "package.tgz", {"package/data/a": "AA"})
    client("npm", f"cp {tmp_path}/package.tgz some-data-1.0.0.tgz")
    with pytest.raises(Unavailable, match=r"lacks a file .*package/data/b"):
        NPM.fetch(into)
    whole = (tmp_path / "package.tgz").read_bytes()
    (tmp_path / "package.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Unavailable, match="truncated or corrupted"):
        NPM.fetch(into)
    client("npm", "true")
    with pytest.raises(Unavailable, match="no package"):
        NPM.fetch(into)


def test_debian(client, into):
    client("apt-get", "touch some-data_1_all.deb")
    client("dpkg-deb", '[ -f "$2" ] && mkdir -p "$3/usr/share/some" && echo A > "$3/usr/share/some/a"')
    DEBIAN.fetch(into)
    assert [path.name for path in into.iterdir()] == ["a"]
    assert (into / "a").read_text() == "A\n"


def test_debian_package_with_a_link_out_of_it(client, into):
    client("apt-get", "touch some-data_1_all.deb")
    client("dpkg-deb", 'mkdir -p "$3/usr/share/some" && ln -s /etc/passwd "$3/usr/share/some/a"')
    with pytest.raises(Unavailable, match="lacks usr/share/some/a"):
        DEBIAN.fetch(into)


@pytest.mark.parametrize(("source", "name"), [(NPM, "npm"), (DEBIAN, "apt-get")])
def test_client_missing_or_failing(source, name, client, into):
    with pytest.raises(Unavailable, match=f"{name} is not installed"):
        source.fetch(into)
    client(name, "echo working >&2; echo 'E: error: cannot resolve the registry' >&2; exit 1")
    with pytest.raises(Unavailable, match=f"{name} failed: E: error: cannot resolve the registry"):
        source.fetch(into)
    assert not list(into.iterdir())


def test_the_telling_line_of_a_failure(client, into):
    lines = ["npm error code X", "npm error request to r failed, reason: no route", "npm error at f"]
    client("npm", "\n".join(f"echo '{line}'" for line in [*lines, "npm error log: see y"]) + "\nexit 1")
    with pytest.raises(Unavailable, match="npm failed: npm error request to r failed, reason: no route"):
        NPM.fetch(into)
    client("npm", "exit 3")
    with pytest.raises(Unavailable, match="it said nothing"):
        NPM.fetch(into)


def test_client_that_hangs_is_ended(client, into, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CLIENT_TIMEOUT_S", 0.2)
    client("npm", f"echo $$ > {tmp_path}/pid; exec sleep 60")
    started = time.monotonic()
    with pytest.raises(Unavailable, match="took longer"):
        NPM.fetch(into)
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_server_that_hangs_counts_as_unreachable(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.1)
    server.wait_s = 0.5
    with pytest.raises(Unavailable, match=r"no answer for a \(timed out\)"):
        downloads.download(f"{server.url}/images.gz", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_cache_root(monkeypatch, tmp_path):
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("REFEREE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg/refereed-generative-models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == Path.home() / ".cache/refereed-generative-models"


def test_local_folders(monkeypatch, tmp_path):
    (tmp_path / "torchvision/MNIST/raw").mkdir(parents=True)
    names = ("mnist", "MNIST/raw")
    listed = [tmp_path / "torchvision", tmp_path / "x/mnist", tmp_path / "nothing"]
    monkeypatch.setenv("REFEREE_DATA", os.pathsep.join(map(str, listed)) + os.pathsep)
    assert local_folders(names, root=None) == [
        tmp_path / "torchvision/MNIST/raw",
        tmp_path / "x/mnist",
        tmp_path / "nothing/mnist",
    ]
