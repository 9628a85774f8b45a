"""Whenever fewer calls than `max_workers` are being made and one is ready, another is begun: threads and coroutines.

No clock is read: every call waits at a barrier that opens only when as many are in flight as a schedule without idle
workers has.
"""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import barriers
import pytest

from procession import Process
from procession._engine.commit import GroupCommit
from procession.journal import Recorder

KINDS = {
    "threads": barriers.attend,
    "coroutines": barriers.attend_async,
    "both in turn": (barriers.attend, barriers.attend_async),
}
ALONE = ["threads", "coroutines"]


@pytest.fixture
def at():
    with barriers.hall() as hall:
        yield hall


class Watcher:
    """Is told of each start and end where it happens."""

    immediate = True

    def on_event(self, event):
        pass


@pytest.fixture(params=["plain", "recorded", "watched"])
def execute(request, tmp_path):
    """Execute a process as it is, with a journal, or with an observer."""

    def executed(process):
        if request.param == "recorded":
            return process.execute(run_id="a", journal=tmp_path / "runs.db")
        if request.param == "watched":
            return process.execute(observers=[Watcher()])
        return process.execute()

    return executed


def process_of(max_workers, **options):
    return Process("busy", "parallel", max_workers, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", barriers.SHAPES)
def test_a_graph_has_as_many_calls_in_flight_as_it_allows(name, kind, at, execute):
    """At every tick of a schedule without idle workers, calls taking one tick each."""
    shape = barriers.SHAPES[name]
    process = barriers.add_shape(process_of, shape, at, KINDS[kind])
    assert execute(process) == barriers.depths(shape)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", barriers.SHAPES)
def test_a_graph_of_uneven_calls_has_as_many_in_flight_as_it_allows(name, seed, kind, at):
    """Calls take one to three ticks, so that tasks become ready while others run."""
    shape = barriers.SHAPES[name]
    process = barriers.add_shape(process_of, shape, at, KINDS[kind], seed=seed)
    assert process.execute() == barriers.depths(shape)


@pytest.mark.parametrize("kind", ALONE)
@pytest.mark.parametrize("name", barriers.SCENARIOS)
def test_maps_retries_timeouts_and_nested_processes_leave_no_worker_idle(name, kind, at, execute):
    process, expected = barriers.SCENARIOS[name](at, KINDS[kind], process_of)
    assert barriers.comes_to(execute(process)) == expected


@pytest.mark.parametrize("kind", ALONE)
def test_a_resumed_run_in_which_part_is_left_leaves_no_worker_idle(kind, at, tmp_path):
    """A task waits for recorded ones only, beside one that waits for none and a map of which half is left."""
    process, expected = barriers.left_by_failures(at, KINDS[kind], process_of)
    with pytest.raises(ExceptionGroup):
        process.execute(run_id="a", journal=tmp_path / "runs.db")
    at.shut.clear()
    assert process.execute(run_id="a", journal=tmp_path / "runs.db") == expected


@pytest.mark.parametrize("kind", ALONE)
def test_the_second_half_of_a_hybrid_leaves_no_worker_idle(kind, at, execute):
    process = Process("busy", "hybrid", 4)
    for _ in range(4):
        process.add_task(barriers.quick, 1)
    first = process.task(KINDS[kind], [at("four", 4)])
    for _ in range(2):
        process.add_task(KINDS[kind], [at("four", 4)])
    process.map(KINDS[kind], [[at("four", 4)], [at("two", 2)]])
    process.add_task(KINDS[kind], [at("two", 2)], first)
    assert execute(process) == [1, 1, 1, 1, 1, 1, 1, [1, 1], 2]


@pytest.mark.parametrize("kind", ALONE)
@pytest.mark.parametrize("maps", [False, True], ids=["tasks", "elements"])
def test_whoever_commits_is_replaced_meanwhile(kind, maps, at, tmp_path, monkeypatch):
    """A slow journal takes no worker: while a commit goes on, as many calls as ever are in flight."""
    commit, begun = Recorder.commit, []

    def slow(recorder, records):
        if not begun:
            begun.append(records)
            barriers.attend([at("two calls and the commit", 3)])
        commit(recorder, records)

    monkeypatch.setattr(Recorder, "commit", slow)
    process = process_of(2)
    meetings = [
        [],
        [at("two calls and the commit", 3)],
        [at("two calls and the commit", 3)],
        [at("two", 2)],
        [at("two", 2)],
    ]
    if maps:
        process.map(KINDS[kind], meetings)
    else:
        for meeting in meetings:
            process.add_task(KINDS[kind], meeting)
    results = process.execute(run_id="a", journal=tmp_path / "runs.db")
    assert results == ([[1] * 5] if maps else [1] * 5)


LOCK = threading.Lock()
NOW, MOST, MADE = [0], [0], []


def counted(number):
    """Take note of how many such calls are being made."""
    with LOCK:
        NOW[0] += 1
        MOST[0] = max(MOST[0], NOW[0])
    with LOCK:
        NOW[0] -= 1
    return number


async def counted_async(number):
    with LOCK:
        NOW[0] += 1
        MOST[0] = max(MOST[0], NOW[0])
    await asyncio.sleep(0)
    with LOCK:
        NOW[0] -= 1
    return number


COUNTED = {"threads": counted, "coroutines": counted_async}


def many(function, workers, count, maps):
    """Return a process of so many calls, as tasks or as elements of a map, and its results."""
    process, expected = process_of(workers), list(range(count))
    if maps:
        process.map(function, expected)
        return process, [expected]
    for number in expected:
        process.add_task(function, number)
    return process, expected


@pytest.mark.parametrize("kind", ALONE)
@pytest.mark.parametrize("maps", [False, True], ids=["tasks", "elements"])
def test_never_more_than_max_workers_while_commits_go_on(kind, maps, tmp_path):
    """Also not when those come back whose place another has taken."""
    MOST[0] = 0
    process, expected = many(COUNTED[kind], 3, 400, maps)
    assert process.execute(run_id="a", journal=tmp_path / "runs.db") == expected
    assert 1 <= MOST[0] <= 3


def made(number):
    MADE.append(number)
    return number


async def made_async(number):
    return made(number)


@pytest.mark.parametrize("function", [made, made_async])
@pytest.mark.parametrize("maps", [False, True], ids=["tasks", "elements"])
def test_no_call_begins_while_too_much_is_not_committed(function, maps, tmp_path, monkeypatch):
    """A crash makes again what is in flight and at most 64 calls more, here of a second each."""
    commit, behind, gate = Recorder.commit, GroupCommit.behind.fget, threading.Event()
    counts = []

    def held(recorder, records):
        assert gate.wait(20), f"{len(MADE)} calls were made before one was committed"
        commit(recorder, [record._replace(duration=1.0) for record in records])

    def add(commits, record, then):
        add_as_ever(commits, record._replace(duration=1.0), then)

    def waiting(commits):
        if behind(commits):
            counts.append(len(MADE))
            gate.set()
        return behind(commits)

    add_as_ever = GroupCommit.add
    monkeypatch.setattr(Recorder, "commit", held)
    monkeypatch.setattr(GroupCommit, "add", add)
    monkeypatch.setattr(GroupCommit, "behind", property(waiting))
    MADE.clear()
    process, expected = many(function, 2, 200, maps)
    assert process.execute(run_id="a", journal=tmp_path / "runs.db") == expected
    assert 65 <= counts[0] <= 67


def made_slowly(number):
    time.sleep(0.001)
    return made(number)


@pytest.mark.parametrize("maps", [False, True], ids=["tasks", "elements"])
def test_a_coordinator_has_no_more_calls_made_than_a_crash_may_make_again(maps, tmp_path, monkeypatch):
    """Calls that travel together are so few that not too many have ended at any commit."""
    commit, committed, at_risk = Recorder.commit, [], []

    def counting(recorder, records):
        at_risk.append(len(MADE) - len(committed))
        commit(recorder, records)
        committed.extend(record for record in records if record.element >= 0 or not maps)

    monkeypatch.setattr(Recorder, "commit", counting)
    MADE.clear()
    process, expected = many(made_slowly, 8, 1600, maps)
    with ThreadPoolExecutor(8) as process.executor:
        assert process.execute(run_id="a", journal=tmp_path / "runs.db") == expected
    assert max(at_risk) <= 64 + 8
