"""What a picture of a process shows: its stages, nodes that stand for tasks, and edges between them. Pure."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from procession._model.columns import shortened
from procession._model.strategy import Stage
from procession._model.text import counted
from procession._plan.shape import Kind, Shape
from procession.pictures.fold import Folded, fold
from procession.pictures.picture import TIMES


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


@dataclass(frozen=True)
class Outline:
    """What a picture of a process shows."""

    name: str
    stages: tuple[Stage, ...]
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def outline_of(
    process_name: str, names: Sequence[str], shape: Shape, failed: AbstractSet[int] = frozenset()
) -> Outline:
    """Return the outline of a process of this shape, whose tasks have these names; `failed` share nodes with no others.

    >>> outline = outline_of("sum", ["int", "int", "sum"], Shape((Stage(0, 3, at_once=True),), {2: (0, 1)}, {}))
    >>> [node.name for node in outline.nodes], [(edge.source, edge.target) for edge in outline.edges]
    (['int', 'int', 'sum'], [(0, 2), (1, 2)])
    """
    stages, needs, kinds, _ = shape
    looks: list[tuple[str, Kind]] = [(name, kinds.get(index, "task")) for index, name in enumerate(names)]
    folded = fold(looks, stages, needs, failed)
    stage_of = [place for place, stage in enumerate(stages) for _ in range(stage.start, stage.stop)]
    nodes = [_node(group, looks, stage_of[group[0]]) for group in folded.groups]
    for number, node in enumerate(nodes):
        in_rows = len(node.tasks) > 1 and (not stages[node.stage].at_once or node.tasks[0] in folded.rows)
        nodes[number] = replace(node, in_rows=in_rows)
    edges = _edges(nodes, folded, needs)
    for number in range(1, len(nodes)):
        stage, ends = nodes[number].stage, (number - 1, number)
        if nodes[number - 1].stage == stage and not stages[stage].at_once and ends not in edges:
            edges[ends] = Edge(*ends, takes_value=False, note="")
    return Outline(process_name, stages, tuple(nodes), tuple(edges[ends] for ends in sorted(edges)))


def renamed(outline: Outline, names: Mapping[int, str]) -> Outline:
    """Return the same outline with other names for some tasks, where these have nodes of their own."""
    nodes = (
        replace(node, name=names[node.tasks[0]]) if len(node.tasks) == 1 and node.tasks[0] in names else node
        for node in outline.nodes
    )
    return replace(outline, nodes=tuple(nodes))


def _node(group: Sequence[int], looks: Sequence[tuple[str, Kind]], stage: int) -> Node:
    first, kind = looks[group[0]]
    last = looks[group[-1]][0]
    alike = len({looks[index][0] for index in group}) == 1
    return Node(
        name=(first if first.strip() else "(no name)") if alike else f"{shortened(first, 24)} … {shortened(last, 24)}",
        kind=kind if len({looks[index][1] for index in group}) == 1 else "task",
        tasks=tuple(group),
        stage=stage,
        in_rows=False,
    )


def _edges(nodes: Sequence[Node], folded: Folded, needs: Mapping[int, tuple[int, ...]]) -> dict[tuple[int, int], Edge]:
    """Return the edges for values that are taken, by their ends."""
    node_of = {index: number for number, node in enumerate(nodes) for index in node.tasks}
    pairs: dict[tuple[int, int], int] = {}
    for index, needed in needs.items():
        for need in needed:
            ends = node_of[need], node_of[index]
            if ends[0] != ends[1]:
                pairs[ends] = pairs.get(ends, 0) + 1
    rows = [len({folded.rows.get(index, index) for index in node.tasks}) for node in nodes]
    edges: dict[tuple[int, int], Edge] = {}
    for (source, target), count in pairs.items():
        # A layer waits for the one before it, and only through that for earlier ones.
        inside = nodes[source].stage == nodes[target].stage
        if not (folded.in_layers and inside and target > source + 1):
            note = _note(count, rows[source], rows[target])
            edges[source, target] = Edge(source, target, takes_value=True, note=note)
    return edges


def _note(pairs: int, sources: int, targets: int) -> str:
    if pairs == sources * targets:
        return ""
    return "one each" if pairs == sources == targets else "some"


def stage_said(stage: Stage) -> str:
    """Return the description of a stage, in a few words."""
    return f"{counted(stage.stop - stage.start, 'task')}, {'at once' if stage.at_once else 'in order'}"


def tag_of(node: Node) -> str:
    """Return the tag beside a node's name."""
    if len(node.tasks) == 1:
        return f"#{node.tasks[0]}"
    return f"{TIMES} {len(node.tasks):,}{' in a row' if node.in_rows else ''}"


def places_said(tasks: Sequence[int]) -> str:
    """Return places as ranges, a bounded number of them.

    >>> places_said([0, 1, 2, 5, 7, 8])
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
