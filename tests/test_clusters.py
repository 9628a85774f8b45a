"""Processes on real clusters of several worker processes: one suite for Dask and Ray, then what is one's own."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from contextlib import suppress
from operator import add
from pathlib import Path

import pytest
from tenacity import RetryError, Retrying, retry_if_result, stop_after_attempt

from clusters import HERE, dask_here
from cluster_jobs import (
    Awaiting,
    append_to,
    die_once,
    double,
    fail,
    first_bytes,
    instants,
    large,
    log_and_return,
    note,
    note_and_wait,
    note_unless_first,
    occupy,
    put_off_once,
    run_by_way_of,
    run_there,
    run_there_and_stay,
    sizes,
    start_there,
    wait_for,
    wait_until_cancelled,
)
from procession import (
    ExecutorBrokenError,
    JournalError,
    Limit,
    Process,
    RunCancelledError,
    TaskLogHandler,
    TaskTimeoutError,
    task,
)
from procession._remote.backends import dask as module
from procession._remote.wire.batch import BatchOptions
from procession._remote.wire.result import result_of
from procession._remote.wire.serialize import encode_calls
from procession._remote.worker.cluster_main import run_away, told, value_of
from procession.journal import Journal
from procession.testing import recorded_calls

dask = pytest.importorskip("dask", reason='pip install "procession[dask]"')
distributed = pytest.importorskip("distributed", reason='pip install "procession[dask]"')
pytestmark = [
    pytest.mark.filterwarnings("default"),  # the cluster has warnings of its own
    pytest.mark.timeout(120),
]


posix = pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP")


@pytest.fixture(scope="module")
def client():
    """A client of a Dask cluster."""
    with dask_here() as client:
        yield client


@pytest.fixture(scope="module")
def narrow():
    """A client of a Dask cluster of one worker with one thread."""
    with dask_here(workers=1) as client:
        yield client


@pytest.fixture(params=["dask", "ray"])
def cluster(request):
    """What to give as `executor`."""
    return request.getfixturevalue("client" if request.param == "dask" else "ray")


@pytest.mark.parametrize("strategy", ["sequential", "parallel", "hybrid"])
def test_results_are_those_of_any_executor(cluster, strategy):
    """In the order added, with values from task to task and over a map, from a worker and not from here."""
    process = Process("cluster", strategy, 4, executor=cluster)
    for number in range(50):
        process.add_task(double, number)
    first = process.task(double, 100)
    numbers = process.task(list, range(20))
    doubled = process.map(double, numbers)
    process.add_task(add, first, process.task(sum, doubled))
    results = process.execute()
    assert results[:50] == [2 * number for number in range(50)]
    assert results[50:] == [200, list(range(20)), [2 * number for number in range(20)], 580 - 200, 580]
    workers = {outcome.worker for outcome in process.last_run.outcomes[:50]}
    assert threading.current_thread().name not in workers


@pytest.mark.parametrize("maps", [False, True], ids=["tasks", "elements"])
def test_limits_hold_on_a_cluster(cluster, maps):
    """With room for one, no two of six calls overlap, though two workers are there."""
    process = Process("cluster", "parallel", 4, executor=cluster)
    function = task(limit=Limit(f"cluster {maps} {cluster}", at_once=1))(instants)
    if maps:
        process.map(function, range(6))
    else:
        for number in range(6):
            process.add_task(function, number)
    results = process.execute()
    calls = sorted(results[0] if maps else results)
    assert len(calls) == 6
    assert all(later[0] >= sooner[1] for sooner, later in zip(calls, calls[1:]))


def test_no_more_calls_begin_on_a_cluster_than_its_limit_allows(cluster, tmp_path):
    """Three of eight; when the run is cancelled, the others have never started."""
    process = Process("cluster", "parallel", 4, executor=cluster)
    function = task(limit=Limit(f"cluster {cluster}", rate=3, per=3600.0))(note)
    for number in range(8):
        process.add_task(function, str(tmp_path), number)
    run = process.start()
    for _, outcome in zip(range(3), run):
        assert outcome.state == "completed"
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(60)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.0", "1.0", "2.0"]
    assert [outcome.state for outcome in run.outcomes] == ["completed"] * 3 + ["cancelled"] * 5


def test_a_cluster_pauses_as_its_service_says(cluster, tmp_path):
    """The exception comes back, and the call is made again as the same attempt."""
    process = Process("cluster", "parallel", 4, executor=cluster)
    process.map(task(limit=Limit(f"cluster pauses {cluster}"))(put_off_once), [str(tmp_path)] * 4, range(4))
    assert process.execute() == [[1, 1, 1, 1]]


def test_large_values_go_from_worker_to_worker(cluster):
    """What a task takes of another one is not brought here in between; results are, once, at the end."""
    process = Process("large", "parallel", 4, executor=cluster)
    blocks = [process.task(large, number) for number in range(6)]
    counted = process.task(sizes, blocks)
    heads = process.task(first_bytes, *blocks)
    mapped = process.map(large, [7, 8])
    process.add_task(sizes, mapped)
    run = process.start()
    results = run.result()
    assert [block[:1] for block in results[:6]] == [bytes([number]) for number in range(6)]
    assert results[6:8] == [[300_000] * 6, list(range(6))]
    assert [block[0] for block in results[8]] == [7, 8]
    assert results[9] == [300_000, 300_000]
    assert run[counted] == [300_000] * 6
    assert run[heads] == list(range(6))


def test_what_a_map_draws_from_is_brought_here(cluster):
    """However large it is."""
    process = Process("drawn", "parallel", 2, executor=cluster)
    process.add_task(sum, process.map(len, process.task(list, [bytes(300_000)] * 3)))
    assert process.execute()[1:] == [[300_000] * 3, 900_000]


def test_rules_of_retries_see_large_values(cluster):
    """What a task returned is judged as what it is, wherever it lies."""
    rules = Retrying(retry=retry_if_result(lambda value: len(value) == 300_000), stop=stop_after_attempt(2))
    process = Process("judged", "parallel", 2, executor=cluster, on_error="return")
    process.add_task(task(retries=rules)(large), 1)
    process.add_task(task(retries=rules)(bytes), 300_001)
    failed, value = process.execute()
    assert isinstance(failed, RetryError)
    assert value == bytes(300_001)
    assert [outcome.attempts for outcome in process.last_run.outcomes] == [2, 1]


def test_a_report_may_be_moved_on_the_cluster():
    """From the worker that made the calls to another, with the values that stay in it."""
    calls = [(0, -1, 1, None, large, (1,), {}), (1, -1, 1, None, double, (4,), {}), (2, -1, 1, None, fail, (3,), {})]
    made = run_away(pickle.dumps([encode_calls(calls, whole=False)]), BatchOptions("p", "id", budget=10.0), [], 1000)
    moved = pickle.loads(pickle.dumps(made))
    short, away = told(moved)
    assert away == [0]
    assert value_of(moved, 0) == large(1)
    results = [result_of(one, short.worker) for one in short.ended]
    assert [result.returned for result in results] == [True, True, False]
    assert results[1].value == 8
    assert len(short.ended[0]) < 100


def test_what_calls_change_is_each_ones_own(cluster):
    """However many of them travel together."""
    shared = [0]
    process = Process("shared", "parallel", 2, executor=cluster)
    for number in range(100):
        process.add_task(append_to, shared, number)
    assert process.execute() == [2] * 100
    assert shared == [0]


def test_a_chain_is_made_where_its_values_are(cluster):
    """A thousand links, each with the value of the one before; the failure of one skips those after it."""
    process = Process("chain", "parallel", 4, executor=cluster, on_error="return")
    handle = process.task(double, 1)
    for _ in range(200):
        handle = process.task(add, handle, 1)
    broken = process.task(fail, handle)
    process.add_task(double, broken)
    results = process.execute()
    assert results[:201] == list(range(2, 203))
    assert isinstance(results[201], KeyError)
    assert [outcome.state for outcome in process.last_run.outcomes[-3:]] == ["completed", "failed", "skipped"]


def test_a_failure_leaves_as_itself(cluster):
    """With the note of its place, and where it was raised on the cluster."""
    process = Process("failing", "parallel", 2, executor=cluster)
    process.add_task(fail, 3)
    with pytest.raises(KeyError) as caught:
        process.execute()
    assert caught.value.args == (3,)
    assert "in process 'failing', task 0 (fail), attempt 1" in caught.value.__notes__
    assert any("cluster_jobs.py" in map_function for map_function in caught.value.__notes__)


def test_a_worker_that_is_killed_loses_nothing(cluster, tmp_path):
    """The cluster makes its calls again, and the results are right."""
    process = Process("killed", "parallel", 4, executor=cluster)
    for number in range(60):
        process.add_task(die_once, number, str(tmp_path / "died"))
    assert process.execute() == list(range(60))
    assert (tmp_path / "died").exists()


def test_no_more_than_max_workers_run_at_the_same_time(cluster, tmp_path):
    """However many workers there are."""
    process = Process("one", "parallel", 1, executor=cluster)
    for number in range(20):
        process.add_task(occupy, str(tmp_path), number)
    assert process.execute() == [1] * 20


def test_a_place_is_not_kept_empty_while_results_are_brought_here(client, tmp_path):
    """The result of the first call can be read only when the second has begun, in the same place."""
    process = Process("brought", "parallel", 1, executor=client)
    process.add_task(Awaiting, str(tmp_path / "begun"))
    process.add_task(Path.touch, tmp_path / "begun")
    assert process.execute() == ["let end", None]


def test_nothing_begins_after_a_failure_that_ends_the_run(client, tmp_path):
    """Though the result of the call that failed is not here yet when the place of the next is free."""
    process = Process("stopped", "parallel", 1, executor=client)
    process.map(note_unless_first, [str(tmp_path)] * 3, range(3))
    with pytest.raises(KeyError):
        process.execute()
    assert list(tmp_path.iterdir()) == []


def test_retries_and_timeouts(cluster):
    """Attempts are counted, and a hung one fails on time."""
    process = Process("again", "parallel", 2, executor=cluster, on_error="return")
    process.add_task(task(retries=2)(fail), 1)
    process.add_task(task(timeout=0.2)(wait_for), "/nowhere")
    results = process.execute()
    assert [type(result) for result in results] == [KeyError, TaskTimeoutError]
    assert process.last_run.outcomes[0].attempts == 3


def test_a_cancel_reaches_the_cluster(client, tmp_path):
    """What waits there is not begun; what runs is let end."""
    process = Process("cancelled", "parallel", 2, executor=client)
    gate = tmp_path / "gate"
    process.add_task(wait_for, str(gate))
    process.add_task(wait_for, str(gate))
    calls = tmp_path / "calls"
    calls.mkdir()
    for number in range(50):
        process.add_task(note, str(calls), number)
    run = process.start()
    while sum(map(len, client.processing().values())) < 2:
        assert not run.wait(0.01)
    run.cancel()
    gate.touch()
    with pytest.raises(RunCancelledError):
        run.result(60)
    assert len(list(calls.iterdir())) == 0


def test_what_tasks_log_on_the_cluster_is_in_their_records(cluster, tmp_path):
    """From each worker, where the run is recorded; elsewhere nothing is kept."""
    logger, handler = logging.getLogger("tests.cluster"), TaskLogHandler()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        process = Process("logging", "parallel", 2, executor=cluster)
        process.map(log_and_return, range(20))
        process.add_task(log_and_return, 200_000)
        process.execute(run_id="a", journal=tmp_path / "runs.db")
        process.execute()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    with Journal(tmp_path / "runs.db") as journal:
        tasks = [*journal.tasks("a", task=0), *journal.tasks("a")[1:]]
    assert [one.log.partition(" ")[2] for one in tasks] == [
        f"INFO tests.cluster: {number}" for number in [*range(20), 200_000]
    ]


def test_what_a_worker_has_not_begun_is_not_begun_after_a_cancel(client, tmp_path):
    """What runs on a worker is asked to stop, and what lies ready there behind it is given back."""
    client.wait_for_workers(2, timeout=50)
    process = Process("asked", "parallel", 4, executor=client)
    for number in range(2):
        process.add_task(wait_until_cancelled, str(tmp_path / f"begun {number}"))
    calls = tmp_path / "calls"
    calls.mkdir()
    for number in range(50):
        process.add_task(note, str(calls), number)
    run = process.start()
    while len(list(tmp_path.glob("begun *"))) < 2 or sum(map(len, client.processing().values())) < 4:
        assert not run.wait(0.01)
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(50)
    assert [outcome.value for outcome in run.outcomes[:2]] == ["asked to stop"] * 2
    assert {(outcome.state, outcome.attempts) for outcome in run.outcomes[2:]} == {("cancelled", 0)}
    assert list(calls.iterdir()) == []


def test_a_recorded_run_goes_on_where_it_was(cluster, tmp_path):
    """What was recorded is not called again, on the cluster either."""

    def build(broken):
        process = Process("recorded", "parallel", 2, executor=cluster)
        for number in range(10):
            process.add_task(note, str(tmp_path), number)
        process.map(partial_note, [f"{tmp_path}"] * 5, range(20, 25))
        process.add_task(fail_if_there, str(tmp_path / "broken"))
        return process

    (tmp_path / "broken").touch()
    journal = tmp_path / "runs.db"
    with pytest.raises(KeyError):
        build(True).execute(run_id="a", journal=journal)
    (tmp_path / "broken").unlink()
    results = build(False).execute(run_id="a", journal=journal)
    assert results == [*range(10), list(range(20, 25)), None]
    again = build(False)
    assert again.execute(run_id="a", journal=journal) == results
    assert all(outcome.recorded for outcome in again.last_run.outcomes)


def partial_note(folder, number):
    return note(folder, number)


def fail_if_there(path):
    if Path(path).exists():
        raise KeyError(path)


SIXES = [6, 6, 6]


@pytest.mark.parametrize("deep", [0, 1])
def test_tasks_may_execute_processes_on_their_own_cluster(cluster, deep):
    """More of them at once than it has places, and tasks of those again."""
    where = cluster if isinstance(cluster, str) else "client"
    process = Process("outer", "parallel", 4, executor=cluster)
    for _ in range(4):
        process.add_task(run_there, where, double, 3, deep=deep)
    run = process.start()
    assert run.result(60) == [[SIXES] * 3 if deep else SIXES] * 4


@pytest.mark.parametrize("outer", [task(timeout=50)(run_there), start_there], ids=["timeout", "start"])
def test_nested_runs_get_through_from_other_threads_of_a_task(cluster, outer):
    """From that of an attempt with a timeout, and from that of a run that was started."""
    where = cluster if isinstance(cluster, str) else "client"
    process = Process("outer", "parallel", 4, executor=cluster)
    for _ in range(4):
        process.add_task(outer, where if outer is not start_there else address_of(cluster), double, 3)
    run = process.start()
    assert [set(values) for values in run.result(60)] == [{6}] * 4


def address_of(cluster):
    return cluster if isinstance(cluster, str) else cluster.scheduler.address


@pytest.mark.parametrize("deep", [0, 1, 2])
def test_one_thread_is_enough_for_a_task_that_waits_for_others(narrow, deep):
    """By the address of its cluster too."""
    address = narrow.scheduler.address
    process = Process("outer", executor=address)
    process.add_task(run_there, address, double, 3, deep=deep)
    run = process.start()
    expected = SIXES
    for _ in range(deep):
        expected = [expected] * 3
    assert run.result(60) == [expected]


def test_a_task_of_dask_itself_may_execute_a_process_there(narrow):
    """It is no task of ours, and waits for us all the same."""
    assert narrow.submit(run_there, narrow.scheduler.address, double, 3).result(60) == SIXES


def test_a_cluster_of_a_tasks_own_is_another_one(narrow):
    """Its calls are made there, and its place on the first one is not lent; those calls may come back here."""
    address = narrow.scheduler.address
    process = Process("outer", "parallel", 2, executor=narrow)
    process.add_task(run_there, "dask", os.getpid)
    process.add_task(run_by_way_of, "dask", address, double, 3)
    process.add_task(run_by_way_of, "threads", address, double, 3)
    run = process.start()
    pids, *others = run.result(60)
    assert len(set(pids)) == 1
    assert others == [[SIXES, SIXES]] * 2


def test_the_place_of_a_task_is_its_own_again_after_its_run(narrow, tmp_path):
    """No more tasks go on at the same time than the worker has threads."""
    process = Process("outer", "parallel", 4, executor=narrow)
    for number in range(4):
        process.add_task(run_there_and_stay, narrow.scheduler.address, str(tmp_path), number)
    run = process.start()
    assert run.result(60) == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "where, way", [("cluster", None), ("threads", None), ("cluster", "dask"), ("cluster", "threads")]
)
def test_cancelling_a_run_cancels_those_in_its_tasks_on_the_cluster(narrow, tmp_path, where, way):
    """Within seconds, and the worker is free for others."""
    where = narrow.scheduler.address if where == "cluster" else where
    call = (run_there, where) if way is None else (run_by_way_of, way, where)
    process = Process("outer", executor=narrow)
    process.add_task(*call, wait_until_cancelled, str(tmp_path / "begun"))
    run = process.start()
    while not (tmp_path / "begun").exists():
        assert not run.wait(0.01)
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert isinstance(run.outcomes[0].error, RunCancelledError)
    assert narrow.submit(double, 4, pure=False).result(20) == 8


def test_the_executor_of_a_client_is_an_executor_like_any_other(client):
    """It sends what it is given through the scheduler, pickled twice."""
    process = Process("executor", "parallel", 2, executor=client.get_executor())
    for number in range(200):
        process.add_task(double, number)
    assert process.execute() == [2 * number for number in range(200)]


SCRIPT = """
import sys
from cluster_jobs import note_and_wait
from procession import Process

