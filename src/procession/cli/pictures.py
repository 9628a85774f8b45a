"""Pictures as files: the graph of a process, the timeline of a run."""

import argparse
import sys
from pathlib import Path

from procession import Process, Run

FORMATS = ("mermaid", "svg")


def draw_graph(process: Process, format_: str | None, path: Path | None) -> int:
    """Write the graph of a process to a file or to standard output; return the exit status."""
    if format_ is None:
        format_ = "svg" if path is not None and path.suffix == ".svg" else "mermaid"
    graph = process.graph()
    text = graph.svg() + "\n" if format_ == "svg" else graph.mermaid()
    if path is None:
        # Names may have characters that a terminal of another encoding has not.
        sys.stdout.buffer.write(text.encode())
        return 0
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        print(f"procession: {error}", file=sys.stderr)
        return 1
    return 0


def save_timeline(run: Run, path: Path) -> int:
    """Write the timeline of a run to a file and say why the run was not faster; return the exit status."""
    timeline = run.timeline()
    print(f"\n{timeline}", file=sys.stderr)
    try:
        timeline.save(path)
    except OSError as error:
        print(f"procession: {error}", file=sys.stderr)
        return 1
    return 0


def timeline_path(text: str) -> Path:
    """Return the path that is meant, before anything runs whose timeline it could not take."""
    path = Path(text)
    if path.suffix not in {".svg", ".json"}:
        raise argparse.ArgumentTypeError(f"a file that ends in .svg or .json is needed, not {text!r}")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.parent)!r}")
    return path
