"""Where the nodes of a layered graph go. Pure geometry: no names, no colours.

Every node has a rank, and edges lead to higher ranks. An edge that passes a rank bends there, at a place kept free for
it; the edges of one node share their bends. "Along" is the direction in which ranks follow each other, "across" the
other one.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

_SWEEPS = 6
_STRAIGHT = 8.0

Point = int | tuple[int, int]
"""A node, or the bend that the edges of a node have at a rank."""


class Layout(NamedTuple):
    """Where everything goes, across."""

    across: dict[Point, float]
    """The middle of each point; the first one begins at 0."""
    rows: list[list[Point]]
    """The points of each rank, in the order in which they lie."""
    size: float
    """How far everything extends."""


def ranked(nodes: Iterable[int], edges: Iterable[tuple[int, int]]) -> dict[int, int]:
    """Return the rank of each node: the length of the longest path that leads to it.

    >>> ranked([0, 1, 2, 3], [(0, 1), (1, 3), (0, 3)])
    {0: 0, 1: 1, 2: 0, 3: 2}
    """
    ranks = dict.fromkeys(nodes, 0)
    after: dict[int, list[int]] = {}
    waits = dict.fromkeys(ranks, 0)
    for source, target in edges:
        after.setdefault(source, []).append(target)
        waits[target] += 1
    ready = [node for node in ranks if not waits[node]]
    for node in ready:
        for target in after.get(node, ()):
            ranks[target] = max(ranks[target], ranks[node] + 1)
            waits[target] -= 1
            if not waits[target]:
                ready.append(target)
    return ranks


def bends(edge: tuple[int, int], ranks: Mapping[int, int]) -> list[Point]:
    """Return the points that an edge leads through, its ends left out. What has no rank stands before the first."""
    source, target = edge
    return [(source, rank) for rank in range(ranks.get(source, -1) + 1, ranks[target])]


class Columns(NamedTuple):
    """How the ranks of a deep graph stand in columns, of which each goes on at the top where the one before ends."""

    number: int
    ranks: int
    """Of each column but the last."""
    lanes: dict[tuple[int, int], int]
    """Node and column → the lane in which the edges of the node come to that column from the one before."""

    @property
    def busiest(self) -> int:
        """Lanes between two columns, at most."""
        return max(self.lanes.values(), default=-1) + 1


def in_columns(ranks: Mapping[int, int], edges: Iterable[tuple[int, int]], most: int) -> Columns:
    """Return how the ranks stand in columns of the same number of ranks, `most` columns at most.

    >>> in_columns({0: 0, 1: 1, 2: 2}, [(0, 1), (0, 2), (1, 2)], 2)
    Columns(number=2, ranks=2, lanes={(0, 1): 0, (1, 1): 1})
    """
    deep = max(ranks.values(), default=0) + 1
    each = -(-deep // most)
    lanes: dict[tuple[int, int], int] = {}
    for source, target in edges:
        for column in range(ranks[source] // each + 1, ranks[target] // each + 1):
            lanes.setdefault((source, column), sum(known == column for _, known in lanes))
    return Columns(-(-deep // each), each, lanes)


def arranged(
    ranks: Mapping[int, int],
    sizes: Mapping[int, float],
    edges: Sequence[tuple[int, int]],
    *,
    gap: float,
    anchors: Mapping[int, float],
) -> Layout:
    """Return where the nodes go, of which each takes its size across; `anchors` are sources that lie elsewhere."""
    rows: list[list[Point]] = [[] for _ in range(max(ranks.values(), default=-1) + 1)]
    for node, rank in ranks.items():
        rows[rank].append(node)
    up, down = _linked(ranks, edges, rows)
    across: dict[Point, float] = {}
    across.update(anchors.items())
    for row in rows:
        across |= _packed(row, sizes, gap)
    for sweep in range(2 * _SWEEPS):
        neighbours, order = (up, rows) if sweep % 2 == 0 else (down, rows[::-1])
        for row in order:
            wanted = {point: _mean([across[o] for o in neighbours.get(point, ())], across[point]) for point in row}
            if sweep < _SWEEPS:
                row.sort(key=wanted.__getitem__)
                across |= _packed(row, sizes, gap)
            else:
                across |= _separated(row, wanted, sizes, gap)
    for anchor in anchors:
        del across[anchor]
    first = min((across[point] - _size(point, sizes) / 2 for row in rows for point in row), default=0.0)
    across = {point: place - first for point, place in across.items()}
    size = max((across[point] + _size(point, sizes) / 2 for row in rows for point in row), default=0.0)
    return Layout(across, rows, size)


def beside(ranks: Mapping[int, int], size: float, edges: Sequence[tuple[int, int]], *, gap: float) -> Layout:
    """Return where nodes go that follow each other in one line, with whatever passes one of them to its right.

    >>> beside({0: 0, 1: 1, 2: 2}, 100.0, [(0, 1), (0, 2)], gap=10.0).across
    {0: 50.0, 1: 50.0, 2: 50.0, (0, 1): 110.0}
    """
    rows: list[list[Point]] = [[node] for node in ranks]
    across: dict[Point, float] = dict.fromkeys(ranks, size / 2)
    passing: dict[int, set[Point]] = {}
    for edge in edges:
        passing.setdefault(edge[0], set()).update(bends(edge, ranks))
    lanes: list[set[int]] = []
    for points in sorted(passing.values(), key=len):
        taken = {point[1] for point in points if isinstance(point, tuple)}
        lane = next((number for number, used in enumerate(lanes) if not used & taken), len(lanes))
        if lane == len(lanes):
            lanes.append(set())
        lanes[lane] |= taken
        for point in points:
            across[point] = size + gap * (lane + 1)
    return Layout(across, rows, size + gap * len(lanes))


def _linked(
    ranks: Mapping[int, int], edges: Iterable[tuple[int, int]], rows: Sequence[list[Point]]
) -> tuple[dict[Point, list[Point]], dict[Point, list[Point]]]:
    """Put the bends of the edges into the rows; return which points each one is linked with, before and after it."""
    up: dict[Point, list[Point]] = {}
    down: dict[Point, list[Point]] = {}
    for edge in edges:
        points: list[Point] = [edge[0], *bends(edge, ranks), edge[1]]
        for point, following in pairwise(points):
            if isinstance(following, tuple) and following not in up:
                rows[following[1]].append(following)
            if point not in up.setdefault(following, []):
                up[following].append(point)
                down.setdefault(point, []).append(following)
    return up, down


def _size(point: Point, sizes: Mapping[int, float]) -> float:
    return sizes[point] if isinstance(point, int) else 0.0


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _packed(row: Sequence[Point], sizes: Mapping[int, float], gap: float) -> dict[Point, float]:
    """Return the places of a row's points, one right after the other around 0."""
    total = sum(_size(point, sizes) for point in row) + gap * max(0, len(row) - 1)
    places: dict[Point, float] = {}
    at = -total / 2
    for point in row:
        places[point] = at + _size(point, sizes) / 2
        at += _size(point, sizes) + gap
    return places


def _separated(
    row: Sequence[Point], wanted: Mapping[Point, float], sizes: Mapping[int, float], gap: float
) -> dict[Point, float]:
    """Return places as near to the wanted ones as can be (least squares), in this order and without overlap.

    Without the room that each takes the wanted places need only not decrease, which is isotonic regression: whoever
    would be before the one in front shares the mean with it.
    """
    room = list(_packed(row, sizes, gap).values())
    blocks: list[tuple[float, float, int]] = []
    for point, offset in zip(row, room, strict=True):
        # Lines are to be straight rather than nodes in the middle of their neighbours.
        mean, weight = wanted[point] - offset, 1.0 if isinstance(point, int) else _STRAIGHT
        count = 1
        while blocks and blocks[-1][0] > mean:
            other, heavy, more = blocks.pop()
            mean, weight = (mean * weight + other * heavy) / (weight + heavy), weight + heavy
            count += more
        blocks.append((mean, weight, count))
    shifts = [mean for mean, _, count in blocks for _ in range(count)]
    return {point: shift + offset for point, shift, offset in zip(row, shifts, room, strict=True)}
