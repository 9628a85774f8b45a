"""Runs as OpenTelemetry traces and metrics. Needs the extra `otel`.

    run span ──▶ task span ──▶ the user's own spans
                    ├── an event for each attempt that failed and was followed by another
                    └── a span for each call that the task makes itself

The observer is immediate: it makes a span current in the context in which a run, and then each task, is executed, and
contexts are what the library carries into threads, coroutines and nested runs in any case. To other processes goes
what a propagator writes of the span; there, a program's own spans are its children if OpenTelemetry is set up there.
"""

import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

try:
    from opentelemetry import context, metrics, propagate, trace
except ModuleNotFoundError:
    raise ImportError('procession.observe.otel takes OpenTelemetry: pip install "procession[otel]"') from None

from procession._model.event import Event
from procession._model.remote_setup import REMOTE_SETUP
from procession._model.text import sketch
from procession.observe.trace_parent import Sendable

if TYPE_CHECKING:
    from contextvars import Token

_ENDS: Final = {
    "task_completed": "completed",
    "task_failed": "failed",
    "task_cancelled": "cancelled",
    "task_suspended": "suspended",
    "run_completed": "completed",
    "run_failed": "failed",
    "run_cancelled": "cancelled",
    "run_suspended": "suspended",
}


class OpenTelemetry:
    """An observer that makes an OpenTelemetry span of each run and task, and measures them.

    A task's span is current while it runs, so spans that the task makes itself are children of it; and so are those of
    its calls by `current_task().call`, with the attribute `procession.call`. Attempts that were
    followed by another one are events of the span, and an exception is recorded as OpenTelemetry does, with message and
    traceback. Arguments and results are in no span.

    Spans have the names of process and task, and the attributes `procession.process.name`, `procession.run.id`,
    `procession.task.index`, `procession.task.attempts` and, at their end, `procession.state`. Metrics, each with the
    name of the process: `procession.run.duration` and `procession.task.duration` (seconds, by state, which also count
    them), `procession.task.retries`, `procession.tasks.waiting` and `procession.tasks.running`; and, with the name of a
    limit, `procession.limit.wait` (seconds that it held calls back, which also counts these). A task's span begins when
    it is not held back any more, and has the sum as `procession.task.held_back`.

    A task costs some 50 µs, in its worker. Needs the extra `otel`; which exporter collects spans is up to the program.

    Args:
        tracer_provider: Where spans go. By default, to the provider that the program has set.
        meter_provider: Where measurements go. By default, to the provider that the program has set.

    Raises:
        TypeError: An argument is no provider of OpenTelemetry.

    Example:
        >>> from procession import Process
        >>> process = Process("sum", observers=[OpenTelemetry()])
        >>> process.add_task(sum, [1, 2])
        >>> process.execute()
        [3]

    """

    immediate = True

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        _check("tracer_provider", tracer_provider, trace.TracerProvider)
        _check("meter_provider", meter_provider, metrics.MeterProvider)
        self._tracer = trace.get_tracer("procession", tracer_provider=tracer_provider)
        meter = metrics.get_meter("procession", meter_provider=meter_provider)
        self._run_duration = meter.create_histogram("procession.run.duration", "s", "How long runs took.")
        self._task_duration = meter.create_histogram("procession.task.duration", "s", "How long tasks took.")
        self._retries = meter.create_counter("procession.task.retries", "{retry}", "Attempts that followed another.")
        self._limit_wait = meter.create_histogram(
            "procession.limit.wait", "s", "How long calls were held back by limits."
        )
        self._waiting = meter.create_up_down_counter(
            "procession.tasks.waiting", "{task}", "Tasks that have not started."
        )
        self._running = meter.create_up_down_counter(
            "procession.tasks.running", "{task}", "Tasks that have started and not ended."
        )
        self._runs: dict[str, _Run] = {}

    def on_event(self, event: Event) -> None:
        """Begin or end a span, and measure."""
        if event.name == "run_started":
            self._begin(event)
            return
        run = self._runs.get(event.run_id)
        if run is None:
            return
        if event.index is None:
            del self._runs[event.run_id]
            self._end(run, event)
        elif event.call is not None:
            self._call(run, event, (event.index, event.element, event.call))
        elif event.name == "task_started":
            self._start(run, event, event.index)
        elif event.name == "task_retrying":
            self._retry(run, event, event.index)
        elif event.name == "task_held_back":
            self._hold_back(run, event, event.index)
        elif event.name in _ENDS:
            self._finish(run, event, event.index)

    def _begin(self, event: Event) -> None:
        total, ended = (event.progress.total, event.progress.ended) if event.progress is not None else (0, 0)
        attributes = {"procession.process.name": event.process_name, "procession.run.id": event.run_id}
        span = self._tracer.start_span(
            event.process_name, attributes={**attributes, "procession.tasks": total, "procession.recorded": ended}
        )
        context.attach(trace.set_span_in_context(span))
        self._runs[event.run_id] = run = _Run(span, attributes, total - ended)
        self._waiting.add(run.waiting, run.labels)

    def _end(self, run: "_Run", event: Event) -> None:
        self._waiting.add(-run.waiting, run.labels)
        # Of tasks that were left behind running.
        for span in run.tasks.values():
            self._running.add(-1, run.labels)
            span.end()
        state = _ENDS[event.name]
        self._run_duration.record(event.duration or 0.0, {**run.labels, "procession.state": state})
        _close(run.span, state, event)

    def _start(self, run: "_Run", event: Event, index: int) -> None:
        # Its parent is named, for the thread that tells of the start of several tasks may be in the context of another.
        around = trace.set_span_in_context(run.span)
        span = self._tracer.start_span(
            event.task_name or "", around, attributes={**run.attributes, "procession.task.index": index}
        )
        inside = trace.set_span_in_context(span)
        context.attach(inside)
        REMOTE_SETUP.set(Sendable(partial(context.attach, inside), partial(propagate.inject, context=inside)))
        with run.lock:
            run.tasks[index] = span
            run.waiting -= 1
        self._waiting.add(-1, run.labels)
        self._running.add(1, run.labels)

    def _call(self, run: "_Run", event: Event, place: tuple[int, int | None, int]) -> None:
        """Begin or end the span of a call that a task makes itself, within the span of the task."""
        if event.name == "call_started":
            around = run.tasks.get(place[0], run.span)
            numbers = {"procession.task.index": place[0], "procession.call": place[2]}
            span = self._tracer.start_span(
                event.call_name or "", trace.set_span_in_context(around), attributes={**run.attributes, **numbers}
            )
            run.calls[place] = span, context.attach(trace.set_span_in_context(span))
        elif place in run.calls:
            span, token = run.calls.pop(place)
            context.detach(token)
            _close(span, "completed" if event.name == "call_completed" else "failed", event)

    def _retry(self, run: "_Run", event: Event, index: int) -> None:
        self._retries.add(1, run.labels)
        span = run.tasks.get(index)
        if span is not None:
            attributes: dict[str, str | int] = {"procession.attempt": event.attempt or 1}
            if event.element is not None:
                attributes["procession.element"] = event.element
            if event.error is not None:
                attributes["exception.type"] = type(event.error).__qualname__
            span.add_event("retrying", attributes)

    def _hold_back(self, run: "_Run", event: Event, index: int) -> None:
        seconds = event.duration or 0.0
        self._limit_wait.record(seconds, {**run.labels, "procession.limit.name": event.limit or ""})
        with run.lock:
            run.held_back[index] = run.held_back.get(index, 0.0) + seconds

    def _finish(self, run: "_Run", event: Event, index: int) -> None:
        state = _ENDS[event.name]
        self._task_duration.record(event.duration or 0.0, {**run.labels, "procession.state": state})
        with run.lock:
            span, held_back = run.tasks.pop(index, None), run.held_back.pop(index, None)
        if span is not None:
            if held_back is not None:
                span.set_attribute("procession.task.held_back", held_back)
            self._running.add(-1, run.labels)
            span.set_attribute("procession.task.attempts", event.attempt or 1)
            _close(span, state, event)


def _check(name: str, provider: object, kind: type) -> None:
    if provider is not None and not isinstance(provider, kind):
        raise TypeError(f"OpenTelemetry({name}=...) takes a {kind.__name__} of OpenTelemetry; got {sketch(provider)}")


class _Run:
    """The spans of a run that have not ended."""

    __slots__ = ("attributes", "calls", "held_back", "labels", "lock", "span", "tasks", "waiting")

    def __init__(self, span: trace.Span, attributes: Mapping[str, str], waiting: int) -> None:
        self.span = span
        self.attributes = attributes
        self.labels = {"procession.process.name": attributes["procession.process.name"]}
        self.lock = threading.Lock()
        self.tasks: dict[int, trace.Span] = {}
        self.held_back: dict[int, float] = {}
        """For how many seconds limits have held calls of a task back."""
        self.calls: dict[tuple[int, int | None, int], tuple[trace.Span, Token[context.Context]]] = {}
        self.waiting = waiting


def _close(span: trace.Span, state: str, event: Event) -> None:
    span.set_attribute("procession.state", state)
    try:
        if state == "failed":
            span.set_status(trace.Status(trace.StatusCode.ERROR))
            if event.error is not None:
                span.record_exception(event.error)  # calls its __str__
    finally:
        span.end()
