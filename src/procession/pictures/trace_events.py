"""A timeline in the trace-event format, which Perfetto and chrome://tracing open.

A complete event ("X") for each span, in microseconds; a lane is a thread, named by a metadata event ("M").
"""

from typing import Any

from procession._model.text import shown
from procession.pictures.account import Account

_US = 1e6


def trace_events_of(account: Account) -> dict[str, Any]:
    """Return the run in the trace-event format, which Perfetto (ui.perfetto.dev) and chrome://tracing open."""
    name = shown(account.process_name)
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": f"procession: {name}"}}
    ]
    # From 2 on: Perfetto calls a thread that has the number of its process the main thread.
    for tid, lane in enumerate(account.lanes, start=2):
        worker = shown(lane.worker) + (f" ({lane.place + 1})" if lane.place else "")
        events += [
            {"ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": {"name": worker}},
            {"ph": "M", "name": "thread_sort_index", "pid": 1, "tid": tid, "args": {"sort_index": tid}},
        ]
        for start, end, span in lane.spans:
            args: dict[str, object] = {"index": span.index, "state": span.state, "attempts": span.attempts}
            if span.elements is not None:
                args["elements"] = span.elements
            # A name of its own for what shall stand out: viewers colour by name.
            told = shown(span.name) if span.state == "completed" else f"{shown(span.name)} ({span.state})"
            events.append(
                {
                    "ph": "X",
                    "name": told or "task",
                    "cat": span.state,
                    "ts": round(start * _US, 3),
                    "dur": round((end - start) * _US, 3),
                    "pid": 1,
                    "tid": tid,
                    "args": args,
                }
            )
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"process": name, "status": account.status}}
