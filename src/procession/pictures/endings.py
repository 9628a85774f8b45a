"""What the name of a picture's file may end in, and what format that is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

GRAPH: Final = {".svg": "svg", ".mmd": "mermaid", ".mermaid": "mermaid", ".md": "mermaid", ".txt": "mermaid"}
TIMELINE: Final = {".svg": "svg", ".json": "trace"}


def format_of(path: Path, endings: Mapping[str, str]) -> str:
    """Return the format that a file has by its ending. Raises `ValueError` for one that is none of these.

    >>> format_of(Path("graph.md"), GRAPH)
    'mermaid'
    """
    if path.suffix not in endings:
        *others, last = endings
        raise ValueError(f"a file that ends in {', '.join(others)} or {last} is needed, not {path.name!r}")
    return endings[path.suffix]
