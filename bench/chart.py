"""Bars as an SVG that reads well on light and dark pages: a group for each row, in its own unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LABELS, VALUES = 760, 250, 90
TITLE, BAR, SPACE = 26, 20, 16

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.unit { fill: #57606a }
.bar { fill: #8c959f }
.own { fill: #0969da }
.target { stroke: #cf222e; stroke-width: 2; stroke-dasharray: 4 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .unit { fill: #9198a1 }
  .bar { fill: #6e7681 }
  .own { fill: #4493f8 }
  .target { stroke: #f85149 }
}
"""


@dataclass(frozen=True)
class Bar:
    label: str
    value: float
    # The hub's own stand out.
    own: bool = False


@dataclass(frozen=True)
class Group:
    """Bars of one unit; `target` is where the hub's own, which come first, are to end; None: nowhere."""

    title: str
    unit: str
    bars: Sequence[Bar]
    target: float | None = None


def draw(groups: Sequence[Group]) -> str:
    """Return the SVG, '' without groups. The longest bar of a group, or its target, takes the whole width."""
    if not groups:
        return ""
    parts: list[str] = []
    top = SPACE
    for group in groups:
        parts += _group(group, top)
        top += TITLE + len(group.bars) * BAR + SPACE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}" role="img">\n'
        f"<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _group(group: Group, top: int) -> list[str]:
    most = max([bar.value for bar in group.bars] + [group.target or 0]) or 1
    scale = (WIDTH - LABELS - VALUES) / most
    unit = f'<tspan class="unit" font-weight="400">({escape(group.unit)})</tspan>'
    parts = [f'<text class="title" x="0" y="{top + 12}">{escape(group.title)} {unit}</text>']
    for place, bar in enumerate(group.bars):
        y = top + TITLE + place * BAR
        length = max(bar.value * scale, 1)
        parts += [
            f'<text x="{LABELS - 8}" y="{y + 11}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{"own" if bar.own else "bar"}" x="{LABELS}" y="{y}" width="{length:.1f}" height="{BAR - 6}" rx="2"/>',
            f'<text x="{LABELS + length + 6:.1f}" y="{y + 11}">{short(bar.value)}</text>',
        ]
    if group.target is not None:
        x = LABELS + group.target * scale
        bottom = top + TITLE + sum(bar.own for bar in group.bars) * BAR - 2
        parts.append(
            f'<line class="target" x1="{x:.1f}" x2="{x:.1f}" y1="{top + TITLE - 4}" y2="{bottom}"><title>target</title></line>'
        )
    return parts


def short(value: float | None) -> str:
    """Write a figure with three digits that count; '' for None."""
    if value is None:
        return ""
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"
