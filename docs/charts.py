"""Draws the charts of docs/benchmarks-overview.md from the tables of the other pages of benchmarks.

    python docs/charts.py

To be run again when figures have changed, which a test says. A chart has the first table of each kind of work:
of tables whose titles differ in numbers only, the others stay out. It needs nothing but the standard library.
"""

import re
import textwrap
from collections.abc import Iterator
from html import escape
from math import log10
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parent
_KINDS = ("real-work", "streams", "features", "durable", "limits", "executors", "clusters")
PAGES = ("benchmarks", *(f"benchmarks-{kind}" for kind in _KINDS))

_WIDTH, _MARGIN, _ROW, _LINE, _BAR = 380, 6, 31, 17, 8
_LEAST, _MOST = 0.5, 2.0
"""What a chart reaches from and to, at least."""
_TITLE, _NAME = 48, 34
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#1c1f26}.t{font-weight:600}.n{text-anchor:end}.m{fill:#59636e}"
    ".o{fill:#2b6cb5}.b{fill:#9aa4b2}.g{stroke:#9aa4b2;stroke-dasharray:2 3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6e9ef}.m{fill:#9aa4b2}.o{fill:#69a9f0}.b{fill:#626d7c}"
    ".g{stroke:#626d7c}}"
)


class Row(NamedTuple):
    """A contestant: what it took, and how many times what Procession took."""

    name: str
    took: str
    times: float


class Table(NamedTuple):
    """A table of a page."""

    title: str
    unit: str
    rows: list[Row]


class Scale(NamedTuple):
    """From where to where the ratios of a chart reach."""

    least: float
    most: float

    def x(self, times: float) -> float:
        """Return where a ratio lies: twice as long is as far from 1 as half as long."""
        return _MARGIN + log10(times / self.least) / log10(self.most / self.least) * (_WIDTH - 2 * _MARGIN)


def tables_of(text: str) -> Iterator[Table]:
    """Yield the tables of a page that compare something, one for each kind of work."""
    seen = set[str]()
    for part in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
        kind = re.sub(r"[\d.,]+", "", lines[0])
        if len(cells) < 4 or not cells[0][-1].startswith("times") or kind in seen:  # noqa: PLR2004  # a head, two rows
            continue
        seen.add(kind)
        rows = [row for row in cells[2:] if row[-1] != "-"]  # where it has no ratio, Procession took nothing
        yield Table(lines[0], cells[0][1], [Row(row[0], row[1], float(row[-1].replace(",", ""))) for row in rows])


def chart_of(tables: list[Table], about: str) -> str:
    """Return a chart: of each table how many times longer, or less long, each contestant took than Procession."""
    ratios = [row.times for table in tables for row in table.rows]
    scale = Scale(min(_LEAST, *ratios), max(_MOST, *ratios))
    body: list[str] = []
    y = 0
    for table in tables:
        for line in textwrap.wrap(table.title, _TITLE):
            y += _LINE
            body.append(f'<text class="t" x="{_MARGIN}" y="{y}">{escape(line)}</text>')
        top = y + 4
        bars: list[str] = []
        for row in table.rows:
            bars += _bar(row, table.unit, scale, y)
            y += _ROW
        body.append(f'<path class="g" d="M{scale.x(1.0):.1f} {top}V{y + 2}"/>')
        body += bars
        y += 14
    view = f'viewBox="0 0 {_WIDTH} {y}" width="{_WIDTH}" height="{y}"'
    label = f'role="img" aria-label="{escape(about)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {view} {label}><style>{_STYLE}</style>'
    return "\n".join([head, *body, "</svg>\n"])


def _bar(row: Row, unit: str, scale: Scale, y: int) -> Iterator[str]:
    ours = row.times == 1.0 and row.name.startswith("procession")
    name = escape(textwrap.shorten(row.name, _NAME, placeholder=" …"))
    said = f"{row.took} {unit}" if ours else f"{row.times:,.3g} ×"
    begin, end = sorted((scale.x(1.0), scale.x(row.times)))
    if ours:
        begin, end = begin - 2, end + 2
    yield f'<text class="m" x="{_MARGIN}" y="{y + _LINE}">{name}</text>'
    yield f'<text class="n" x="{_WIDTH - _MARGIN}" y="{y + _LINE}">{escape(said)}</text>'
    where = f'x="{begin:.1f}" y="{y + _LINE + 4}" width="{max(end - begin, 2):.1f}" height="{_BAR}"'
    yield f'<rect class="{"o" if ours else "b"}" rx="2" {where}/>'


def charts() -> dict[str, str]:
    """Return the chart of each page, by the name of its file."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
        title = re.search(r"^# (.*)", text, re.MULTILINE)
        assert title is not None, f"{page}.md has no title"
        found[f"{page}.svg"] = chart_of(list(tables_of(text)), f"{title[1]}: how many times what Procession took")
    return found


if __name__ == "__main__":
    for name, chart in charts().items():
        (DOCS / "images" / name).write_text(chart, encoding="utf-8")
