"""Charts for the report as inline SVG: no script, colours from the page's style sheet, so light and dark both work.

A chart is drawn for a width in pixels and not scaled much: the page holds one for wide screens and one for phones,
and shows the one that fits, so that letters stay readable.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

COLOURS = 8  # classes c0 ... c7 of the style sheet
MAX_POINTS = 160


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    label: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Dot:
    """One row of a dot chart: a value with its error, the value it is compared with, and those it is the mean of."""

    label: str
    value: float
    stderr: float | None
    reference: float | None = None
    reference_stderr: float | None = None
    values: tuple[float, ...] = ()  # one of each seed


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that cover [low, high], roughly `about` of them."""
    span = (high - low) or 1.0
    raw = span / max(about, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_label(value: float) -> str:
    """'−100', '2.5', '20k'."""
    if abs(value) >= 10_000 and value % 1000 == 0:
        return f"{value / 1000:g}k".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as close as possible to those wanted, in the same order, at least `gap` apart, inside [low, high]."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    placed: list[float] = []
    for rank, i in enumerate(order):
        y = max(wanted[i], low + rank * gap, placed[-1] + gap if placed else low)
        placed.append(y)
    for rank in range(len(placed) - 1, -1, -1):  # push back what ran over the end
        ceiling = high - (len(placed) - 1 - rank) * gap
        after = placed[rank + 1] - gap if rank + 1 < len(placed) else high
        placed[rank] = min(placed[rank], ceiling, after)
    result = [0.0] * len(wanted)
    for rank, i in enumerate(order):
        result[i] = placed[rank]
    return result


def thin(s: Series) -> Series:
    """The same line with at most `MAX_POINTS` points: means of neighbours, so that noise does not hide the trend."""
    stride = math.ceil(len(s.x) / MAX_POINTS)
    if stride == 1:
        return s
    starts = range(0, len(s.x) - stride + 1, stride)
    y = [math.fsum(s.y[i : i + stride]) / stride for i in starts]
    return Series(s.label, [s.x[i + stride - 1] for i in starts], y)


def _settled(series: Sequence[Series]) -> tuple[float, float]:
    """The range of the values once the first steps are over; these would flatten everything else."""
    values: list[float] = []
    for s in series:
        start = s.x[0] + 0.06 * (s.x[-1] - s.x[0])
        values += [y for x, y in zip(s.x, s.y, strict=True) if x >= start] or list(s.y)
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
    return low - margin, high + margin


def line_chart(series: Sequence[Series], *, title: str, x_label: str, y_label: str, width: int, key: str) -> Markup:
    """Lines with direct labels at their ends; the axes' labels name quantity and unit.

    Args:
        key: unique on the page; names the clipping region.
    """
    series = [thin(s) for s in series if len(s.x) > 1]
    if not series:
        return Markup("")
    narrow = width < 500
    height = 300 if narrow else 380
    longest = max(len(s.label) for s in series)
    left, right, top, bottom = 56, min(16 + int(7.8 * longest), int(width * 0.36)), 34, 46
    x0, x1 = min(s.x[0] for s in series), max(s.x[-1] for s in series)
    y0, y1 = _settled(series)

    def px(x: float) -> float:
        return left + (x - x0) / ((x1 - x0) or 1) * (width - left - right)

    def py(y: float) -> float:
        return top + (y1 - y) / (y1 - y0) * (height - top - bottom)

    out = [
        (
            f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
            f'aria-labelledby="{key}-t" class="chart {"narrow" if narrow else "wide"}">'
        ),
        f'<title id="{key}-t">{escape(title)}</title>',
        (
            f'<clipPath id="{key}-c"><rect x="{left}" y="{top}" width="{width - left - right}" '
            f'height="{height - top - bottom}"/></clipPath>'
        ),
        f'<text x="0" y="14" class="axis">{escape(y_label)}</text>',
        (
            f'<text x="{left + (width - left - right) / 2:.0f}" y="{height - 6}" class="axis" '
            f'text-anchor="middle">{escape(x_label)}</text>'
        ),
    ]
    for tick in ticks(y0, y1):
        y = py(tick)
        out.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        out.append(f'<text class="tick" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick_label(tick)}</text>')
    for tick in ticks(x0, x1, 3 if narrow else 5):
        out.append(
            f'<text class="tick" x="{px(tick):.1f}" y="{height - bottom + 18}" '
            f'text-anchor="middle">{tick_label(tick)}</text>'
        )
    out.append(f'<line class="base" x1="{left}" x2="{width - right}" y1="{height - bottom}" y2="{height - bottom}"/>')
    ends = [min(max(py(s.y[-1]), top), height - bottom) for s in series]
    labels = spread(ends, 15, top + 4, height - bottom)
    out.append(f'<g clip-path="url(#{key}-c)">')
    for i, s in enumerate(series):
        path = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in zip(s.x, s.y, strict=True))
        dashed = " dashed" if i >= COLOURS else ""
        out.append(f'<polyline class="line c{i % COLOURS}{dashed}" points="{path}"/>')
    out.append("</g>")
    for i, (s, y, label) in enumerate(zip(series, ends, labels, strict=True)):
        x = px(s.x[-1])
        out.append(
            f'<path class="leader c{i % COLOURS}" d="M{x:.1f} {y:.1f}L{width - right + 8} {label:.1f}"/>'
            f'<text class="label c{i % COLOURS}" x="{width - right + 11}" y="{label + 4:.1f}">{escape(s.label)}</text>'
        )
    out.append("</svg>")
    return Markup("".join(out))