process = Process("killed", "parallel", 2, executor=sys.argv[1])
for number in range(6):
    process.add_task(note_and_wait, sys.argv[2], number)
if __name__ == "__main__":
    process.execute(run_id="a", journal=sys.argv[3])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_run_whose_client_was_killed_goes_on(client, tmp_path):
    """What was recorded until then is not called again; the cluster has outlived the client."""
    calls, journal = tmp_path / "calls", tmp_path / "runs.db"
    calls.mkdir()
    script = [sys.executable, "-c", SCRIPT, client.scheduler.address, str(calls), str(journal)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))}
    with subprocess.Popen(script, env=environment, stderr=subprocess.DEVNULL) as killed:
        recorded = set()
        while not recorded:
            assert killed.poll() is None
            if journal.exists():
                with Journal(journal) as opened, suppress(JournalError):
                    recorded = {call[1] for call in recorded_calls(opened)}
        killed.kill()
    with Journal(journal) as opened:
        recorded = {call[1] for call in recorded_calls(opened)}
    before = {number: len(list(calls.glob(f"{number}.*"))) for number in recorded}
    (calls / "go on").touch()
    process = Process("killed", "parallel", 2, executor=client)
    for number in range(6):
        process.add_task(note_and_wait, str(calls), number)
    assert process.execute(run_id="a", journal=journal) == list(range(6))
    assert {number: len(list(calls.glob(f"{number}.*"))) for number in recorded} == before


