"""The picture of an outline: a box for each stage, a card for each node, a line for each edge."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from procession._model.columns import columns
from procession.pictures.layout import Layout, Point, arranged, bends, beside, ranked
from procession.pictures.nodes import Edge, Outline, places_said, stage_said, tag_of
from procession.pictures.picture import MONO, Style, label, part_of, sheet, svg_of, text

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
    title = label(outline.name, 60)
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
        self.downwards: list[bool] = []
        self.layouts: list[tuple[Layout, list[float], dict[int, int]]] = []
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
        self.downwards.append(downwards)
        x, y = left + _PAD, float(_TOP + _HEADER)
        if downwards:
            widest = max([*widths, heading] if len(ranks) == deep else widths)
            sizes = dict.fromkeys(ranks, widest)
            layout = (
                beside(ranks, widest, inside, gap=_ACROSS)
                if len(ranks) == deep
                else arranged(ranks, sizes, inside, gap=_ACROSS, anchors={})
            )
            starts = [y + rank * (_HEIGHT + _BELOW) for rank in range(deep)]
            for number, rank in ranks.items():
                self.corners[number] = (x + layout.across[number] - widest / 2, starts[rank], widest)
            width, height = layout.size, deep * (_HEIGHT + _BELOW) - _BELOW if deep else 0.0
        else:
            anchors = {source: self.corners[source][1] for source, _ in into}
            sizes = dict.fromkeys(ranks, float(_HEIGHT))
            layout = arranged(ranks, sizes, inside + into, gap=_ACROSS, anchors=anchors)
            starts = [x + sum(widths[:rank]) + _ALONG * rank for rank in range(deep)]
            for number, rank in ranks.items():
                self.corners[number] = (starts[rank], y + layout.across[number] - _HEIGHT / 2, widths[rank])
            width, height = sum(widths) + _ALONG * max(0, deep - 1), layout.size
        self.layouts.append((layout, starts, ranks))
        if alone:
            top = height + _HEIGHT if wired else 0.0
            room = max(map(self._width, alone))
            across = max(1, min(_GRID, -(-len(alone) // 4)))
            for place_, number in enumerate(alone):
                row, column = divmod(place_, across)
                self.corners[number] = (x + column * (room + _ACROSS), y + top + row * (_HEIGHT + _ACROSS), room)
            rows = -(-len(alone) // across)
            across = min(across, len(alone))
            width = max(width, across * (room + _ACROSS) - _ACROSS)
            height = top + rows * (_HEIGHT + _ACROSS) - _ACROSS
        return max(width, heading) + 2 * _PAD, height + _HEADER + _PAD

    def _width(self, number: int) -> float:
        node = self.outline.nodes[number]
        return max(96.0, 30 + columns(label(node.name, _NAME)) * _CHARACTER + len(self._tag(number)) * 6.6)

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
            f'<text class="name" x="{left + 11:.1f}" y="{top + 20.5:.1f}">{text(label(node.name, _NAME))}</text>'
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
        name = f"{text(label(node.name, _NAME))} {tag_of(node)}: {said}"  # as it is seen, so that it can be spoken
        return f'<a class="node {state}" href="{text(address)}" aria-label="{name}">', bar, "</a>"

    def _edge(self, edge: Edge) -> Iterator[str]:
        points, downwards = self._route(edge)
        (x, y), kind = points[-1], "value" if edge.takes_value else "order"
        # The line ends inside its tip, which would else be as blunt as the line is wide.
        points = [*points[:-1], (x, y - 5) if downwards else (x - 5, y)]
        tip = f"M{x:.1f} {y:.1f}l-4 -8h8z" if downwards else f"M{x:.1f} {y:.1f}l-8 -4v8z"
        names = [text(label(self.outline.nodes[number].name, 60)) for number in (edge.source, edge.target)]
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
        downwards = self.downwards[place] and not outside
        left, top, width = self.corners[edge.source]
        below = 4 if len(nodes[edge.source].tasks) > 1 or nodes[edge.source].kind == "map" else 0
        points = (
            [(left + width / 2, top + _HEIGHT + below)] if downwards else [(left + width + below, top + _HEIGHT / 2)]
        )
        layout, starts, ranks = self.layouts[place]
        if not (outside and self.downwards[place]):
            for point in bends((edge.source, edge.target), ranks):
                points += self._bend(point, place, layout, starts)
        left, top, width = self.corners[edge.target]
        points.append((left + width / 2, top) if downwards else (left, top + _HEIGHT / 2))
        return points, downwards

    def _bend(self, point: Point, place: int, layout: Layout, starts: Sequence[float]) -> list[tuple[float, float]]:
        assert isinstance(point, tuple)
        rank = point[1]
        if self.downwards[place]:
            x = self.stages[place][0] + _PAD + layout.across[point]
            return [(x, starts[rank]), (x, starts[rank] + _HEIGHT)]
        y = _TOP + _HEADER + layout.across[point]
        width = max((self.corners[n][2] for n in layout.rows[rank] if isinstance(n, int)), default=0.0)
        return [(starts[rank], y), (starts[rank] + width, y)]


def _curve(points: Sequence[tuple[float, float]], *, downwards: bool) -> str:
    path = "M{:.1f} {:.1f}".format(*points[0])
    for (x, y), (x_, y_) in pairwise(points):
        if (x == x_) if downwards else (y == y_):
            path += f"L{x_:.1f} {y_:.1f}"
        elif downwards:
            half = (y + y_) / 2
            path += f"C{x:.1f} {half:.1f} {x_:.1f} {half:.1f} {x_:.1f} {y_:.1f}"
        else:
            half = (x + x_) / 2
            path += f"C{half:.1f} {y:.1f} {half:.1f} {y_:.1f} {x_:.1f} {y_:.1f}"
    return path
