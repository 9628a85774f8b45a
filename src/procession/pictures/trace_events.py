"""A timeline in the trace-event format, which Perfetto and chrome://tracing open.

A complete event ("X") for each span, in microseconds; a lane is a thread, named by a metadata event ("M"), and so are
the rows of recorded calls below it.
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
    # Calls have tracks of their own: what overlaps without lying within each other is not shown on one.
    tracks = [
        (shown(lane.worker) + said + (f" ({one.place + 1})" if one.place else ""), one.spans)
        for lane in account.lanes
        for said, one in (("", lane), *((": calls", row) for row in lane.calls))
    ]
    # From 2 on: Perfetto calls a thread that has the number of its process the main thread.
    for tid, (track, spans) in enumerate(tracks, start=2):
        events += [
            {"ph": "M", "name": "thread_name", "pid": 1, "tid": tid, "args": {"name": track}},
            {"ph": "M", "name": "thread_sort_index", "pid": 1, "tid": tid, "args": {"sort_index": tid}},
        ]
        for start, end, span in spans:
            args: dict[str, object] = {"index": span.index, "state": span.state, "attempts": span.attempts}
            if span.elements is not None:
                args["elements"] = span.elements
            if span.call is not None:
                args["call"] = span.call
            if span.calls > 1:
                args["calls"] = span.calls
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
