"""The picture of a process: its stages, its tasks and which wait for which, as Mermaid text and as SVG."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from procession._model.strategy import Stage
from procession._model.text import shown
from procession.observe.fold import fold
from procession.observe.layout import Layout, Point, arranged, bends, beside, ranked
from procession.observe.picture import MONO, Picture, Style, columns, label, svg_of, text

Kind = Literal["task", "map", "process"]
"""What a task is: a call, one call for each element, or another process."""


@dataclass(frozen=True, slots=True)
class Node:
    """What stands for one task in the picture, or for several that are alike."""

    name: str
    kind: Kind
    tasks: tuple[int, ...]
    """Their places in the process."""
    stage: int
    in_rows: bool
    """Whether each of them waits for the one before, or they are several such rows."""


@dataclass(frozen=True, slots=True)
class Edge:
    """That the tasks of one node wait for those of another, both by their places in `Graph.nodes`."""

    source: int
    target: int
    takes_value: bool
    """Whether they take the values, or wait only because the strategy says so."""
    note: str
    """Where several wait for several: which for which. Else empty, and every one waits for all."""


class Graph(Picture):
    """A picture of a process. Its text is Mermaid; a notebook shows it as SVG.

    It shows every task of a small process. Of a large one, tasks that look the same share a node: `nodes` says which.
    """

    __slots__ = ("edges", "name", "nodes", "stages")

    def __init__(self, name: str, stages: Sequence[Stage], nodes: Sequence[Node], edges: Sequence[Edge]) -> None:
        self.name = name
        self.stages = tuple(stages)
        self.nodes = tuple(nodes)
        self.edges = tuple(edges)

    def mermaid(self) -> str:
        """Return the graph as Mermaid text, which GitHub, GitLab and many editors draw."""
        lines = ["flowchart LR", f"    accTitle: process {_coded(self.name)}"]
        if not self.nodes:
            lines.append('    nothing["no tasks"]')
        for place, stage in enumerate(self.stages):
            lines.append(f'    subgraph stage{place}["{_said(stage)}"]')
            lines.append(f"        direction {'LR' if stage.at_once else 'TB'}")
            for number, node in enumerate(self.nodes):
                if node.stage == place:
                    left, right = {"task": ("[", "]"), "map": ("[[", "]]"), "process": ("([", "])")}[node.kind]
                    tag = f" {_tag(node)}" if len(node.tasks) > 1 else ""
                    lines.append(f'        task{number}{left}"{_coded(label(node.name, 60))}{tag}"{right}')
            lines.append("    end")
        for edge in self.edges:
            note = f'|"{edge.note}"|' if edge.note else ""
            lines.append(f"    task{edge.source} {'-->' if edge.takes_value else '-.->'}{note} task{edge.target}")
        lines += [f"    stage{place} ==> stage{place + 1}" for place in range(len(self.stages) - 1)]
        return "\n".join(lines) + "\n"

    __str__ = mermaid

    def svg(self) -> str:
        """Return the graph as an SVG picture, light or dark as its reader prefers."""
        return _Drawing(self).svg()

    def __repr__(self) -> str:
        count = sum(len(node.tasks) for node in self.nodes)
        return f"<Graph of {shown(self.name)!r}: {count:,} tasks in {len(self.nodes):,} nodes>"


def graph_of(
    process_name: str,
    names: Sequence[str],
    stages: Sequence[Stage],
    needs: Mapping[int, tuple[int, ...]],
    kinds: Mapping[int, Kind],
) -> Graph:
    """Return the graph of tasks with these names; `needs` says whose values each takes, `kinds` which are no calls.

    >>> print(graph_of("sum", ["int", "int", "sum"], [Stage(0, 3, at_once=True)], {2: (0, 1)}, {}))
    flowchart LR
        accTitle: process sum
        subgraph stage0["3 tasks, at once"]
            direction LR
            task0["int"]
            task1["int"]
            task2["sum"]
        end
        task0 --> task2
        task1 --> task2
    <BLANKLINE>
    """
    looks = [(name, kinds.get(index, "task")) for index, name in enumerate(names)]
    folded = fold(looks, stages, needs)
    node_of = {index: number for number, group in enumerate(folded.groups) for index in group}
    stage_of = [place for place, stage in enumerate(stages) for _ in range(stage.start, stage.stop)]
    nodes: list[Node] = []
    for group in folded.groups:
        alike = {looks[index][0] for index in group}
        first, last = names[group[0]], names[group[-1]]
        several = len({looks[index][1] for index in group}) > 1
        stage = stage_of[group[0]]
        nodes.append(
            Node(
                name=first if len(alike) == 1 else f"{label(first, 24)} … {label(last, 24)}",
                kind="task" if several else looks[group[0]][1],
                tasks=tuple(group),
                stage=stage,
                in_rows=len(group) > 1 and (not stages[stage].at_once or group[0] in folded.rows),
            )
        )
    pairs: dict[tuple[int, int], int] = {}
    for index, needed in needs.items():
        for need in needed:
            ends = node_of[need], node_of[index]
            if ends[0] != ends[1]:
                pairs[ends] = pairs.get(ends, 0) + 1
    edges: dict[tuple[int, int], Edge] = {}
    rows = [len({folded.rows.get(index, index) for index in group}) for group in folded.groups]
    for (source, target), count in pairs.items():
        # A layer waits for the one before it, and only through that for earlier ones.
        inside = nodes[source].stage == nodes[target].stage
        if not (folded.in_layers and inside and target > source + 1):
            note = _note(count, rows[source], rows[target])
            edges[source, target] = Edge(source, target, takes_value=True, note=note)
    for number in range(1, len(nodes)):
        before, node = nodes[number - 1], nodes[number]
        ends = number - 1, number
        if before.stage == node.stage and not stages[node.stage].at_once and ends not in edges:
            edges[ends] = Edge(*ends, takes_value=False, note="")
    return Graph(process_name, stages, nodes, [edges[ends] for ends in sorted(edges)])


def _note(pairs: int, sources: int, targets: int) -> str:
    if pairs == sources * targets:
        return ""
    return "one each" if pairs == sources == targets else "some"


def _coded(said: str) -> str:
    """Return text that came from a user as Mermaid that cannot be anything but text."""
    return "".join(c if c.isalnum() or c in " _.,:…×" else f"#{ord(c)};" for c in shown(said))


def _said(stage: Stage) -> str:
    count = stage.stop - stage.start
    return f"{count:,} {'task' if count == 1 else 'tasks'}, {'at once' if stage.at_once else 'in order'}"


def _tag(node: Node) -> str:
    if len(node.tasks) > 1:
        return f"× {len(node.tasks):,}{' in a row' if node.in_rows else ''}"
    return f"#{node.tasks[0]}"


def _places(tasks: Sequence[int]) -> str:
    """Return places as ranges, a bounded number of them.

    >>> _places([0, 1, 2, 5, 7, 8])
    '0 to 2, 5, 7 to 8'
    """
    ranges: list[list[int]] = []
    for index in tasks:
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    told = [str(first) if first == last else f"{first} to {last}" for first, last in ranges]
    return ", ".join(told if len(told) <= 7 else [*told[:3], "…", *told[-3:]])  # noqa: PLR2004


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
    ".tag": {"font-size": "10.5px", "fill": "muted", "text-anchor": "end"},
    ".note": {"font-size": "10.5px", "fill": "muted", "text-anchor": "middle"},
    ".halo": {"stroke": "panel", "stroke-width": "4", "stroke-linejoin": "round", "fill": "none"},
    ".value": {"stroke": "blue", "stroke-width": "1.5", "fill": "none"},
    ".order": {"stroke": "edge", "stroke-width": "1.5", "stroke-dasharray": "2 3.5", "fill": "none"},
    ".then": {"stroke": "edge", "stroke-width": "2.5", "fill": "none"},
    ".tip": {"fill": "blue"},
    ".dry": {"fill": "edge"},
}


class _Drawing:
    """The making of one picture: where everything goes, then what it looks like."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.corners: dict[int, tuple[float, float, float]] = {}
        """Node → left, top, width."""
        self.stages: list[tuple[float, float, float]] = []
        """Stage → left, width, height."""
        self.downwards: list[bool] = []
        self.layouts: list[tuple[Layout, list[float], dict[int, int]]] = []
        left = float(_MARGIN)
        for place in range(len(graph.stages)):
            width, height = self._placed(place, left)
            self.stages.append((left, width, height))
            left += width + _BETWEEN

    def svg(self) -> str:
        graph = self.graph
        right = max((left + width for left, width, _ in self.stages), default=220.0)
        title = label(graph.name, 60)
        width = max(right, 2 * _MARGIN + 9.2 * columns(title)) + _MARGIN
        bottom = _TOP + max((height for _, _, height in self.stages), default=12.0) + _MARGIN
        body = [
            f'<text class="title" x="{_MARGIN}" y="32">{text(title)}</text>',
            "" if graph.nodes else f'<text class="sub" x="{_MARGIN}" y="52">no tasks</text>',
            *self._frames(),
            *(line for edge in graph.edges for line in self._edge(edge)),
            *(line for number in range(len(graph.nodes)) for line in self._card(number)),
            *(line for edge in graph.edges for line in self._noted(edge)),
        ]
        return svg_of(
            "procession-graph", width, bottom, f"Process {graph.name}", [line for line in body if line], _STYLE
        )

    # Where

    def _placed(self, place: int, left: float) -> tuple[float, float]:
        """Place the nodes of a stage whose left edge is given; return its width and height."""
        graph = self.graph
        mine = [number for number, node in enumerate(graph.nodes) if node.stage == place]
        inside = [(e.source, e.target) for e in graph.edges if e.source in mine and e.target in mine]
        into = [(e.source, e.target) for e in graph.edges if e.source not in mine and e.target in mine]
        tied = {number for edge in inside + into for number in edge}
        wired = [number for number in mine if number in tied]
        alone = [number for number in mine if number not in tied]
        ranks = ranked(wired, inside)
        deep = max(ranks.values(), default=-1) + 1
        widths = [0.0] * deep
        for number, rank in ranks.items():
            widths[rank] = max(widths[rank], self._width(number))
        downwards = not graph.stages[place].at_once or sum(widths) + _ALONG * (deep - 1) > _WIDE
        self.downwards.append(downwards)
        x, y = left + _PAD, float(_TOP + _HEADER)
        if downwards:
            widest = max(widths, default=0.0)
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
        heading = 6.4 * len(_said(graph.stages[place]))
        return max(width, heading) + 2 * _PAD, height + _HEADER + _PAD

    def _width(self, number: int) -> float:
        node = self.graph.nodes[number]
        return max(96.0, 30 + columns(label(node.name, _NAME)) * _CHARACTER + len(_tag(node)) * 5.8)

    # What

    def _frames(self) -> Iterator[str]:
        for place, (left, width, height) in enumerate(self.stages):
            stage = self.graph.stages[place]
            yield (
                f'<rect class="stage" x="{left:.1f}" y="{_TOP}" width="{width:.1f}" height="{height:.1f}" rx="10"/>'
                f'<text class="sub" x="{left + _PAD:.1f}" y="{_TOP + 24}">{_said(stage)}</text>'
            )
            if place:
                y, begin = _TOP + 20, left - _BETWEEN + 8
                yield (
                    f'<path class="then" d="M{begin:.1f} {y}H{left - 16:.1f}"><title>all of the stage before</title></path>'
                    f'<path class="dry" d="M{left - 8:.1f} {y}l-9 -5v10z"/>'
                )

    def _card(self, number: int) -> Iterator[str]:
        node = self.graph.nodes[number]
        left, top, width = self.corners[number]
        several = len(node.tasks) > 1 or node.kind == "map"
        one = len(node.tasks) == 1
        where = f"task {node.tasks[0]}" if one else f"{len(node.tasks):,} tasks: {_places(node.tasks)}"
        kind = {"task": "", "map": "one call for each element, ", "process": "a process, "}[node.kind]
        rows = ", one after another" if node.in_rows else ""
        mark = ' map"' if node.kind == "map" else '"'
        yield f'<g class="node"><title>{text(node.name)}\n{kind}{where}{rows}</title>'
        if several:
            yield f'<rect class="under{mark} x="{left + 4:.1f}" y="{top + 4:.1f}" width="{width:.1f}" height="{_HEIGHT}" rx="6"/>'
        yield f'<rect class="card{mark} x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_HEIGHT}" rx="6"/>'
        if node.kind == "process":
            yield (
                f'<rect class="card" x="{left + 3:.1f}" y="{top + 3:.1f}" width="{width - 6:.1f}" '
                f'height="{_HEIGHT - 6}" rx="4"/>'
            )
        yield (
            f'<text class="name" x="{left + 11:.1f}" y="{top + 20.5:.1f}">{text(label(node.name, _NAME))}</text>'
            f'<text class="tag" x="{left + width - 10:.1f}" y="{top + 20:.1f}">{_tag(node)}</text></g>'
        )

    def _edge(self, edge: Edge) -> Iterator[str]:
        points, downwards = self._route(edge)
        (x, y), kind = points[-1], "value" if edge.takes_value else "order"
        # The line ends inside its tip, which would else be as blunt as the line is wide.
        points = [*points[:-1], (x, y - 5) if downwards else (x - 5, y)]
        tip = f"M{x:.1f} {y:.1f}l-4 -8h8z" if downwards else f"M{x:.1f} {y:.1f}l-8 -4v8z"
        names = [text(label(self.graph.nodes[number].name, 60)) for number in (edge.source, edge.target)]
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
        nodes = self.graph.nodes
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
    for (x, y), (x_, y_) in zip(points, points[1:], strict=False):
        if (x == x_) if downwards else (y == y_):
            path += f"L{x_:.1f} {y_:.1f}"
        elif downwards:
            half = (y + y_) / 2
            path += f"C{x:.1f} {half:.1f} {x_:.1f} {half:.1f} {x_:.1f} {y_:.1f}"
        else:
            half = (x + x_) / 2
            path += f"C{half:.1f} {y:.1f} {half:.1f} {y_:.1f} {x_:.1f} {y_:.1f}"
    return path
