"""Barriers that open only if so many calls are in flight at the same time, wherever they are made, and shapes to meet in.

    with hall() as at:
        meeting = at("all four", 4)
        process.map(attend, [[meeting]] * 4)          returns once four calls wait there at the same time

The barriers are in the test's own process; a call comes to one by a socket, from a thread, a coroutine, another process
or another machine. One that too few come to fails after 20 seconds, and says how many there were. The module imports
little, as every worker imports it.

A *shape* says of each task which earlier ones it takes. `add_shape` gives each call as many barriers as it lasts ticks
of an imaginary clock, and every barrier opens for exactly those calls that a schedule without idle workers has in flight
at that tick. So it ends only on an engine that never leaves a worker idle beside a task that is ready.
"""

import asyncio
import random
import socket
import threading
from collections import Counter
from contextlib import contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import NamedTuple

from tenacity import Retrying, stop_after_attempt, wait_none

from procession import TaskTimeoutError, current_task, task

PATIENCE_S = 20


class Meeting(NamedTuple):
    """Where calls meet: as many as `count`, by name. The next as many may meet there again."""

    address: tuple[str, int]
    name: str
    count: int


class NotMet(AssertionError):
    """Fewer calls were in flight at the same time than were to be."""


class Shut(Exception):
    """Nobody is let in, for now."""


# What calls do


def attend(meetings, *values):
    """Wait at each meeting in turn; return how many calls there are in a row up to this one."""
    for meeting in meetings:
        with socket.create_connection(meeting.address) as link:
            link.sendall(_asked(meeting))
            _heard(link.makefile().readline())
    return 1 + max(values, default=0)


async def attend_async(meetings, *values):
    """Do the same as a coroutine."""
    for meeting in meetings:
        reader, writer = await asyncio.open_connection(*meeting.address)
        try:
            writer.write(_asked(meeting))
            _heard((await reader.readline()).decode())
        finally:
            writer.close()
            await writer.wait_closed()
    return 1 + max(values, default=0)


def attend_at_last(meetings, *values):
    """Fail twice, then do the same."""
    if current_task().attempt < 3:
        raise ConnectionError("not yet")
    return attend(meetings, *values)


async def attend_at_last_async(meetings, *values):
    """Fail twice, then do the same as a coroutine."""
    if current_task().attempt < 3:
        raise ConnectionError("not yet")
    return await attend_async(meetings, *values)


def quick(value=None):
    return value


async def quick_async(value=None):
    return value


AT_LAST = {attend: attend_at_last, attend_async: attend_at_last_async}
QUICK = {attend: quick, attend_async: quick_async}


def _asked(meeting):
    return f"{meeting.count} {meeting.name}\n".encode()


def _heard(answer):
    if answer == "shut\n":
        raise Shut
    if answer != "met\n":
        raise NotMet(answer.strip() or "the hall was closed while calls waited for each other")


# The hall


class Hall(ThreadingTCPServer):
    """Where the barriers are. Called with a name and a number, it returns a meeting."""

    daemon_threads = False  # so that closing the hall waits for the threads of those who were in it
    request_queue_size = 1024

    def __init__(self, patience):
        super().__init__(("127.0.0.1", 0), _Guest)
        self.patience = patience
        self.shut = set()
        self.closed = False
        self.lock = threading.Lock()
        self.barriers = {}
        self.arrivals = Counter()

    def __call__(self, name, count):
        """Return a meeting of so many calls."""
        return Meeting(self.server_address, name, count)

    def arrived(self, meeting):
        """Take note of a call that has come; return the barrier of its meeting, and how many arrivals open it."""
        with self.lock:
            before = self.arrivals[meeting]
            self.arrivals[meeting] += 1
            barrier = self.barriers.setdefault(meeting, threading.Barrier(meeting.count))
            if self.closed:
                barrier.abort()
            return barrier, before - before % meeting.count + meeting.count

    def end(self):
        """Send everybody home."""
        self.shutdown()
        with self.lock:
            self.closed = True
            for barrier in self.barriers.values():
                barrier.abort()
        self.server_close()


