"""Pictures that are made for the site: a project's picture in the gallery, and the card that others show of a page.

Both are drawn from published samples and text alone, the same bytes each time, and kept in `build/cache/pictures` by a
digest of what they are made from.
"""

import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from common.records import PRESETS_ORDER
from referee.schema import FigureClaim
from referee.show import MARKS
from referee.site.model import Site
from referee.site.writing import png_size
from referee.standing import Standing, figure_file
from referee.words import number_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

THUMBNAIL = 480  # pixels: the gallery shows half as many, some screens have two for one
MAX_SIDE = 4096  # pixels of a picture that is opened
VERSION = "1"  # of the drawing; another one draws everything anew


@dataclass(frozen=True)
class Shown:
    """The picture that stands for a project.

    Attributes:
        path: a PNG of the published results.
        what: in words.
    """

    path: Path
    what: str


def shown(s: Standing) -> Shown | None:
    """Samples of the run that an ordering names best, at the largest published preset that has them.

    The first ordering that was reproduced, else the first: what a paper calls best and is not would speak for nothing.
    Without such samples: those of any run there, else a claim's figure; None when there is no picture.
    """
    orderings = sorted((v for v in s.verdicts if v.kind == "ordering"), key=lambda v: v.status != "reproduced")
    best = [run for v in orderings for run in v.runs[:1]]
    for preset in reversed(PRESETS_ORDER):
        runs = s.evidence.get(preset, {})
        for run in [*best, *runs]:
            path = s.project.results / preset / run / "samples.png"
            if run in runs and _opens(path):
                return Shown(path, f"Samples of {run}, preset {preset}")
    for claim in s.file.claims:
        if isinstance(claim, FigureClaim):
            figure = figure_file(s.project, s.project.results, claim.figure)
            if figure is not None and _opens(figure):
                return Shown(figure, claim.statement)
    return None


def _opens(path: Path) -> bool:
    size = png_size(path)
    return size is not None and max(size) <= MAX_SIDE


def thumbnail(site: Site, s: Standing) -> Path | None:
    """The upper left corner of a project's picture, as a small square PNG; None when there is none that can be read."""
    picture = shown(s)
    if picture is None:
        return None
    raw = picture.path.read_bytes()
    return _cached(site, b"thumbnail\0" + raw, lambda: _thumbnail(raw))


def _thumbnail(raw: bytes) -> bytes:
    return _png(_corner(raw), 48)


def _corner(raw: bytes) -> "Image":
    """The upper left corner of a picture, as a small square."""
    from PIL import Image

    with Image.open(io.BytesIO(raw), formats=["PNG"]) as opened:
        # Samples may be transparent where they are white.
        image = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened.convert("RGBA")).convert("RGB")
    side = min(image.size)
    image = image.crop((0, 0, side, side))
    return image if side <= THUMBNAIL else image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)


def _png(image: "Image", colours: int) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    image.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(out, "PNG")
    return out.getvalue()


def _cached(site: Site, key: bytes, draw: Callable[[], bytes]) -> Path | None:
    """A drawn picture's file; drawn only when there is none for this key. None when it cannot be drawn."""
    name = hashlib.sha256(VERSION.encode() + b"\0" + key).hexdigest()[:40]
    path = site.root / "build" / "cache" / "pictures" / f"{name}.png"
    if not path.is_file():
        try:
            data = draw()
        except (OSError, ValueError, SyntaxError, EOFError):  # what Pillow raises at broken files
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(data)
        os.replace(part, path)
    return path


# -- Cards -------------------------------------------------------------------------------------------------------------

CARD = (1200, 630)  # pixels, as social media show them
PAPER, INK, SOFT, RULE, ACCENT = "#fbfaf7", "#1c1f24", "#565c66", "#e3e0d8", "#0b6e6e"
COLOURS: Mapping[str, tuple[str, str]] = {
    "reproduced": ("#136c3a", "#e0f2e6"),
    "within tolerance": ("#2d6a1f", "#eaf3dc"),
    "trend only": ("#7d5200", "#fbefcf"),
    "inconclusive": ("#76460f", "#f6e6d3"),
    "not reproduced": ("#a8201f", "#fbe3e0"),
    "compute-limited": ("#1b5a8c", "#e1eef9"),
    "not attempted": ("#565c66", "#eceae4"),
    "for a person to judge": ("#6d3a8c", "#f1e6f7"),
}
"""A verdict's text and ground, as in site.css in the light."""


