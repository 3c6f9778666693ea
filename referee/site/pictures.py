"""Pictures that are made for the site: a project's picture in the gallery, and the card that others show of a page.

Both are drawn from published samples and text alone, the same bytes each time, and kept in `build/cache/pictures` by a
digest of what they are made from.
"""

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common.records import PRESETS_ORDER
from referee.schema import FigureClaim
from referee.site.model import Site
from referee.site.writing import png_size
from referee.standing import Standing, figure_file

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
    """Samples of the run that the first ordering names best, at the largest published preset that has them.

    Without such samples: those of any run there, else a claim's figure; None when there is no picture.
    """
    best = [run for v in s.verdicts if v.kind == "ordering" for run in v.runs[:1]]
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
    from PIL import Image

    with Image.open(io.BytesIO(raw), formats=["PNG"]) as opened:
        # Samples may be transparent where they are white.
        image = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened.convert("RGBA")).convert("RGB")
    side = min(image.size)
    image = image.crop((0, 0, side, side))
    if side > THUMBNAIL:
        image = image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.quantize(48, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
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