def test_an_address_is_as_good_as_a_client(client):
    """The connection is closed with the run, and the cluster stays."""
    process = Process("address", "parallel", 2, executor=client.scheduler.address)
    process.add_task(double, 2)
    assert process.execute() == [4]
    assert process.execute() == [4]
    assert client.submit(double, 4).result() == 8


def test_a_cluster_that_is_not_there_is_told_plainly():
    """And the process can be used again."""
    process = Process("nowhere", executor="tcp://127.0.0.1:9")
    process.add_task(double, 2)
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        with pytest.raises(ExecutorBrokenError, match="no Dask cluster could be reached"):
            process.execute()
    process.executor = "threads"
    assert process.execute() == [4]


def test_a_cluster_that_goes_away_ends_the_run(tmp_path):
    """Within seconds, plainly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0")
        client = distributed.Client(cluster)
        client.run(sys.path.insert, 0, HERE)
        process = Process("gone", "parallel", 2, executor=client)
        process.add_task(wait_for, str(tmp_path / "never"))
        run = process.start()
        while not any(client.processing().values()):
            assert not run.wait(0.01)
        client.close()
        with pytest.raises(ExecutorBrokenError):
            run.result(60)
        cluster.close()


CLUSTER = f"""
import sys
sys.path.insert(0, {HERE!r})
import distributed

