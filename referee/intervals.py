"""Pictures of how a value was weighed: its interval against the paper's value and the claim's tolerance.

Inline SVG without a script; colours come from the page's style sheet, so light and dark both work. All pictures have
the same scale, the tolerance: the paper's value and the tolerance stand in the same places in each, and rows of a table
can be compared at a glance. What runs out of the picture ends in an arrow.

    python -m referee.intervals      writes docs/verdicts.svg, the drawn explanation of docs/readers.md
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from markupsafe import Markup, escape

from common.records import Score, write_text
from referee.schema import ValueClaim
from referee.show import MARKS
from referee.verdicts import Status, Verdict, show_score, show_shortfall
from referee.weighing import Shortfall, shortfall

WIDTH, HEIGHT = 212, 42  # pixels of one picture
BAND = 24  # of its height that is band, the rest are words
PAPER_AT, TOLERANCE_AT = 66, 126  # where the two numbers stand
MIDDLE, SIDE = 106, 46  # for "near": the paper's value, and how far from it the tolerance lies on either side

EXPLAINED = Path(__file__).parent.parent / "docs" / "verdicts.svg"


def interval_picture(v: Verdict, key: str) -> Markup:
    """The interval of a value that was judged, as inline SVG; nothing for any other verdict.

    Args:
        key: unique on the page; names the title.
    """
    short = v.shortfall
    if short is None:
        return Markup("")
    said = f"{v.status}: {show_shortfall(short, v.unit or '')}"
    scale = _Scale.of(short)
    words = f'<text x="{scale.zero:g}" y="{HEIGHT - 5}" text-anchor="middle">paper</text>'
    if scale.margin > scale.zero:
        words += f'<text x="{scale.margin:g}" y="{HEIGHT - 5}" text-anchor="middle">tolerance</text>'
    if not short.near:
        words += f'<text x="0" y="{HEIGHT - 5}">better</text>'
        words += f'<text x="{WIDTH}" y="{HEIGHT - 5}" text-anchor="end">worse</text>'
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return Markup(
        f'<svg {size} role="img" aria-labelledby="{escape(key)}" class="interval">'
        f'<title id="{escape(key)}">{escape(said)}</title>'
        f"{scale.zones(0, BAND)}{scale.interval(short, BAND / 2)}{words}</svg>"
    )


@dataclass(frozen=True)
class _Scale:
    """Where numbers stand between left and right."""

    left: float
    right: float
    zero: float  # the paper's value
    margin: float  # the tolerance; at zero where there is none
    pixels: float  # that a unit takes
    near: bool

    @classmethod
    def of(cls, short: Shortfall, left: float = 0.0, right: float = WIDTH) -> "_Scale":
        stretch = (right - left) / WIDTH
        zero, margin = (MIDDLE, MIDDLE + SIDE) if short.near else (PAPER_AT, TOLERANCE_AT)
        if not short.tolerance:  # nothing to measure by but the interval itself
            reach = max(abs(end) for end in (short.by, short.low or 0.0, short.high or 0.0)) or 1.0
            return cls(left, right, left + stretch * zero, left + stretch * zero, stretch * SIDE / reach, short.near)
        pixels = stretch * (margin - zero) / short.tolerance
        return cls(left, right, left + stretch * zero, left + stretch * margin, pixels, short.near)

    def at(self, number: float) -> float:
        return self.zero + number * self.pixels

    def zones(self, top: float, height: float) -> str:
        """At least as good, within the tolerance, and beyond; the numbers between them as lines."""
        ends = [self.left, self.zero, self.margin, self.right]
        kinds = ["good", "near", "bad"]
        if self.near:
            ends = [self.left, 2 * self.zero - self.margin, self.margin, self.right]
            kinds = ["bad", "near", "bad"]
        out = "".join(
            f'<rect class="zone {kind}" x="{a:.1f}" y="{top:g}" width="{b - a:.1f}" height="{height:g}"/>'
            for kind, a, b in zip(kinds, ends, ends[1:], strict=False)
            if b > a
        )
        marks = [(self.zero, "paper")] + [(x, "margin") for x in ends[1:3] if x != self.zero]
        for x, name in marks:
            out += f'<line class="{name}" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{top + height:g}"/>'
        return out

    def interval(self, short: Shortfall, y: float) -> str:
        """The interval as a line, with arrows where it runs out of the picture, and our value as a dot."""
        low, high = (short.by if end is None else end for end in (short.low, short.high))
        a, b = self._inside(low), self._inside(high)
        out = ""
        if short.low is not None:
            out = f'<line class="known" x1="{a:.1f}" x2="{b:.1f}" y1="{y:g}" y2="{y:g}"/>'
            for x, number in ((a, low), (b, high)):
                if x == self.at(number):
                    out += f'<path class="end" d="M{x:.1f} {y - 5:g}V{y + 5:g}"/>'
        if self.at(high) > self.right - 1:
            out += f'<path class="end" d="M{b - 6:.1f} {y - 5:g}L{b:.1f} {y:g}L{b - 6:.1f} {y + 5:g}"/>'
        if self.at(low) < self.left + 1:
            out += f'<path class="end" d="M{a + 6:.1f} {y - 5:g}L{a:.1f} {y:g}L{a + 6:.1f} {y + 5:g}"/>'
        if self.left < self.at(short.by) < self.right:
            out += f'<circle class="ours" cx="{self.at(short.by):.1f}" cy="{y:g}" r="4"/>'
        return out

    def _inside(self, number: float) -> float:
        return min(max(self.at(number), self.left + 1), self.right - 1)


# -- The drawn explanation ---------------------------------------------------------------------------------------------

EXAMPLES: Sequence[tuple[Status, float, float]] = (
    ("reproduced", 84.80, 0.12),
    ("within tolerance", 84.95, 0.10),
    ("inconclusive", 85.10, 0.14),
    ("not reproduced", 85.55, 0.12),
)
"""Verdict, our value, its standard error: where the paper prints 84.70, lower is better, and the tolerance is 0.5."""

STYLE = """
text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1c1f24; }
.soft { fill: #565c66; font-size: 12px; } .word { font-weight: 600; }
.zone.good { fill: #e0f2e6; } .zone.near { fill: #fbefcf; } .zone.bad { fill: #fbe3e0; }
.paper { stroke: #1c1f24; } .margin { stroke: #1c1f24; stroke-dasharray: 3 3; }
.known { stroke: #1c1f24; stroke-width: 3; } .ours { fill: #1c1f24; }
.end { fill: none; stroke: #1c1f24; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
  text { fill: #e9e7e1; } .soft { fill: #b0b5bd; }
  .zone.good { fill: #17392a; } .zone.near { fill: #3d3116; } .zone.bad { fill: #47201e; }
  .paper, .margin, .known, .end { stroke: #e9e7e1; } .ours { fill: #e9e7e1; }
}
"""


def explanation(*, alone: bool) -> str:
    """Four values and what they come to, as SVG: to stand alone in a file, or on a page with a style sheet."""
    claim = ValueClaim(
        id="example",
        kind="value",
        source="an example",
        certainty="seen",
        dataset="mnist",
        preset="paper",
        metric="nll",
        run="example",
        paper_value=Decimal("84.70"),
        direction="lower",
        tolerance=Decimal("0.5"),
    )
    width, row, top = 360, 52, 40
    height = top + row * len(EXAMPLES) + 26
    scale = _Scale.of(Shortfall(0, 0, 0, 0.5), 0, width)
    out = [
        f'<text class="soft" x="{scale.zero:.1f}" y="16" text-anchor="middle">the paper\'s</text>',
        f'<text x="{scale.zero:.1f}" y="34" text-anchor="middle">84.70</text>',
        f'<text class="soft" x="{scale.margin:.1f}" y="16" text-anchor="middle">tolerance</text>',
        f'<text x="{scale.margin:.1f}" y="34" text-anchor="middle">85.20</text>',
        '<text class="soft" x="0" y="34">← better</text>',
        f'<text class="soft" x="{width}" y="34" text-anchor="end">worse →</text>',
    ]
    said = []
    for i, (status, value, stderr) in enumerate(EXAMPLES):
        score = Score("nll", value, stderr, 1000, "nats", "exact", "test", "raw", "")
        y = top + row * i
        out.append(
            f'<text y="{y + 19}"><tspan class="word">{MARKS[status][0]} {status}</tspan> {show_score(score)}</text>'
            f"{scale.zones(y + 26, BAND)}{scale.interval(shortfall(claim, score), y + 26 + BAND / 2)}"
        )
        said.append(f"{show_score(score)} is {status}")
    foot = "bars: two standard errors either way, and rounding"
    out.append(f'<text class="soft" x="0" y="{height - 6}">{foot}</text>')
    title = f"The paper prints 84.70, lower is better, the tolerance is 0.5: {'; '.join(said)}."
    space = ' xmlns="http://www.w3.org/2000/svg"' if alone else ' class="interval explained"'
    style = f"<style>{STYLE}</style>" if alone else ""
    return (
        f'<svg{space} viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-labelledby="explained"><title id="explained">{escape(title)}</title>{style}{"".join(out)}</svg>\n'
    )


if __name__ == "__main__":
    write_text(EXPLAINED, explanation(alone=True))
