"""A picture of the figures: rows of bars with the spread of the rounds, as an SVG that needs nothing else.

Drawn by hand: chart libraries bring scripts and styles along, which a README's host takes out again, and few draw the
spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from figures import Spread, digits

WIDTH, LABEL, ROW, TITLE, MARGIN = 760, 250, 26, 40, 16
_OURS, _THEIRS, _SPREAD, _TEXT = "#2f6f4f", "#b9c0c7", "#3a3f45", "#1f2328"
_VALUE = 90
"""How much room the number at the end of a row has."""


@dataclass(frozen=True)
class Row:
    """One bar."""

    label: str
    value: Spread
    ours: bool


@dataclass(frozen=True)
class Panel:
    """Bars that are told in the same unit."""

    title: str
    rows: Sequence[Row]


def drawn(panels: Sequence[Panel]) -> str:
    """The picture."""
    parts, top = list[str](), MARGIN
    for panel in panels:
        parts += _panel(panel, top)
        top += TITLE + ROW * len(panel.rows)
    height = top + MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    font = 'font-family="system-ui, sans-serif" font-size="13"'
    return "\n".join([f"{head} {font}>", f'<rect width="{WIDTH}" height="{height}" fill="white"/>', *parts, "</svg>\n"])


def _panel(panel: Panel, top: int) -> list[str]:
    title = _text(MARGIN, top + 22, panel.title, 'font-weight="600"')
    scale = (WIDTH - LABEL - _VALUE - MARGIN) / max(row.value.most for row in panel.rows)
    rows = [part for number, row in enumerate(panel.rows) for part in _row(row, top + TITLE - 6 + number * ROW, scale)]
    return [title, *rows]


def _row(row: Row, top: int, scale: float) -> list[str]:
    middle, (least, most) = top + ROW / 2, (LABEL + scale * each for each in (row.value.least, row.value.most))
    colour = _OURS if row.ours else _THEIRS
    return [
        _text(LABEL - 8, middle + 4, row.label, 'text-anchor="end"'),
        f'<rect x="{LABEL}" y="{top + 4}" width="{scale * row.value.median:.1f}" height="{ROW - 8}" fill="{colour}"/>',
        f'<path d="M{least:.1f} {middle}H{most:.1f}" stroke="{_SPREAD}" stroke-width="2"/>',
        _text(round(most) + 6, middle + 4, digits(row.value.median)),
    ]


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}" fill="{_TEXT}" {more}>{escape(text)}</text>'
