"""What the site costs: a build of 100 projects with notebooks of 1 MB, a rebuild after one changed, and what a reader
fetches; beside mkdocs-jupyter, which converts the same notebooks inside of mkdocs.

The projects are copies of this repository's IWAE, each with its own notebook, in a git repository of their own; the
hand-written pages are this repository's. Builds are those that people run, each in a process of its own, the first
one with nothing kept but KaTeX. Targets are for a quiet machine with two cores.
"""

import base64
import gzip
import json
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.measure import Result, Row, Setting, Target, Turns

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
PATTERN = "iwae"  # the project that the others are made from
NOTEBOOK = 2**20  # bytes
SMALL = 64 * 1024  # bytes; what is larger (weights, examples) is left out of the copies
PAGES = ("mkdocs.yml", "CONTRIBUTING.md", "course.yaml", "reviews/README.md", "docs/**/*.md", "referee/site/theme/**/*")

OURS, PEER = "referee site build", "mkdocs-jupyter, the notebooks alone"


def main(setting: Setting, projects: int = 100) -> Result:
    """Make the repository, build it, change it, build it again; then let the peer build the notebooks."""
    projects = setting.size(projects, 2)
    found = Result("site_build", f"The site of {projects} projects with notebooks of 1 MB")
    data = f"{projects} copies of one project, each with a notebook of 1 MB, beside this repository's pages"

    def figure(
        title: str, unit: str, value: float, most: float | None = None, peer: float | None = None, why: str = ""
    ) -> None:
        both = {OURS: [value]} | ({} if peer is None else {PEER: [peer]})
        target = None if most is None else Target(most, "most", "median")
        peers = {} if peer is None else {PEER: "mkdocs-jupyter"}
        found.rows.append(Row(title, unit, OURS, Turns(both), peers, data, None, target, why, less_is_better=True))

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "repository"
        make(root, projects)
        full = _build(root)
        changed = root / "projects" / "paper000"
        (changed / "paper000.ipynb").write_text(_notebook(projects), encoding="utf-8")
        with (changed / "README.md").open("a", encoding="utf-8") as readme:
            readme.write("\nA change.\n")
        again = _build(root)
        theirs = theirs_mb = None
        can = [PEERS, "-c", "import mkdocs_jupyter"]
        if PEERS.exists() and subprocess.run(can, capture_output=True).returncode == 0:
            theirs, theirs_mb = _peer(root, Path(temporary) / "peer")
        else:
            print("mkdocs-jupyter is not installed; 'make bench' installs it in .venv-peers.")
        html = root / "build" / "site" / "html"
        plain, packed = _weight(html, html / "projects" / "paper000.html")
        figure("full build, nothing kept from before", "s", full, 90.0, theirs)
        figure("build after one project's notebook and README changed", "s", again, 10.0)
        figure("a project's page without pictures", "kB", plain / 1e3, 600.0)
        figure("the same, compressed", "kB", packed / 1e3)
        figure("a notebook's page without pictures", "kB", _weight(html, _notebook_page(html))[0] / 1e3)
        figure("index of the search", "MB", (html / "search" / "search_index.json").stat().st_size / 1e6, 3.0)
        figure("the whole site", "MB", _size(html), None, theirs_mb)
    return found


def make(root: Path, count: int) -> None:
    """A git repository of `count` projects, all alike but for their names and notebooks."""
    for pattern in PAGES:
        for path in sorted(p for p in ROOT.glob(pattern) if p.is_file()):
            _write(root / path.relative_to(ROOT), path.read_bytes())
    _write(root / "pyproject.toml", b"")
    _write(root / "projects" / "__init__.py", b"")
    shutil.copytree(ROOT / "common", root / "common", ignore=shutil.ignore_patterns("__pycache__"))
    source = ROOT / "projects" / PATTERN
    kept = [
        p
        for p in sorted(source.rglob("*"))
        if p.is_file() and p.stat().st_size < SMALL and "__pycache__" not in p.parts
    ]
    contents = {path.relative_to(source).as_posix(): path.read_bytes() for path in kept}
    for i in range(count):
        name = f"paper{i:03}"
        for path, content in contents.items():
            text = path.endswith((".py", ".yaml", ".md", ".json", ".jsonl"))
            content = re.sub(rf"\b{PATTERN}\b(?!-)".encode(), name.encode(), content) if text else content
            _write(root / "projects" / name / re.sub(rf"\b(test_)?{PATTERN}\.", rf"\g<1>{name}.", path), content)
        _write(root / "projects" / name / f"{name}.ipynb", _notebook(i).encode())
    git = ["git", "-C", str(root), "-c", "user.name=ada", "-c", "user.email=ada@example.org"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *arguments], check=True, capture_output=True)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _notebook(seed: int) -> str:
    """The pattern's notebook with another picture, of noise, that makes it as large as it may be."""
    content = json.loads((ROOT / "projects" / PATTERN / f"{PATTERN}.ipynb").read_text(encoding="utf-8"))
    missing = (NOTEBOOK - len(json.dumps(content))) * 3 // 4
    side = int(missing**0.5)
    noise = random.Random(seed).randbytes(side * side)
    picture = base64.b64encode(_png(noise, side)).decode()
    output = {"output_type": "display_data", "metadata": {}, "data": {"image/png": picture, "text/plain": "<Figure>"}}
    cell = {"cell_type": "code", "id": "noise", "metadata": {}, "execution_count": 99, "source": "noise()"}
    content["cells"].append(cell | {"outputs": [output]})
    return json.dumps(content)


def _png(pixels: bytes, side: int) -> bytes:
    """A square grey picture."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + pixels[i * side : (i + 1) * side] for i in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def _build(root: Path) -> float:
    """Seconds of `referee site build`."""
    start = time.perf_counter()
    command = [Path(sys.executable).with_name("referee"), "site", "build"]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    return time.perf_counter() - start


def _notebook_page(html: Path) -> Path:
    return html / "projects" / "paper000" / "notebook.html"


def _weight(html: Path, page: Path) -> tuple[int, int]:
    """Bytes of a page with its scripts, style sheets and, where it has formulas, their fonts; and compressed."""
    text = page.read_text(encoding="utf-8")
    asked = re.findall(r'<script[^>]*\bsrc="([^"]+)"', text)
    asked += [
        tag
        for link in re.findall(r"<link[^>]*\bstylesheet\b[^>]*>", text)
        for tag in re.findall(r'href="([^"]+)"', link)
    ]
    files = {page, *((page.parent / urlsplit(address).path).resolve() for address in asked)}
    fonts = re.findall(r"KaTeX_(\w+)", text)
    for font in fonts:
        files |= set((html / "assets" / "katex" / "fonts").glob(f"KaTeX_{font}-*.woff2"))
    contents = [path.read_bytes() for path in files]
    return sum(map(len, contents)), sum(len(gzip.compress(c, mtime=0)) for c in contents)


def _size(folder: Path) -> float:
    """Megabytes of a folder's files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def _peer(root: Path, folder: Path) -> tuple[float, float]:
    """Seconds and megabytes of mkdocs-jupyter's site of the same notebooks, in the same theme."""
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "index.md").write_text("# Papers\n")
    for path in root.glob("projects/*/*.ipynb"):
        shutil.copy(path, folder / "docs")
    theme = "theme: {name: material, font: false}\n"
    (folder / "mkdocs.yml").write_text(f"site_name: Papers\n{theme}plugins: [search, mkdocs-jupyter]\n")
    start = time.perf_counter()
    subprocess.run([PEERS, "-m", "mkdocs", "build", "-q"], cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start, _size(folder / "site")