if __name__ == "__main__":
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=":0"
    )
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def doomed(tmp_path):
    """A process that is a cluster, to be signalled, and its address."""
    script = tmp_path / "cluster.py"
    script.write_text(CLUSTER)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        yield child, child.stdout.readline().strip()
        child.kill()


def begun_on(address, path):
    """A run of which one task has begun there."""
    process = Process("doomed", "parallel", 2, executor=address)
    process.add_task(wait_until_cancelled, str(path))
    process.add_task(double, 2)
    process.add_task(wait_for, f"{path} never")
    run = process.start()
    while not path.exists():
        assert not run.wait(0.01)
    return run


def test_a_scheduler_that_was_killed_is_told_plainly(doomed, tmp_path):
    """Within seconds."""
    child, address = doomed
    run = begun_on(address, tmp_path / "begun")
    child.kill()
    with pytest.raises(ExecutorBrokenError, match="the Dask cluster is gone: the connection to its scheduler was lost"):
        run.result(20)


def test_large_values_on_a_cluster_that_is_gone_are_told_of_plainly(doomed, tmp_path):
    """They cannot be brought here any more."""
    child, address = doomed
    process = Process("doomed", "parallel", 1, executor=address, on_error="return")
    process.add_task(large, 1)
    process.add_task(wait_until_cancelled, str(tmp_path / "begun"))
    run = process.start()
    while not (tmp_path / "begun").exists():
        assert not run.wait(0.01)
    child.kill()
    with pytest.raises(ExecutorBrokenError, match="the Dask cluster is gone"):
        run.result(20)