class _Guest(StreamRequestHandler):
    """One call that waits."""

    timeout = PATIENCE_S  # for a call that was killed before it said where it wants to be

    def handle(self):
        hall = self.server
        count, _, name = self.rfile.readline().decode().strip().partition(" ")
        meeting, answer = hall(name, int(count)), "met"
        if name in hall.shut:
            self.wfile.write(b"shut\n")
            return
        barrier, enough = hall.arrived(meeting)
        try:
            barrier.wait(hall.patience)
        except threading.BrokenBarrierError:
            # A hall that is closed as soon as they have met breaks the barrier under those that have not left it yet.
            if hall.arrivals[meeting] < enough:
                waiting = hall.arrivals[meeting] % meeting.count
                answer = f"{waiting} of {count} calls were in flight together at {name!r}, and no more came"
        try:
            self.wfile.write(f"{answer}\n".encode())
        except OSError:
            pass  # the call has been ended meanwhile


@contextmanager
def hall(patience=PATIENCE_S):
    """Open a hall."""
    hall = Hall(patience)
    server = threading.Thread(target=hall.serve_forever, args=(0.01,), name="hall")
    server.start()
    try:
        yield hall
    finally:
        hall.end()
        server.join()


# Shapes: of each task, which earlier ones it takes


def fan_out(width):
    return [(), *[(0,)] * width]


def fan_in(width):
    return [*[()] * width, tuple(range(width))]


def beside(width):
    """One task that takes another's value, beside so many that take none."""
    return [(), (0,), *[()] * width]


def chains(count, length):
    return [(index - count,) if index >= count else () for index in range(count * length)]


def diamonds(count, width=2):
    """One after the other: each begins with one task, goes on with several, and ends in one."""
    needs = [()]
    for _ in range(count):
        first = len(needs) - 1
        needs += [(first,)] * width
        needs.append(tuple(range(first + 1, first + 1 + width)))
    return needs


def layers(*widths):
    """Each task takes all of the layer before."""
    needs = []
    for before, width in zip((0, *widths), widths, strict=False):
        needs += [tuple(range(len(needs) - before, len(needs)))] * width
    return needs


def generated(seed, count=24):
    chance = random.Random(seed)
    return [
        tuple(sorted(chance.sample(range(index), min(index, chance.choice((0, 0, 1, 1, 2, 3))))))
        for index in range(count)
    ]


SHAPES = {
    "fan-out": fan_out(5),
    "fan-in": fan_in(5),
    "plain tasks beside a chain": beside(4),
    "chains": chains(4, 3),
    "diamonds": diamonds(2, 3),
    "layers": layers(3, 5, 2, 4),
    **{f"generated {seed}": generated(seed) for seed in range(6)},
}


def depths(shape):
    """Return how many calls there are in a row up to each task: what `attend` returns there."""
    found = []
    for needs in shape:
        found.append(1 + max((found[need] for need in needs), default=0))
    return found


def add_shape(process_of, shape, at, attend, *, seed=None):
    """Return a process of that shape, of calls that meet; `process_of` makes it for so many workers.

    Several functions as `attend` take turns. With a seed, calls last one to three ticks, so that tasks become ready while others run; without, one each.
    """
    chance = random.Random(seed)
    lasts = [1 if seed is None else chance.randint(1, 3) for _ in shape]
    begins = []
    for needs in shape:
        begins.append(max((begins[need] + lasts[need] for need in needs), default=0))
    ticks = [range(begin, begin + last) for begin, last in zip(begins, lasts, strict=True)]
    flying = [sum(tick in some for some in ticks) for tick in range(max(some.stop for some in ticks))]
    process = process_of(max(flying))
    taken = {need for needs in shape for need in needs}
    handles = {}
    for index, needs in enumerate(shape):
        function = attend[index % len(attend)] if isinstance(attend, tuple) else attend
        call = (
            function,
            [at(f"tick {tick}", flying[tick]) for tick in ticks[index]],
            *(handles[need] for need in needs),
        )
        if index in taken:
            handles[index] = process.task(*call)
        else:
            process.add_task(*call)
    return process


# What no shape says: each makes a process by `process_of(workers)`, and returns it with what it comes to


def plain(at, attend, process_of):
    """As many plain tasks at a time as there are workers, again and again."""
    process = process_of(4)
    for _ in range(12):
        process.add_task(attend, [at("four", 4)])
    return process, [1] * 12


def after_quick_ones(at, attend, process_of):
    """Many tasks that take no time, then some that wait for each other."""
    process = process_of(4)
    for number in range(300):
        process.add_task(QUICK[attend], number)
    for _ in range(8):
        process.add_task(attend, [at("four", 4)])
    return process, [*range(300), *[1] * 8]


