"""Runs as traces and metrics: who is whose child, what they say, and that a collector gets them."""

import asyncio
import gzip
import multiprocessing
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tenacity
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from procession import Process, RunCancelledError, current_task, task
from procession.observe.otel import OpenTelemetry
from procession.observe.trace_parent import Sendable

STRATEGIES = ["sequential", "parallel", "hybrid"]
RULES = tenacity.Retrying(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_none())


class Traced:
    """An observer over an exporter and a reader in memory."""

    def __init__(self, **options):
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self.observer = OpenTelemetry(self.provider, MeterProvider([self.reader]))

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    def named(self, name):
        (span,) = [span for span in self.spans if span.name == name]
        return span

    def parents(self):
        """Return the name of each span's parent, by its own name."""
        names = {span.context.span_id: span.name for span in self.spans}
        found = {}
        for span in self.spans:
            found.setdefault(span.name, set()).add(None if span.parent is None else names[span.parent.span_id])
        return found

    def metrics(self):
        data = self.reader.get_metrics_data()
        return {
            metric.name: [(dict(point.attributes), point) for point in metric.data.data_points]
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def traced():
    return Traced()


def throw(error):
    raise error


# Who is whose child


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_spans_of_a_task_are_children_of_its_span_wherever_it_runs(traced, strategy):
    """In workers, in the thread of an attempt with a timeout, in a later attempt, in each element, in coroutines."""

    def own(name, *_):
        with traced.tracer.start_as_current_span(f"in {name}"):
            if name == "retries" and current_task().attempt < 3:
                raise OSError

    async def own_awaited(name):
        with traced.tracer.start_as_current_span(f"in {name}"):
            await asyncio.sleep(0)
            with traced.tracer.start_as_current_span(f"deep in {name}"):
                await asyncio.sleep(0)

    def build():
        process = Process("run", strategy, 4, observers=[traced.observer])
        process.add_task(task(name="plain")(own), "plain")
        process.add_task(task(name="timeout", timeout=50)(own), "timeout")
        process.add_task(task(name="retries", retries=RULES)(own), "retries")
        process.map(task(name="each")(own), ["each"] * 10)
        process.add_task(task(name="coroutine")(own_awaited), "coroutine")
        process.add_task(task(name="slow coroutine", timeout=50)(own_awaited), "slow coroutine")
        return process

    with traced.tracer.start_as_current_span("caller"):
        build().execute()
    names = ["plain", "timeout", "retries", "coroutine", "slow coroutine"]
    expected = {f"in {name}": {name} for name in names} | {name: {"run"} for name in names}
    expected |= {"run": {"caller"}, "caller": {None}, "map of each": {"run"}, "in each": {"map of each"}}
    expected |= {f"deep in {name}": {f"in {name}"} for name in names[3:]}
    assert traced.parents() == expected
    assert len([span for span in traced.spans if span.name == "in each"]) == 10
    assert len([span for span in traced.spans if span.name == "in retries"]) == 3
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_run_in_the_loop_of_the_caller_is_a_child_of_what_is_around_it(traced):
    """As one from `execute()` and from `start()`."""

    async def main():
        process = Process("awaited", "parallel", observers=[traced.observer])
        process.add_task(task(name="sleep")(asyncio.sleep), 0)
        with traced.tracer.start_as_current_span("caller"):
            await process.execute_async()

    asyncio.run(main())
    process = Process("started", observers=[traced.observer])
    process.add_task(len, "abc")
    with traced.tracer.start_as_current_span("starter"):
        process.start().result()
    parents = traced.parents()
    assert parents["awaited"] == {"caller"}
    assert parents["sleep"] == {"awaited"}
    assert parents["started"] == {"starter"}


def test_a_nested_run_is_a_child_of_the_task_that_it_is(traced):
    """Where both are observed."""
    inner = Process("inner", "parallel", observers=[traced.observer])
    inner.add_task(len, "abc")
    outer = Process("outer", "parallel", observers=[traced.observer])
    outer.add_task(task(name="nested")(lambda: inner.execute()))
    outer.execute()
    assert traced.parents() == {"len": {"inner"}, "inner": {"nested"}, "nested": {"outer"}, "outer": {None}}


def identity(*_):
    """Return what is current: the ids of a trace and a span. Called in processes where nothing is set up."""
    current = trace.get_current_span().get_span_context()
    return current.trace_id, current.span_id


@pytest.mark.parametrize("where", ["processes", "threads of an executor", "processes of an executor"])
def test_other_processes_know_the_span_that_a_task_is(traced, where):
    """First attempts and later ones, coroutines, elements of maps, what follows on another task."""

    def execute(executor):
        process = Process("away", "parallel", 2, executor=executor, observers=[traced.observer])
        first = process.task(task(name="plain")(identity))
        process.add_task(task(name="timeout", timeout=50)(identity))
        process.add_task(task(name="after")(identity), first)
        process.map(task(name="each")(identity), range(20))
        return process.execute()

    if where == "processes":
        plain, timeout, after, each = execute("processes")
    else:
        kind = ThreadPoolExecutor if where.startswith("threads") else ProcessPoolExecutor
        options = {} if kind is ThreadPoolExecutor else {"mp_context": multiprocessing.get_context("spawn")}
        with kind(2, **options) as executor:
            plain, timeout, after, each = execute(executor)
    found = {"plain": {plain}, "timeout": {timeout}, "after": {after}, "map of each": set(each)}
    spans = {name: traced.named(name).context for name in found}
    assert found == {name: {(span.trace_id, span.span_id)} for name, span in spans.items()}
    assert {name: traced.parents()[name] for name in found} == {name: {"away"} for name in found}
    assert identity() == (0, 0)


def test_a_worker_without_opentelemetry_calls_its_tasks_all_the_same():
    """What comes with them is left aside there."""
    parent = pickle.dumps(Sendable(lambda: None, lambda carrier: carrier.update(traceparent="x")))
    code = (
        "import pickle, sys; sys.modules['opentelemetry'] = None; "
        f"pickle.loads({parent!r})(); print('called', 'opentelemetry.trace' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "called False\n", done.stderr


# What spans say


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_spans_say_how_it_went(traced, strategy):
    """State, attempts, the exception where it failed, and no argument or result."""

    @task(name="flaky", retries=RULES)
    def flaky(secret):
        if current_task().attempt < 3:
            raise OSError("not yet")
        return secret

    process = Process("told", strategy, 1, on_error="return", observers=[traced.observer])
    process.add_task(flaky, "hunter2")
    process.add_task(task(name="failing")(throw), ValueError("no"))
    process.execute()
    run, flaky, failing = traced.named("told"), traced.named("flaky"), traced.named("failing")
    common = {"procession.process.name": "told", "procession.run.id": process.last_run.id}
    assert run.attributes == {
        **common,
        "procession.tasks": 2,
        "procession.recorded": 0,
        "procession.state": "completed",
    }
    assert flaky.attributes == {
        **common,
        "procession.task.index": 0,
        "procession.task.attempts": 3,
        "procession.state": "completed",
    }
    assert [(event.name, dict(event.attributes)) for event in flaky.events] == [
        ("retrying", {"procession.attempt": 1, "exception.type": "OSError"}),
        ("retrying", {"procession.attempt": 2, "exception.type": "OSError"}),
    ]
    assert flaky.status.is_unset
    assert failing.attributes["procession.state"] == "failed"
    assert not failing.status.is_ok
    assert not failing.status.is_unset
    (event,) = failing.events
    assert (event.name, event.attributes["exception.type"]) == ("exception", "ValueError")
    assert "in throw" in event.attributes["exception.stacktrace"]
    assert run.start_time <= flaky.start_time <= flaky.end_time <= run.end_time
    assert "hunter2" not in "".join(span.to_json() for span in traced.spans)


def test_a_failed_and_a_cancelled_run_are_told_apart(traced):
    """One is an error, the other was asked for."""
    failed = Process("failed", observers=[traced.observer])
    failed.add_task(throw, ValueError("no"))
    with pytest.raises(ValueError):
        failed.execute()
    cancelled = Process("cancelled", "parallel", 1, observers=[traced.observer])
    cancelled.add_task(task(name="stopped")(lambda: (cancelled.last_run.cancel(), current_task().sleep(50))))
    cancelled.add_task(len, "never")
    with pytest.raises(RunCancelledError):
        cancelled.execute()
    states = {span.name: (span.attributes["procession.state"], span.status.status_code.name) for span in traced.spans}
    assert states == {
        "throw": ("failed", "ERROR"),
        "failed": ("failed", "ERROR"),
        "stopped": ("cancelled", "UNSET"),
        "cancelled": ("cancelled", "UNSET"),
    }


def test_an_exception_without_a_text_ends_its_span_all_the_same(traced):
    """Its `__str__` may raise, and the run is what it would have been."""

    class Unspeakable(Exception):
        def __str__(self):
            raise LookupError

    process = Process("unspeakable", on_error="return", observers=[traced.observer])
    process.add_task(throw, Unspeakable())
    process.execute()
    assert [span.attributes["procession.state"] for span in traced.spans] == ["failed", "completed"]


def test_spans_that_are_not_sampled_cost_no_result():
    """With a sampler that wants none."""
    traced = Traced(sampler=ALWAYS_OFF)
    process = Process("unsampled", "parallel", observers=[traced.observer])
    process.add_task(len, "abc")
    assert process.execute() == [3]
    assert traced.spans == ()


# Metrics


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tasks_durations_retries_and_the_queue_are_measured(traced, strategy):
    """By process and state; when a run has ended, nothing waits and nothing runs."""
    seen = []

    def look():
        values = traced.metrics()
        seen.append({name: values[f"procession.tasks.{name}"][0][1].value for name in ("waiting", "running")})

    process = Process("measured", strategy, 1, on_error="return", observers=[traced.observer])
    process.add_task(len, "abc")
    process.add_task(look)
    process.add_task(task(retries=RULES)(throw), OSError())
    process.add_task(len, "abc")
    process.execute()
    name = {"procession.process.name": "measured"}
    metrics = traced.metrics()
    durations = {labels["procession.state"]: point for labels, point in metrics["procession.task.duration"]}
    failed_in_order = strategy == "sequential"  # then the one after it is skipped
    assert {state: point.count for state, point in durations.items()} == {
        "completed": 2 if failed_in_order else 3,
        "failed": 1,
    }
    assert all(0 < point.sum < 20 for point in durations.values())
    assert [(labels, point.value) for labels, point in metrics["procession.task.retries"]] == [(name, 2)]
    ((labels, point),) = metrics["procession.run.duration"]
    assert (labels, point.count) == ({**name, "procession.state": "completed"}, 1)
    assert seen == [{"waiting": 2, "running": 1}]
    assert [point.value for _, point in metrics["procession.tasks.waiting"]] == [0]
    assert [point.value for _, point in metrics["procession.tasks.running"]] == [0]


# Elsewhere


def test_a_collector_gets_the_spans_over_the_network():
    """OTLP over HTTP, to a receiver that takes apart what comes."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    requests = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        provider = TracerProvider()
        exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{server.server_port}/v1/traces", timeout=10)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        process = Process("remote", "parallel", observers=[OpenTelemetry(provider)])
        process.add_task(task(name="one")(len), "abc")
        process.execute()
        provider.shutdown()
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
    spans = {
        span.name: span
        for path, request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
        if path == "/v1/traces" and scope.scope.name == "procession"
    }
    assert set(spans) == {"one", "remote"}
    assert spans["one"].parent_span_id == spans["remote"].span_id
    assert {attribute.key for attribute in spans["one"].attributes} >= {"procession.run.id", "procession.task.index"}


def test_without_the_extra_the_import_says_what_to_install():
    """Not that some module of another name is missing."""
    code = "import sys; sys.modules['opentelemetry'] = None; import procession.observe.otel"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'ImportError: procession.observe.otel takes OpenTelemetry: pip install "procession[otel]"' in done.stderr


def test_what_is_no_provider_is_refused_at_once():
    """The message says which argument, and what it takes."""
    with pytest.raises(TypeError, match="tracer_provider=.*takes a TracerProvider of OpenTelemetry; got 'x'"):
        OpenTelemetry("x")
    with pytest.raises(
        TypeError, match="meter_provider=.*takes a MeterProvider of OpenTelemetry; got an object of type T"
    ):
        OpenTelemetry(meter_provider=TracerProvider())
