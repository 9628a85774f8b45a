"""Pictures as files: the graph of a process, the timeline of a run."""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from procession import Process, Run
from procession.cli.terminal import tell
from procession.pictures.endings import GRAPH, TIMELINE, format_of

FORMATS: Final = sorted(set(GRAPH.values()))


def draw_graph(process: Process, format_: str | None, path: Path | None) -> int:
    """Write the graph of a process to a file or to standard output; return the exit status."""
    if path is not None and format_ not in (None, format_of(path, GRAPH)):
        tell(f"procession: {path} is not a file of format {format_}: it ends in {path.suffix}")
        return 2
    graph = process.graph()
    if path is not None:
        return _written(path, lambda: graph.save(path))
    text = graph.svg() + "\n" if format_ == "svg" else graph.mermaid()
    # Names may have characters that a terminal of another encoding has not.
    sys.stdout.buffer.write(text.encode())
    return 0


def save_timeline(run: Run, path: Path) -> int:
    """Write the timeline of a run to a file and say why the run was not faster; return the exit status."""
    timeline = run.timeline()
    tell(f"\n{timeline}")
    return _written(path, lambda: timeline.save(path))


def graph_path(text: str) -> Path:
    """Return the path that is meant, if a graph can be written there."""
    return _path(text, GRAPH)


def timeline_path(text: str) -> Path:
    """Return the path that is meant, before anything runs whose timeline it could not take."""
    return _path(text, TIMELINE)


def _path(text: str, endings: Mapping[str, str]) -> Path:
    path = Path(text)
    try:
        format_of(path, endings)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path


def _written(path: Path, write: Callable[[], object]) -> int:
    try:
        write()
    except OSError as error:
        tell(f"procession: {path} cannot be written: {error.strerror}")
        return 1
    return 0
