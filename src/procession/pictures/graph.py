"""The picture of a process: its stages, its tasks and which wait for which, as Mermaid text and as SVG."""

from collections.abc import Sequence
from pathlib import Path

from procession._model.columns import shortened
from procession._model.text import counted, shown
from procession._plan.shape import Shape
from procession.pictures.cards import svg_of_graph
from procession.pictures.endings import GRAPH, format_of
from procession.pictures.nodes import Outline, outline_of, stage_said, tag_of
from procession.pictures.picture import TIMES, Picture


class Graph(Outline, Picture):
    """A picture of a process. Its text is Mermaid; a notebook shows it as SVG.

    It shows every task of a small process. Of a large one, tasks that look the same share a node: `nodes` says which.

    Example:
        >>> from procession import Process
        >>> process = Process("sum", strategy="parallel")
        >>> one, two = process.task(int, "1"), process.task(int, "2")
        >>> process.add_task(sum, [one, two])
        >>> print(process.graph())
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

    def mermaid(self) -> str:
        """Return the graph as Mermaid text, which GitHub, GitLab and many editors draw."""
        lines = ["flowchart LR", f"    accTitle: process {_coded(self.name)}"]
        if not self.nodes:
            lines.append('    nothing["no tasks"]')
        for place, stage in enumerate(self.stages):
            lines.append(f'    subgraph stage{place}["{stage_said(stage)}"]')
            lines.append(f"        direction {'LR' if stage.at_once else 'TB'}")
            for number, node in enumerate(self.nodes):
                if node.stage == place:
                    left, right = {"task": ("[", "]"), "map": ("[[", "]]"), "process": ("([", "])")}[node.kind]
                    tag = f" {tag_of(node)}" if len(node.tasks) > 1 else ""
                    lines.append(f'        task{number}{left}"{_coded(shortened(node.name, 60))}{tag}"{right}')
            lines.append("    end")
        for edge in self.edges:
            note = f'|"{edge.note}"|' if edge.note else ""
            lines.append(f"    task{edge.source} {'-->' if edge.takes_value else '-.->'}{note} task{edge.target}")
        lines += [f"    stage{place} ==> stage{place + 1}" for place in range(len(self.stages) - 1)]
        return "\n".join(lines) + "\n"

    __str__ = mermaid

    def svg(self) -> str:
        """Return the graph as an SVG picture, light or dark as its reader prefers."""
        return svg_of_graph(self)

    def save(self, path: str | Path) -> None:
        """Write the graph to a file.

        Args:
            path: Where to: a picture if it ends in `.svg`, Mermaid text if in `.mmd`, `.mermaid`, `.md` or `.txt`.

        Raises:
            ValueError: The path ends in something else.
            OSError: The file cannot be written.

        """
        path = Path(path)
        text = self.svg() if format_of(path, GRAPH) == "svg" else self.mermaid()
        path.write_text(text, encoding="utf-8")

    def __repr__(self) -> str:
        count = sum(len(node.tasks) for node in self.nodes)
        return f"<Graph of {shown(self.name)!r}: {counted(count, 'task')} in {counted(len(self.nodes), 'node')}>"


def graph_of(process_name: str, names: Sequence[str], shape: Shape) -> Graph:
    """Return the graph of a process of this shape, whose tasks have these names."""
    outline = outline_of(process_name, names, shape)
    return Graph(outline.name, outline.stages, outline.nodes, outline.edges)


def _coded(said: str) -> str:
    """Return text that came from a user as Mermaid that cannot be anything but text."""
    return "".join(c if c.isalnum() or c in f" _.,:…{TIMES}" else f"#{ord(c)};" for c in shown(said))
