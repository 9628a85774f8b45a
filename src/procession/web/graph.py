"""The graph of a run, with how its tasks stand."""

from collections.abc import Iterable, Mapping

from markupsafe import Markup

from procession.journal import TaskStatus
from procession.pictures.cards import NodeStatus, part_of_graph
from procession.pictures.nodes import Node, Outline

_NOT_BEGUN, _ENDED, _FAILED, _BEGUN = range(4)


def graph_of(
    outline: Outline,
    key: int,
    ends: Iterable[tuple[int, bool]],
    begun: Iterable[TaskStatus],
    elements: Mapping[int, tuple[int, int]],
    *,
    over: bool,
) -> Markup:
    """Return the graph of the run of a key as SVG, in which each node leads to its task, or to its first one.

    `ends` has each task that has ended and whether it failed, `begun` those that may have begun and not ended,
    `elements` how many elements of a map have ended and how many of them failed, by task. `over` says that nothing of
    it runs any more.
    """
    states = bytearray(outline.stages[-1].stop if outline.stages else 0)
    for task, failed in ends:
        states[task] = _FAILED if failed else _ENDED
    for one in begun:
        if one.state in ("running", "interrupted"):
            states[one.task] = _BEGUN
        elif one.state == "cancelled":
            states[one.task] = _ENDED
    statuses = [_node_status(node, key, states, elements) for node in outline.nodes]
    words = ("interrupted", "not started") if over else ("running", "waiting")
    picture = part_of_graph(outline, statuses, *words)
    return Markup(picture)  # noqa: S704  # what it is made of is escaped there


def _node_status(node: Node, key: int, states: bytearray, elements: Mapping[int, tuple[int, int]]) -> NodeStatus:
    counts = [0, 0, 0, 0]
    for task in node.tasks:
        counts[states[task]] += 1
    first = node.tasks[0]
    if len(node.tasks) == 1:
        address = f"/run/{key}/task/{first}"
    elif counts[_FAILED]:  # and so all of them
        address = f"/run/{key}?state=failed&from={first}#tasks"
    else:
        address = f"/run/{key}?from={first}#tasks"
    calls = elements.get(first, (0, 0)) if len(node.tasks) == 1 else (0, 0)
    return NodeStatus(counts[_ENDED] + counts[_FAILED], counts[_FAILED], counts[_BEGUN], address, *calls)
