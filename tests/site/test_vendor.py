"""Packages of others: fetched once, from the registry that npm names or the public one, and only what was pinned."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from common.downloads import Unavailable
from referee.site import vendor
from referee.site.vendor import Package, VendorError, fetch

CONTENT = {
    "package/LICENSE": b"MIT",
    "package/dist/a.js": b"a",
    "package/dist/fonts/b.woff2": b"b",
    "package/c.js": b"c",
}
FILES = ("LICENSE", "dist/*.js", "dist/fonts/*.woff2")


def archive(content: dict[str, bytes], link: str = "") -> bytes:
    """A package as the registry has it; `link` leads to a file of this machine."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        if link:
            member = tarfile.TarInfo(link)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
            tar.addfile(member)
    return out.getvalue()


def package(data: bytes, files: tuple[str, ...] = FILES) -> Package:
    return Package("toy", "1.2.3", hashlib.sha256(data).hexdigest(), files)


class Registries:
    """What the addresses deliver."""

    def __init__(self) -> None:
        self.delivers: dict[str, bytes] = {}
        self.asked: list[str] = []

    def download(self, url: str, path: Path) -> None:
        self.asked.append(url)
        if url not in self.delivers:
            raise Unavailable(f"no answer for {path.name}")
        path.write_bytes(self.delivers[url])


MIRROR = "https://mirror.example/npm/toy/-/toy-1.2.3.tgz"
PUBLIC = f"{vendor.REGISTRY}/toy/-/toy-1.2.3.tgz"


@pytest.fixture
def registries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registries:
    made = Registries()
    monkeypatch.setenv("REFEREE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(vendor, "download", made.download)
    monkeypatch.setattr(vendor, "_npm_registry", lambda: "https://mirror.example/npm")
    return made


def test_what_is_wanted_is_taken_and_asked_for_once(registries: Registries) -> None:
    data = archive(CONTENT)
    registries.delivers = {MIRROR: data}
    expected = {"LICENSE": b"MIT", "dist/a.js": b"a", "dist/fonts/b.woff2": b"b"}
    assert fetch(package(data)) == expected
    assert fetch(package(data)) == expected
    assert registries.asked == [MIRROR]


def test_the_public_registry_stands_in_for_a_mirror(registries: Registries) -> None:
    data = archive(CONTENT)
    registries.delivers = {MIRROR: archive({"package/LICENSE": b"another"}), PUBLIC: data}
    assert fetch(package(data))["LICENSE"] == b"MIT"
    assert registries.asked == [MIRROR, PUBLIC]


def test_another_package_is_refused_and_not_kept(registries: Registries, tmp_path: Path) -> None:
    registries.delivers = {MIRROR: b"another", PUBLIC: b"another"}
    with pytest.raises(VendorError, match=r"toy 1\.2\.3.*does not have the digest.*; .*digest"):
        fetch(package(archive(CONTENT)))
    assert [p.name for p in (tmp_path / "cache" / "vendor").iterdir() if p.suffix == ".tgz"] == []
    assert list((tmp_path / "cache" / "vendor").glob("*.part")) == []


def test_what_was_damaged_in_the_cache_is_fetched_again(registries: Registries, tmp_path: Path) -> None:
    data = archive(CONTENT)
    registries.delivers = {MIRROR: data}
    fetch(package(data))
    (tmp_path / "cache" / "vendor" / "toy-1.2.3.tgz").write_bytes(data[:-1])
    assert fetch(package(data))["LICENSE"] == b"MIT"
    assert registries.asked == [MIRROR, MIRROR]


def test_without_a_network_it_says_what_to_do(registries: Registries) -> None:
    with pytest.raises(VendorError, match=r"not in the cache and cannot be fetched.*Build once with a network"):
        fetch(package(archive(CONTENT)))


def test_a_cache_that_cannot_be_written(registries: Registries, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(VendorError, match="Set REFEREE_CACHE"):
        fetch(package(archive(CONTENT)))


@pytest.mark.parametrize(
    ("data", "files", "says"),
    [
        (archive(CONTENT, link="package/evil.js"), ("evil.js",), "evil.js is no file"),
        (archive({"package/../../evil.js": b"x"}), ("evil.js",), "leads elsewhere"),
        (archive({"/evil.js": b"x"}), ("evil.js",), "leads elsewhere"),
        (archive({"package/big.js": b"0" * (vendor.LARGEST + 1)}), ("big.js",), "over 4,194,304 bytes"),
        (archive(CONTENT), ("missing.js", "LICENSE"), "lacks missing.js"),
    ],
)
def test_what_leads_elsewhere_is_too_large_or_missing(
    data: bytes, files: tuple[str, ...], says: str, registries: Registries
) -> None:
    registries.delivers = {MIRROR: data}
    with pytest.raises(VendorError, match=says):
        fetch(package(data, files))


def test_the_registry_is_the_one_that_npm_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for said, expected in (
        ("echo https://mirror.example/npm/", "https://mirror.example/npm"),
        ("echo undefined", vendor.REGISTRY),
        ("echo https://mirror.example; exit 1", vendor.REGISTRY),
    ):
        npm.write_text(f"#!/bin/sh\n{said}\n")
        npm.chmod(0o755)
        assert vendor._npm_registry() == expected
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert vendor._npm_registry() == vendor.REGISTRY


def test_katex_is_whole(katex: None) -> None:
    """All that its style sheet asks for is there, and no font in another format."""
    found = {page.path: page.text for page in vendor.pages(None)}  # type: ignore[arg-type]
    sheet = found["assets/katex/katex.min.css"]
    assert isinstance(sheet, bytes)
    fonts = {part.split(b")")[0].decode() for part in sheet.split(b"url(")[1:]}
    assert len(fonts) == 20
    assert {f"assets/katex/{font}" for font in fonts} == {path for path in found if path.endswith(".woff2")}
    assert "assets/katex/LICENSE" in found
