"""The picture of an outline: a box for each stage, a card for each node, a line for each edge."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

from procession._model.columns import columns, shortened
from procession.pictures.layout import Columns, Layout, Point, arranged, bends, beside, in_columns, ranked
from procession.pictures.nodes import Edge, Outline, places_said, stage_said, tag_of
from procession.pictures.picture import MONO, Style, part_of, sheet, svg_of, text

# Geometry, in pixels.
_MARGIN = 24
_TOP = 50
_HEADER = 38
_PAD = 20
_HEIGHT = 32
_CHARACTER = 7.4
_NAME = 30
_ALONG, _ACROSS = 64, 14
_BELOW = 22
_BETWEEN = 76
_WIDE = 1000
_DEEP = 12
"""Ranks of a column, at least, where there are several."""
_TURN, _LANE = 14, 5
"""How far lines from one column to the next keep from the cards, and from each other."""
_LANES = 12
"""Such lines side by side, at most."""
_GRID = 4

_STYLE: Style = {
    ".title": {"font-size": "16px", "font-weight": "600", "fill": "ink"},
    ".sub": {"font-size": "12px", "fill": "muted"},
    ".stage": {"fill": "panel", "stroke": "line"},
    ".card": {"fill": "card", "stroke": "line"},
    ".under": {"fill": "card", "stroke": "line"},
    ".map": {"stroke": "blue"},
    ".name": {"font-family": MONO, "font-size": "12px", "fill": "ink"},
    ".tag": {"font-size": "12px", "fill": "muted", "text-anchor": "end"},
    ".note": {"font-size": "12px", "fill": "muted", "text-anchor": "middle"},
    ".halo": {"stroke": "panel", "stroke-width": "4", "stroke-linejoin": "round", "fill": "none"},
    ".value": {"stroke": "blue", "stroke-width": "1.5", "fill": "none"},
    ".order": {"stroke": "edge", "stroke-width": "1.5", "stroke-dasharray": "2 3.5", "fill": "none"},
    ".then": {"stroke": "edge", "stroke-width": "2.5", "fill": "none"},
    ".tip": {"fill": "blue"},
    ".dry": {"fill": "edge"},
}


_STANDING: Style = {
    ".track": {"fill": "line"},
    ".ended": {"fill": "blue"},
    ".bad": {"fill": "red"},
    ".failed .card": {"stroke": "red"},
    ".failed .tag": {"fill": "red", "font-weight": "600"},
    ".running .card": {"stroke": "blue", "stroke-dasharray": "4 3"},
    ".interrupted .card": {"stroke": "amber", "stroke-dasharray": "4 3"},
    ".waiting .name": {"fill": "muted"},
    "a:hover .name": {"text-decoration": "underline"},
}

_KIND = "procession-graph"
GRAPH_SHEET = sheet(_KIND, {**_STYLE, **_STANDING})
"""The rules of `part_of_graph`."""


class NodeStatus(NamedTuple):
    """How the tasks of a node stand, and the address at which there is more of them."""

    ended: int
    """Those that failed are among them."""
    failed: int
    begun: int
    """And not ended."""
    address: str
    elements: int = 0
    """Of a map with elements that failed, how many have ended."""
    bad_elements: int = 0
    """And how many of them failed."""


def svg_of_graph(outline: Outline) -> str:
    """Return the outline as SVG."""
    drawing = _Drawing(outline)
    title = shortened(outline.name, 60)
    width = max(drawing.right, 2 * _MARGIN + 9.2 * columns(title)) + _MARGIN
    head = [f'<text class="title" x="{_MARGIN}" y="32">{text(title)}</text>']
    if not outline.nodes:
        head.append(f'<text class="sub" x="{_MARGIN}" y="52">no tasks</text>')
    return svg_of(_KIND, width, drawing.bottom + _MARGIN, f"Process {outline.name}", head + drawing.body(), _STYLE)


def part_of_graph(outline: Outline, statuses: Sequence[NodeStatus], begun: str, not_begun: str) -> str:
    """Return the outline as SVG with how each node stands, for a page that has `GRAPH_SHEET`.

    `begun` is the word for tasks that have begun and not ended, `not_begun` that for those that have not begun.
    """
    drawing = _Drawing(outline, statuses, (begun, not_begun))
    box = (_MARGIN - 2, _TOP - 2, drawing.right - _MARGIN + 4, drawing.bottom - _TOP + 4)
    return part_of(_KIND, box, f"Graph of process {outline.name}", drawing.body())


class _Laid(NamedTuple):
    """How the nodes of a stage lie that wait for others, or others for them."""

    layout: Layout
    starts: list[tuple[float, float]]
    """Where each rank begins across, and its top; or its left, and where it begins across."""
    ranks: dict[int, int]
    columns: Columns | None
    """`None` where ranks follow each other to the right, and not downwards."""
    begins: list[float]
    """The left side of each column."""


class _Drawing:
    """The making of one picture: where everything goes, then what it looks like."""

    def __init__(
        self, outline: Outline, statuses: Sequence[NodeStatus] = (), words: tuple[str, str] = ("", "")
    ) -> None:
        self.outline = outline
        self.statuses = statuses
        self.words = words
        self.corners: dict[int, tuple[float, float, float]] = {}
        """Node → left, top, width."""
        self.stages: list[tuple[float, float, float]] = []
        """Stage → left, width, height."""
        self.layouts: list[_Laid] = []
        left = float(_MARGIN)
        for place in range(len(outline.stages)):
            width, height = self._placed(place, left)
            self.stages.append((left, width, height))
            left += width + _BETWEEN
        self.right = max((left + width for left, width, _ in self.stages), default=220.0)
        self.bottom = _TOP + max((height for _, _, height in self.stages), default=12.0)

    def body(self) -> list[str]:
        edges, nodes = self.outline.edges, range(len(self.outline.nodes))
        return [
            *self._frames(),
            *(line for edge in edges for line in self._edge(edge)),
            *(line for number in nodes for line in self._card(number)),
            *(line for edge in edges for line in self._noted(edge)),
        ]

    # Where

    def _placed(self, place: int, left: float) -> tuple[float, float]:
        """Place the nodes of a stage whose left edge is given; return its width and height."""
        outline = self.outline
        mine = [number for number, node in enumerate(outline.nodes) if node.stage == place]
        inside = [(e.source, e.target) for e in outline.edges if e.source in mine and e.target in mine]
        into = [(e.source, e.target) for e in outline.edges if e.source not in mine and e.target in mine]
        tied = {number for edge in inside + into for number in edge}
        wired = [number for number in mine if number in tied]
        alone = [number for number in mine if number not in tied]
        ranks = ranked(wired, inside)
        deep = max(ranks.values(), default=-1) + 1
        widths = [0.0] * deep
        for number, rank in ranks.items():
            widths[rank] = max(widths[rank], self._width(number))
        heading = 6.4 * len(stage_said(outline.stages[place]))
        downwards = not outline.stages[place].at_once or sum(widths) + _ALONG * (deep - 1) > _WIDE
        x, y = left + _PAD, float(_TOP + _HEADER)
        if downwards:
            widest = max([*widths, heading] if len(ranks) == deep else widths)
            width, height = self._place_downwards(ranks, widest, inside, x, y)
        else:
            anchors = {source: self.corners[source][1] for source, _ in into}
            sizes = dict.fromkeys(ranks, float(_HEIGHT))
            layout = arranged(ranks, sizes, inside + into, gap=_ACROSS, anchors=anchors)
            starts = [(x + sum(widths[:rank]) + _ALONG * rank, y) for rank in range(deep)]
            for number, rank in ranks.items():
                self.corners[number] = (starts[rank][0], y + layout.across[number] - _HEIGHT / 2, widths[rank])
            width, height = sum(widths) + _ALONG * max(0, deep - 1), layout.size
            self.layouts.append(_Laid(layout, starts, ranks, None, []))
        if alone:
            top = height + _HEIGHT if wired else 0.0
            room = max(map(self._width, alone))
            across = max(1, min(_GRID, -(-len(alone) // 4), int(_WIDE // (room + _ACROSS))))
            for place_, number in enumerate(alone):
                row, column = divmod(place_, across)
                self.corners[number] = (x + column * (room + _ACROSS), y + top + row * (_HEIGHT + _ACROSS), room)
            rows = -(-len(alone) // across)
            across = min(across, len(alone))
            width = max(width, across * (room + _ACROSS) - _ACROSS)
            height = top + rows * (_HEIGHT + _ACROSS) - _ACROSS
        return max(width, heading) + 2 * _PAD, height + _HEADER + _PAD

    def _place_downwards(
        self, ranks: dict[int, int], widest: float, inside: Sequence[tuple[int, int]], x: float, y: float
    ) -> tuple[float, float]:
        """Place nodes below those they wait for: in several columns, if there are many ranks and room for it."""
        deep = max(ranks.values(), default=-1) + 1
        if len(ranks) == deep:
            layout = beside(ranks, widest, inside, gap=_ACROSS)
        else:
            layout = arranged(ranks, dict.fromkeys(ranks, widest), inside, gap=_ACROSS, anchors={})
        columns = _fitting(layout, ranks, widest, inside)
        sides, turning = _sides(layout, ranks, widest, columns), _turning(columns)
        begins = [x]
        for left, right in sides[:-1]:
            begins.append(begins[-1] + right - left + turning + _TURN)
        starts: list[tuple[float, float]] = []
        for rank in range(deep):
            column, row = divmod(rank, columns.ranks)
            starts.append((begins[column] - sides[column][0], y + turning + row * (_HEIGHT + _BELOW)))
        for number, rank in ranks.items():
            left, top = starts[rank]
            self.corners[number] = (left + layout.across[number] - widest / 2, top, widest)
        self.layouts.append(_Laid(layout, starts, ranks, columns, begins))
        height = min(deep, columns.ranks) * (_HEIGHT + _BELOW) - _BELOW + 2 * turning if deep else 0.0
        return _wide(sides, turning), height

    def _width(self, number: int) -> float:
        node = self.outline.nodes[number]
        return max(96.0, 30 + columns(shortened(node.name, _NAME)) * _CHARACTER + len(self._tag(number)) * 6.6)

    def _tag(self, number: int) -> str:
        tag = tag_of(self.outline.nodes[number])
        failed = self.statuses[number].failed if self.statuses else 0
        if not failed:
            return tag
        several = len(self.outline.nodes[number].tasks) > 1
        return f"{tag}, {failed:,} failed" if several else f"{tag}, {self._bad_elements(number) or 'failed'}"

    def _bad_elements(self, number: int) -> str:
        status = self.statuses[number]
        return f"{status.bad_elements:,} of {status.elements:,} failed" if status.bad_elements else ""

    # What

    def _frames(self) -> Iterator[str]:
        for place, (left, width, height) in enumerate(self.stages):
            stage = self.outline.stages[place]
            yield (
                f'<rect class="stage" x="{left:.1f}" y="{_TOP}" width="{width:.1f}" height="{height:.1f}" rx="10"/>'
                f'<text class="sub" x="{left + _PAD:.1f}" y="{_TOP + 24}">{stage_said(stage)}</text>'
            )
            if place:
                y, begin = _TOP + 20, left - _BETWEEN + 8
                yield (
                    f'<path class="then" d="M{begin:.1f} {y}H{left - 16:.1f}">'
                    "<title>after all of the stage before</title></path>"
                    f'<path class="dry" d="M{left - 8:.1f} {y}l-9 -5v10z"/>'
                )

    def _card(self, number: int) -> Iterator[str]:
        node = self.outline.nodes[number]
        left, top, width = self.corners[number]
        several = len(node.tasks) > 1 or node.kind == "map"
        where = f"{len(node.tasks):,} {'tasks' if len(node.tasks) > 1 else 'task'}: {places_said(node.tasks)}"
        kind = {"task": "", "map": "one call for each element, ", "process": "a process, "}[node.kind]
        rows = ", one after another" if node.in_rows else ""
        mark = ' map"' if node.kind == "map" else '"'
        begin, bar, end = self._node_status(number)
        yield f"{begin}<title>{text(node.name)}\n{kind}{where}{rows}</title>"
        size = f'width="{width:.1f}" height="{_HEIGHT}" rx="6"'
        if several:
            yield f'<rect class="under{mark} x="{left + 4:.1f}" y="{top + 4:.1f}" {size}/>'
        yield f'<rect class="card{mark} x="{left:.1f}" y="{top:.1f}" {size}/>'
        if node.kind == "process":
            yield (
                f'<rect class="card" x="{left + 3:.1f}" y="{top + 3:.1f}" width="{width - 6:.1f}" '
                f'height="{_HEIGHT - 6}" rx="4"/>'
            )
        yield (
            f'<text class="name" x="{left + 11:.1f}" y="{top + 20.5:.1f}">{text(shortened(node.name, _NAME))}</text>'
            f'<text class="tag" x="{left + width - 10:.1f}" y="{top + 20:.1f}">{self._tag(number)}</text>{bar}{end}'
        )

    def _node_status(self, number: int) -> tuple[str, str, str]:
        """Return the opening tags of a card, the bar at its bottom, and the closing tags."""
        if not self.statuses:
            return '<g class="node">', "", "</g>"
        node, status = self.outline.nodes[number], self.statuses[number]
        ended, failed, begun, address = status[:4]
        left, top, width = self.corners[number]
        total = len(node.tasks)
        doing, not_begun = self.words
        state = "failed" if failed else doing if begun else "completed" if ended == total else "waiting"
        parts = [(failed, "failed"), (ended - failed, "completed"), (begun, doing), (total - ended - begun, not_begun)]
        said = ", ".join(f"{count:,} {what}" if total > 1 else what for count, what in parts if count)
        if self._bad_elements(number):
            said = self._bad_elements(number)
            ended, failed, total = status.elements, status.bad_elements, status.elements
        x, y, room = left + 10, top + _HEIGHT - 5, width - 20
        bad = max(2.0, room * failed / total) if failed else 0.0
        bar = "".join(
            f'<rect class="{kind}" x="{x + begin:.1f}" y="{y:.1f}" width="{size:.1f}" height="2"/>'
            for kind, begin, size in (
                ("track", 0.0, room),
                ("ended", 0.0, max(0.0, room * ended / total - bad)),
                ("bad", max(0.0, room * ended / total - bad), bad),
            )
            if size
        )
        name = f"{text(shortened(node.name, _NAME))} {tag_of(node)}: {said}"  # as it is seen, so that it can be spoken
        return f'<a class="node {state}" href="{text(address)}" aria-label="{name}">', bar, "</a>"

    def _edge(self, edge: Edge) -> Iterator[str]:
        points, downwards = self._route(edge)
        (x, y), kind = points[-1], "value" if edge.takes_value else "order"
        # The line ends inside its tip, which would else be as blunt as the line is wide.
        points = [*points[:-1], (x, y - 5) if downwards else (x - 5, y)]
        tip = f"M{x:.1f} {y:.1f}l-4 -8h8z" if downwards else f"M{x:.1f} {y:.1f}l-8 -4v8z"
        names = [text(shortened(self.outline.nodes[number].name, 60)) for number in (edge.source, edge.target)]
        said = f"{names[1]} takes the value of {names[0]}" if edge.takes_value else f"{names[1]} comes after {names[0]}"
        yield (
            f"<g><title>{said}{f' ({edge.note})' if edge.note else ''}</title>"
            f'<path class="{kind}" d="{_curve(points, downwards=downwards)}"/>'
            f'<path class="{"tip" if edge.takes_value else "dry"}" d="{tip}"/></g>'
        )

    def _noted(self, edge: Edge) -> Iterator[str]:
        if edge.note:
            points, downwards = self._route(edge)
            (x, y), (x_, y_) = points[-2:]
            at = f'x="{(x + x_) / 2:.1f}" y="{(y + y_) / 2 + (3.5 if downwards else -4):.1f}"'
            yield f'<text class="note halo" {at}>{edge.note}</text><text class="note" {at}>{edge.note}</text>'

    def _route(self, edge: Edge) -> tuple[list[tuple[float, float]], bool]:
        """Return the points an edge leads through, and whether it enters and leaves them downwards."""
        nodes = self.outline.nodes
        place = nodes[edge.target].stage
        outside = nodes[edge.source].stage != place
        laid = self.layouts[place]
        downwards = laid.columns is not None and not outside
        left, top, width = self.corners[edge.source]
        below = 4 if len(nodes[edge.source].tasks) > 1 or nodes[edge.source].kind == "map" else 0
        points = (
            [(left + width / 2, top + _HEIGHT + below)] if downwards else [(left + width + below, top + _HEIGHT / 2)]
        )
        if downwards or laid.columns is None:
            for point in bends((edge.source, edge.target), laid.ranks):
                points += self._bend(point, laid, points[-1])
        left, top, width = self.corners[edge.target]
        if downwards:
            end = (left + width / 2, top)
            points += [*_turn(laid, edge.source, laid.ranks[edge.target], points[-1], end), end]
        else:
            points.append((left, top + _HEIGHT / 2))
        return points, downwards

    def _bend(self, point: Point, laid: _Laid, before: tuple[float, float]) -> list[tuple[float, float]]:
        """Return the way from the point before, on the edge, past a rank."""
        assert isinstance(point, tuple)
        source, rank = point
        left, top = laid.starts[rank]
        if laid.columns is not None:
            x = left + laid.layout.across[point]
            return [*_turn(laid, source, rank, before, (x, top)), (x, top), (x, top + _HEIGHT)]
        y = top + laid.layout.across[point]
        width = max((self.corners[n][2] for n in laid.layout.rows[rank] if isinstance(n, int)), default=0.0)
        return [(left, y), (left + width, y)]


def _fitting(layout: Layout, ranks: Mapping[int, int], widest: float, edges: Sequence[tuple[int, int]]) -> Columns:
    """Return as many columns as there is room for, of so many ranks each that several are worth it."""
    for most in range(len(layout.rows) // _DEEP, 1, -1):
        columns = in_columns(ranks, edges, most)
        wide = _wide(_sides(layout, ranks, widest, columns), _turning(columns))
        if wide <= _WIDE and columns.busiest <= _LANES:
            return columns
    return in_columns(ranks, edges, 1)


def _sides(layout: Layout, ranks: Mapping[int, int], widest: float, columns: Columns) -> list[tuple[float, float]]:
    """Return how far each column extends to the left and right."""
    sides = [(inf, -inf)] * columns.number
    for point, middle in layout.across.items():
        rank, half = (ranks[point], widest / 2) if isinstance(point, int) else (point[1], 0.0)
        left, right = sides[rank // columns.ranks]
        sides[rank // columns.ranks] = min(left, middle - half), max(right, middle + half)
    return sides if ranks else [(0.0, 0.0)]


def _turning(columns: Columns) -> float:
    """Return how far from the cards the furthest line keeps that leads from one column to the next."""
    return float(_TURN + _LANE * columns.busiest) if columns.number > 1 else 0.0


def _wide(sides: Sequence[tuple[float, float]], turning: float) -> float:
    return sum(right - left for left, right in sides) + (turning + _TURN) * (len(sides) - 1)


def _turn(
    laid: _Laid, source: int, rank: int, before: tuple[float, float], after: tuple[float, float]
) -> list[tuple[float, float]]:
    """Return the way of an edge to a rank that begins a column: from below the one before to above this one."""
    if laid.columns is None or rank % laid.columns.ranks or not rank:
        return []
    column = rank // laid.columns.ranks
    keep = _TURN + _LANE * laid.columns.lanes[source, column]
    low, high = laid.starts[rank - 1][1] + _HEIGHT + keep, laid.starts[rank][1] - keep
    between = laid.begins[column] - keep
    return [(before[0], low), (between, low), (between, high), (after[0], high)]


def _curve(points: Sequence[tuple[float, float]], *, downwards: bool) -> str:
    path = "M{:.1f} {:.1f}".format(*points[0])
    for (x, y), (x_, y_) in pairwise(points):
        if y == y_ or (downwards and x == x_):
            path += f"L{x_:.1f} {y_:.1f}"
        elif downwards:
            half = (y + y_) / 2
            path += f"C{x:.1f} {half:.1f} {x_:.1f} {half:.1f} {x_:.1f} {y_:.1f}"
        else:
            half = (x + x_) / 2
            path += f"C{half:.1f} {y:.1f} {half:.1f} {y_:.1f} {x_:.1f} {y_:.1f}"
    return path