def among_quick_ones(at, attend, process_of):
    """The same, all mixed."""
    process = process_of(4)
    for number in range(300):
        process.add_task(attend, [at("four", 4)]) if number % 75 == 74 else process.add_task(QUICK[attend], number)
    return process, [1 if number % 75 == 74 else number for number in range(300)]


def mapped(at, attend, process_of):
    process = process_of(4)
    process.map(attend, [[at("four", 4)]] * 12)
    return process, [[1] * 12]


def mapped_after_quick_ones(at, attend, process_of):
    """A map of which most elements take no time."""
    process = process_of(4)
    process.map(attend, [[]] * 300 + [[at("four", 4)]] * 8)
    return process, [[1] * 308]


def mapped_lazily(at, attend, process_of):
    """A map over a generator."""
    process = process_of(4)
    process.map(attend, ([at("four", 4)] for _ in range(12)))
    return process, [[1] * 12]


def mapped_over_handles(at, attend, process_of):
    """A map over what another map, and a task, have returned."""
    process = process_of(8)
    first = process.map(QUICK[attend], [[at("first", 4)]] * 4)
    process.map(attend, first)
    process.map(attend, process.task(QUICK[attend], [[at("second", 4)]] * 4))
    return process, [[[at("first", 4)]] * 4, [1] * 4, [[at("second", 4)]] * 4, [1] * 4]


def maps_beside_tasks(at, attend, process_of):
    """Maps, a chain and plain tasks, all in flight together."""
    process = process_of(8)
    together, later = [at("eight", 8)], [at("then three", 3)]
    first = process.task(attend, together)
    process.map(attend, [together] * 2)
    process.map(attend, (together for _ in range(2)))
    process.add_task(attend, together)
    process.map(attend, [together] * 2)
    process.task(attend, later, first)
    process.task(attend, later, first)
    process.task(attend, later, first)
    return process, [1, [1] * 2, [1] * 2, 1, [1] * 2, 2, 2, 2]


def after_retries(at, attend, process_of):
    """Tasks, and elements of a map, that meet at their third attempt."""
    again = task(retries=Retrying(stop=stop_after_attempt(3), wait=wait_none()))(AT_LAST[attend])
    process = process_of(4)
    process.add_task(again, [at("four", 4)])
    process.add_task(again, [at("four", 4)])
    process.map(again, [[at("four", 4)]] * 2)
    return process, [1, 1, [1] * 2]


def after_timeouts(at, attend, process_of):
    """Two calls that are given up at their timeout, and then as many that meet as there are workers."""
    hung = task(timeout=0.2)(attend)
    process = process_of(2, on_error="return")
    process.add_task(hung, [at("never", 3)])
    process.add_task(hung, [at("never", 3)])
    process.add_task(attend, [at("two", 2)])
    process.add_task(attend, [at("two", 2)])
    return process, [TaskTimeoutError, TaskTimeoutError, 1, 1]


def nested(at, attend, process_of):
    """Two processes as tasks, of two calls each, all four in flight together."""
    process = process_of(2)
    for _ in range(2):
        inner = process_of(2)
        inner.add_task(attend, [at("four", 4)])
        inner.add_task(attend, [at("four", 4)])
        process.add_task(inner)
    return process, [[1, 1], [1, 1]]


def left_by_failures(at, attend, process_of):
    """Tasks that meet when the run goes on, beside some that are recorded; the first time, the hall is shut."""
    at.shut.add("four")
    process = process_of(4, on_error="continue")
    recorded = [process.task(QUICK[attend], number) for number in range(3)]
    process.add_task(attend, [at("four", 4)], *recorded)
    process.add_task(attend, [at("four", 4)])
    process.map(attend, [[], [at("four", 4)], [], [at("four", 4)]])
    return process, [0, 1, 2, 3, 1, [1] * 4]


def comes_to(results):
    """Return results with exceptions as their types, so that they can be compared."""
    return [type(result) if isinstance(result, Exception) else result for result in results]


SCENARIOS = {
    function.__name__: function
    for function in (
        plain,
        after_quick_ones,
        among_quick_ones,
        mapped,
        mapped_after_quick_ones,
        mapped_lazily,
        mapped_over_handles,
        maps_beside_tasks,
        after_retries,
        after_timeouts,
        nested,
    )
}
"""All that one execution shows; `left_by_failures` takes two."""