def card(site: Site, s: Standing) -> Path:
    """What others show of a project's page: the paper, its verdicts, its samples."""
    paper = s.file.paper
    found = Counter(v.status for v in s.verdicts)
    chosen = shown(s)
    return _card(
        site,
        above=f"{s.file.family} · {paper.venue} {paper.year} · stage {s.file.stage}",
        title=paper.title,
        below=", ".join(paper.authors[:3]) + (" et al." if len(paper.authors) > 3 else ""),
        verdicts=[(status, found[status]) for status in MARKS if found[status]],
        foot=site.course.name,
        raw=chosen.path.read_bytes() if chosen else b"",
    )


def default_card(site: Site) -> Path:
    """The same of all other pages: the collection and its verdicts."""
    found = Counter(v.status for s in site.standings for v in s.verdicts)
    papers = len(site.standings)
    return _card(
        site,
        above="A collection that anybody can check",
        title=site.course.name,
        below=f"{number_of(papers, 'paper')}, {number_of(sum(found.values()), 'claim')}",
        verdicts=[(status, found[status]) for status in MARKS if found[status]],
        foot="",
        raw=b"",
    )


def _card(
    site: Site, *, above: str, title: str, below: str, verdicts: Sequence[tuple[str, int]], foot: str, raw: bytes
) -> Path:
    words = [" ".join(text.split()) for text in (above, title, below, foot)]
    key = json.dumps([words, verdicts]).encode() + b"\0" + raw

    def draw(picture: bytes) -> bytes:
        return _draw_card(words[0], words[1], words[2], verdicts, words[3], picture)

    made = _cached(site, b"card\0" + key, lambda: draw(raw))
    if made is None:  # the picture is broken; the words are not
        made = _cached(site, b"words\0" + key, lambda: draw(b""))
    assert made is not None
    return made


def _draw_card(above: str, title: str, below: str, verdicts: Sequence[tuple[str, int]], foot: str, raw: bytes) -> bytes:
    from PIL import Image, ImageDraw

    width, height = CARD
    image = Image.new("RGB", CARD, PAPER)
    pen = ImageDraw.Draw(image)
    left, right = 64, width - 64
    if raw:
        side = _corner(raw).resize((height, height), Image.Resampling.BICUBIC).crop((0, 0, 440, height))
        image.paste(side, (width - 440, 0))
        right = width - 440 - 48
    pen.rectangle((0, 0, width, 10), fill=ACCENT)
    y = 66
    pen.text((left, y), _fitted(above.upper(), _font("Sans-Bold", 22), right - left), ACCENT, _font("Sans-Bold", 22))
    y += 46
    for size in (60, 52, 44, 38):
        lines = _wrapped(title, _font("Serif-Bold", size), right - left)
        if len(lines) * size * 1.2 <= 240:
            break
    for line in lines[: int(240 // (size * 1.2))]:
        pen.text((left, y), line, INK, _font("Serif-Bold", size))
        y += round(size * 1.2)
    font = _font("Sans", 26)
    pen.text((left, y + 14), _fitted(below, font, right - left), SOFT, font)
    _chips(pen, verdicts, left, right, height - 92)
    font = _font("Sans", 22)
    pen.text((left, height - 62), _fitted(foot, font, right - left), SOFT, font)
    return _png(image, 96)


def _chips(pen: "ImageDraw", verdicts: Sequence[tuple[str, int]], left: int, right: int, bottom: int) -> None:
    """Verdicts with their signs and words, in rows that end above `bottom`."""
    font = _font("Sans-Bold", 22)
    rows: list[list[tuple[str, str, int]]] = [[]]
    x = left
    for status, n in verdicts:
        text = f"{MARKS[status][0]} {n} {status}"  # type: ignore[index]
        wide = round(font.getlength(text)) + 32
        if rows[-1] and x + wide > right:
            rows.append([])
            x = left
        rows[-1].append((status, text, wide))
        x += wide + 10
    rows = rows[:3]
    y = bottom - 50 * len(rows)
    for row in rows:
        x = left
        for status, text, wide in row:
            ink, ground = COLOURS[status]
            pen.rounded_rectangle((x, y, x + wide, y + 40), 20, fill=ground)
            pen.text((x + 16, y + 6), text, ink, font)
            x += wide + 10
        y += 50


@cache
def _font(name: str, size: int) -> "FreeTypeFont":
    """A typeface that comes with matplotlib, so that cards look the same everywhere."""
    import matplotlib
    from PIL import ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"DejaVu{name}.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def _wrapped(text: str, font: "FreeTypeFont", width: int) -> list[str]:
    """Lines of whole words; a word that is too long by itself is cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_fitted(word, font, width))
    return lines


def _fitted(text: str, font: "FreeTypeFont", width: int) -> str:
    """The text, cut with an ellipsis where it is too long."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