@posix
@pytest.mark.parametrize("killed", [True, False], ids=["killed", "stopped"])
def test_cancelling_says_that_the_cluster_is_gone(doomed, tmp_path, monkeypatch, killed):
    """Where that is found out only then, and within a bounded time; what was there has failed for that."""
    child, address = doomed
    monkeypatch.setattr(module, "_HALT_S", 0.5)
    monkeypatch.setattr(module, "_SILENT_S", 60.0 if killed else 1.0)
    run = begun_on(address, tmp_path / "begun")
    child.send_signal(signal.SIGSTOP)
    run.cancel()
    if killed:
        child.kill()
    with pytest.raises(RunCancelledError, match=r"with a failure \(task 0: ExecutorBrokenError: the Dask .* is gone"):
        run.result(20)
    assert run.outcomes[0].state == "failed"


def test_a_scheduler_that_fails_to_answer_holds_up_no_cancel(narrow, tmp_path, monkeypatch):
    """What runs is asked to stop, what nobody has is taken back once it answers, and all threads end."""
    asked = []

    async def fail(**_):
        asked.append(1)
        if len(asked) < 3:
            raise OSError("not now")
        return await processing()

    processing = narrow.scheduler.processing
    monkeypatch.setattr(narrow.scheduler, "processing", fail, raising=False)
    inner = Process("inner")
    inner.add_task(wait_for, str(tmp_path / "gate"))
    process = Process("failing", "parallel", 3, executor=narrow)
    process.add_task(wait_until_cancelled, str(tmp_path / "begun"))
    process.add_task(inner)
    run = process.start()
    while not (tmp_path / "begun").exists():
        assert not run.wait(0.01)
    run.cancel()
    (tmp_path / "gate").touch()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert run.outcomes[0].value == "asked to stop"
    assert asked
    assert [thread.name for thread in threading.enumerate() if "procession-failing" in thread.name] == []


def test_a_backend_that_fails_to_close_leaves_no_other_one_open(narrow, monkeypatch):
    """The run fails with that, and all threads end."""

    def fail(*_, **__):
        raise OSError("it does not close")

    monkeypatch.setattr(module.DaskBackend, "close", fail)
    inner = Process("inner")
    inner.add_task(double, 1)
    process = Process("unclosed", "parallel", 2, executor=narrow)
    process.add_task(inner)
    process.add_task(double, 1)
    with pytest.raises(OSError, match="it does not close"):
        process.execute()
    assert [thread.name for thread in threading.enumerate() if "procession-unclosed" in thread.name] == []


def test_a_cluster_of_its_own_is_closed_with_the_run():
    """No child process is left."""
    import psutil

    before = psutil.Process().children(recursive=True)
    process = Process("own", "parallel", 2, executor="dask")
    for number in range(20):
        process.add_task(double, number)
    assert process.execute() == [2 * number for number in range(20)]
    left = [child for child in psutil.Process().children(recursive=True) if not {child, child.parent()} & set(before)]
    assert [child for child in left if "tracker" not in " ".join(child.cmdline())] == []