def dot_chart(dots: Sequence[Dot], *, title: str, x_label: str, width: int, key: str) -> Markup:
    """One row a run: the value with two standard errors either way; a ring marks the paper's value, with its own.

    Above a mean over seeds stands a small mark for each of them.
    """
    if not dots:
        return Markup("")
    narrow = width < 500
    letter = 7.6  # pixels, a generous mean
    lines = [x_label] if letter * len(x_label) <= width else x_label.split(", ", 1)
    row, top, bottom = 26, 8, 28 + 16 * len(lines)
    height = top + row * len(dots) + bottom
    left = min(22 + int(7.8 * max(len(d.label) for d in dots)), int(width * 0.42))
    right = 16
    spans = [d.value + sign * 2 * (d.stderr or 0) for d in dots for sign in (-1, 1)]
    spans += [
        d.reference + sign * 2 * (d.reference_stderr or 0) for d in dots if d.reference is not None for sign in (-1, 1)
    ]
    spans += [value for d in dots for value in d.values]
    margin = 0.06 * (max(spans) - min(spans)) or abs(spans[0]) * 0.05 or 1.0
    x0, x1 = min(spans) - margin, max(spans) + margin

    def px(x: float) -> float:
        return left + (x - x0) / (x1 - x0) * (width - left - right)

    base = height - bottom
    whole = all(float(d.value).is_integer() for d in dots)  # counts: no halves on the axis
    out = [
        (
            f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
            f'aria-labelledby="{key}-t" class="chart {"narrow" if narrow else "wide"}">'
        ),
        f'<title id="{key}-t">{escape(title)}</title>',
    ]
    for tick in ticks(x0, x1, 4 if narrow else 7):
        if whole and tick != round(tick):
            continue
        x = px(tick)
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{base}"/>')
        out.append(f'<text class="tick" x="{x:.1f}" y="{base + 18}" text-anchor="middle">{tick_label(tick)}</text>')
    room = width - letter * max(map(len, lines)) / 2  # a long label stays inside
    middle = min(left + (width - left - right) / 2, room)
    for i, line in enumerate(lines):
        at = height - 6 - 16 * (len(lines) - 1 - i)
        out.append(f'<text class="axis" x="{middle:.0f}" y="{at}" text-anchor="middle">{escape(line)}</text>')
    for i, d in enumerate(dots):
        y = top + row * (i + 0.5)
        out.append(f'<text class="label" x="{left - 14}" y="{y + 4:.1f}" text-anchor="end">{escape(d.label)}</text>')
        if d.reference is not None:
            out.append(
                f'<line class="gap" x1="{px(d.reference):.1f}" x2="{px(d.value):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            )
            if d.reference_stderr:
                low, high = (px(d.reference + sign * 2 * d.reference_stderr) for sign in (-1, 1))
                out.append(f'<line class="ringed" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
            out.append(f'<circle class="ring" cx="{px(d.reference):.1f}" cy="{y:.1f}" r="5"/>')
        if d.stderr:
            low, high = px(d.value - 2 * d.stderr), px(d.value + 2 * d.stderr)
            out.append(f'<line class="error" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        for x in map(px, d.values):
            out.append(f'<line class="seed" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 11:.1f}" y2="{y - 6:.1f}"/>')
        out.append(f'<circle class="dot" cx="{px(d.value):.1f}" cy="{y:.1f}" r="5"/>')
    out.append("</svg>")
    return Markup("".join(out))


@dataclass(frozen=True)
class Bar:
    """One row of a chart of ratios: the median, the range of the turns, and what was aimed at."""

    label: str
    ratio: float
    low: float
    high: float
    target: float | None
    shown: str  # the ratio in letters
    behind: bool  # its target or the peer


def ratio_chart(bars: Sequence[Bar], span: tuple[float, float], *, title: str, width: int, key: str) -> Markup:
    """Bars from 1 on a logarithmic axis: to the right where ours is faster; the range as a line, the target as a mark.

    Args:
        span: what the axis has to reach, so that several charts have the same.
        key: unique on the page.
    """
    if not bars:
        return Markup("")
    narrow = width < 500
    letter = 7.2  # pixels, a generous mean
    left = 0 if narrow else int(width * 0.4)
    lines = [textwrap.wrap(b.label, int((width if narrow else left - 16) / letter)) or [""] for b in bars]
    heights = [16 * len(label) + 26 if narrow else max(30, 16 * len(label) + 10) for label in lines]
    top, right, bottom = 4, 54, 40
    height = top + sum(heights) + bottom
    x0, x1 = math.log(span[0]) - 0.06, math.log(span[1]) + 0.06
    inner = 10 if narrow else left

    def px(ratio: float) -> float:
        return inner + (math.log(ratio) - x0) / (x1 - x0) * (width - inner - right)

    base = height - bottom
    out = [
        (
            f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
            f'aria-labelledby="{key}-t" class="chart ratios {"narrow" if narrow else "wide"}">'
        ),
        f'<title id="{key}-t">{escape(title)}</title>',
    ]
    for tick in _log_ticks(span, 4 if narrow else 8):
        x = px(tick)
        out.append(
            f'<line class="{"base" if tick == 1 else "grid"}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{base}"/>'
            f'<text class="tick" x="{x:.1f}" y="{base + 16}" text-anchor="middle">{tick:g}×</text>'
        )
    middle = inner + (width - inner - right) / 2
    axis = "times as fast as the fastest peer"
    out.append(f'<text class="axis" x="{middle:.0f}" y="{height - 6}" text-anchor="middle">{axis}</text>')
    at = float(top)
    for b, label, room in zip(bars, lines, heights, strict=True):
        y = at + room - 14 if narrow else at + room / 2
        first = at + 14 if narrow else y + 4 - 8 * (len(label) - 1)
        for i, line in enumerate(label):
            x, anchor = (0, "start") if narrow else (left - 14, "end")
            out.append(
                f'<text class="name" x="{x}" y="{first + 16 * i:.1f}" text-anchor="{anchor}">{escape(line)}</text>'
            )
        start, end = sorted((px(1), px(b.ratio)))
        kind = "behind" if b.behind else "ahead"
        out.append(
            f'<rect class="bar {kind}" x="{start:.1f}" y="{y - 6:.1f}" width="{max(end - start, 2):.1f}" height="12"/>'
            f'<line class="range" x1="{px(b.low):.1f}" x2="{px(b.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        if b.target is not None:
            x = px(b.target)
            out.append(f'<path class="aim" d="M{x:.1f} {y - 10:.1f}V{y + 10:.1f}"/>')
        shown = escape(f"{b.shown} ✗" if b.behind else b.shown)
        out.append(f'<text class="label" x="{width}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>')
        at += room
    out.append("</svg>")
    return Markup("".join(out))


def _log_ticks(span: tuple[float, float], about: int) -> list[float]:
    """Round ratios inside a range, 1 among them, at most about so many."""
    low, high = span
    for steps in ((1, 2, 5), (1, 3), (1,)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [s * 10.0**p for p in powers for s in steps if low * 0.999 <= s * 10.0**p <= high * 1.001]
        if len(found) <= about:
            break
    return found
