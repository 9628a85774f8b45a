"""Coroutines that are cancelled: with their run, by the loop around it, by Ctrl-C."""

import asyncio
import contextlib
import threading
from functools import partial
from unittest import mock

import anyio
import pytest

from coroutines import STRATEGIES, Sleeper, at_once, awaited, every_strategy, executed, later, same, states, throw
from procession import Process, RunCancelledError, WorkersUnavailableError, current_task
from test_signals import Child, posix

pytestmark = pytest.mark.usefixtures("nothing_is_left")


# Cancelling


async def assert_nothing_runs():
    assert asyncio.all_tasks() == {asyncio.current_task()}


@every_strategy
def test_an_outer_timeout_stops_the_run(strategy):
    """Coroutines are cancelled for real, nothing new starts, and only the timeout's own error is seen."""

    async def main():
        sleeper, never = Sleeper(), mock.Mock()
        process = Process("limited", strategy, 1)
        process.add_task(later, 1)
        process.add_task(same, 2)
        process.add_task(sleeper)
        process.add_task(never)
        execution = asyncio.create_task(process.execute_async())

        async def limited():
            async with asyncio.timeout(None) as limit:
                while not sleeper.begun:
                    await asyncio.sleep(0.001)
                limit.reschedule(asyncio.get_running_loop().time())
                await execution

        with pytest.raises(TimeoutError):
            await limited()
        assert execution.cancelled()
        assert (sleeper.begun, sleeper.cancelled, never.call_count) == (1, 1, 0)
        assert (process.status, process.last_run.status) == ("failed", "cancelled")
        assert states(process.last_run) == ["completed", "completed", "cancelled", "cancelled"]
        await assert_nothing_runs()
        sleeper.begun = 5
        with pytest.raises(RunCancelledError):
            process.last_run.result()

    asyncio.run(main())


def test_a_cancelled_caller_waits_for_plain_functions_in_flight():
    """They can only be asked to stop; CancelledError leaves when they have."""

    async def main():
        def asked():
            begun.set()
            while not current_task().cancelled:
                threading.Event().wait(0.001)
            ended.append(True)

        for beside in ([], [Sleeper()]):
            begun, ended = threading.Event(), []
            process = Process("asked", "parallel", 3)
            process.add_task(asked)
            for sleeper in beside:
                process.add_task(sleeper)
            execution = asyncio.create_task(process.execute_async())
            while not begun.is_set():
                await asyncio.sleep(0.001)
            execution.cancel()
            with pytest.raises(asyncio.CancelledError):
                await execution
            assert ended == [True]
            assert process.last_run.status == "cancelled"
            await assert_nothing_runs()

    asyncio.run(main())


async def cleans_up(begun, go, ended):
    begun.set()
    try:
        await asyncio.Event().wait()
    finally:
        while not go.is_set():
            await asyncio.sleep(0)
        ended.append(True)


def goes_on(begun, go, ended):
    begun.set()
    ended.append(go.wait(20))


@pytest.mark.parametrize("function", [cleans_up, goes_on])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("way", ["execute", "block"])
def test_all_has_ended_when_a_scope_of_anyio_leaves(function, mapped, way):
    """It cancels again and again until the run has left; that is not taken for somebody's second thoughts."""
    begun, go, ended = threading.Event(), threading.Event(), []

    async def main():
        process = Process("scoped", "parallel", 2)
        if mapped:
            process.map(partial(function, begun, go), [ended])
        else:
            process.add_task(function, begun, go, ended)

        async def release(scope):
            while not begun.is_set():
                await asyncio.sleep(0)
            scope.cancel()
            for _ in range(100):
                await asyncio.sleep(0)
            go.set()

        with anyio.CancelScope() as scope:
            releasing = asyncio.create_task(release(scope))
            if way == "execute":
                await process.execute_async()
            else:
                async with process.start_async():
                    await anyio.sleep_forever()
        assert ended == [True]
        assert scope.cancelled_caught
        await releasing
        await assert_nothing_runs()

    anyio.run(main)


def test_a_second_cancellation_leaves_at_once():
    """Even a thread that hangs, and a coroutine that takes long to clean up."""

    async def main():
        release, begun, cleaning = threading.Event(), threading.Event(), []

        def hangs():
            begun.set()
            assert release.wait(30)

        async def cleans():
            try:
                await asyncio.Event().wait()
            finally:
                cleaning.append("begun")
                await asyncio.Event().wait()

        for functions in [hangs], [hangs, cleans]:
            begun.clear()
            process = Process("left", "parallel", 2)
            for function in functions:
                process.add_task(function)
            execution = asyncio.create_task(process.execute_async())
            while not begun.is_set():
                await asyncio.sleep(0.001)
            execution.cancel()
            while len(cleaning) < len(functions) - 1:
                await asyncio.sleep(0.001)
            await later(None, 5)
            assert not execution.done()
            execution.cancel()
            with pytest.raises(asyncio.CancelledError):
                await execution
            assert process.last_run.status == "cancelled"
            release.set()
        await later(None, 5)
        await assert_nothing_runs()

    asyncio.run(main())


@every_strategy
def test_a_run_is_cancelled_from_any_thread(strategy):
    """What waits never starts; coroutines end, however careless they are with exceptions."""
    sleeper = Sleeper(1 if strategy == "sequential" else 2)
    process = Process("cut", strategy, 2)
    process.add_task(later, 0)
    process.add_task(later, 1)
    process.add_task(sleeper)
    process.add_task(sleeper)
    process.add_task(later, 2)
    run = process.start()
    assert sleeper.all_here.wait(20)
    run.cancel()
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert sleeper.cancelled == sleeper.begun
    assert (run.status, process.status) == ("cancelled", "failed")
    assert states(run)[:2] == ["completed", "completed"]
    assert states(run)[2:] == ["cancelled"] * 3


def test_a_task_may_cancel_its_own_run():
    """Which ends it at its next wait, too."""
    process = Process("self", "parallel")

    async def cancels():
        process.last_run.cancel()
        await asyncio.Event().wait()

    process.add_task(cancels)
    process.add_task(Sleeper())
    with pytest.raises(RunCancelledError):
        process.execute()
    assert states(process.last_run) == ["cancelled"] * 2


def test_a_coroutine_that_succeeds_although_cancelled_has_succeeded():
    """Its value counts."""
    process = Process("stubborn")

    async def stubborn():
        process.last_run.cancel()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            return 7

    process.add_task(stubborn)
    with pytest.raises(RunCancelledError):
        process.execute()
    assert process.last_run.outcomes[0].value == 7


def test_a_cancellation_that_nobody_asked_for_is_a_failure_like_any_other():
    """A coroutine that waits for something which is cancelled raises CancelledError, and that leaves as itself."""
    process = Process("foreign", "parallel")

    async def waits():
        future = asyncio.get_running_loop().create_future()
        future.cancel("by somebody")
        await future

    process.add_task(waits)
    with pytest.raises(asyncio.CancelledError, match="by somebody"):
        process.execute()
    assert process.last_run.status == "failed"
    assert states(process.last_run) == ["failed"]


class Selfish(Exception):
    pass


@pytest.mark.parametrize("mapped", [True, False])
def test_a_coroutine_that_cancels_itself_harms_no_other(mapped):
    """Whichever worker has the next one: a cancellation that comes too late is for nobody."""

    async def selfish(number):
        me = asyncio.current_task()
        assert me.cancelling() == 0
        if number % 4 == 0:
            me.cancel()  # and ends before it comes
        elif number % 4 == 2:
            me.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(0)
            with pytest.raises(ExceptionGroup):
                async with asyncio.TaskGroup() as group:
                    group.create_task(throw(Selfish()))
                    await asyncio.Event().wait()
        return number

    process = Process("selfish", "parallel", 1)
    if mapped:
        process.map(selfish, range(12))
        assert process.execute() == [list(range(12))]
    else:
        for number in range(12):
            process.add_task(selfish, number)
        assert process.execute() == list(range(12))


@pytest.mark.parametrize("mapped", [True, False])
def test_whoever_cancels_every_task_of_the_loop_stops_the_run(mapped):
    """As a program does that shuts down. Plain functions in flight are waited for even then."""

    async def main():
        begun, ended = threading.Event(), []

        def plain(_=None):
            begun.set()
            while not current_task().cancelled:
                threading.Event().wait(0.001)
            ended.append(True)

        sleeper = Sleeper()
        process = Process("swept", "parallel", 3)
        process.add_task(plain)
        process.add_task(at_once, 1)
        if mapped:
            process.map(sleeper, iter([1]))
        else:
            process.add_task(sleeper)
        execution = asyncio.create_task(process.execute_async())
        while not (begun.is_set() and sleeper.begun):
            await asyncio.sleep(0.001)
        for each in asyncio.all_tasks() - {asyncio.current_task()}:
            each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await execution
        assert (ended, sleeper.cancelled) == ([True], 1)
        assert process.status == "failed"
        await assert_nothing_runs()

    asyncio.run(main())


def test_plain_functions_without_a_thread_fail_plainly(monkeypatch):
    """Where the system has none left: the run ends, and can be tried again."""

    def refuse(self):
        raise RuntimeError("can't start new thread")

    process = Process("scarce", "parallel", 2)
    process.add_task(later, 1)
    process.add_task(same, 2)
    process.map(later, iter([3]))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for way in executed, awaited:
            with pytest.raises(WorkersUnavailableError, match="scarce.*no thread could be started"):
                way(process)
        process.map(later, [4])
    process = Process("again", "parallel", 2)
    process.add_task(later, 1)
    process.add_task(same, 2)
    assert process.execute() == [1, 2]


def test_plain_functions_share_the_threads_there_are(monkeypatch):
    """Where the system has but one."""
    start, started = threading.Thread.start, []

    def start_one(self):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    process = Process("scarce", "parallel", 8)
    for number in range(0, 40, 2):
        process.add_task(later, number)
        process.add_task(same, number + 1)
    monkeypatch.setattr(threading.Thread, "start", start_one)
    assert process.execute() == list(range(40))
    assert len(started) == 1


# Ctrl-C


ASYNC_PRELUDE = """
import asyncio

async def stuck(value=None):
    # Ends by a cancellation, and says so.
    begun.append(value)
    if len(begun) == expected:
        asyncio.get_running_loop().call_soon(ready)
    try:
        await asyncio.Event().wait()
    except BaseException as error:
        say(type(error).__name__)
        raise

async def stubborn():
    begun.append(None)
    if len(begun) == expected:
        ready()
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            asyncio.get_running_loop().call_soon(say, "no")

begun = []
"""


@posix
@pytest.mark.parametrize("way", ["process.execute()", "asyncio.run(process.execute_async())"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ctrl_c_cancels_coroutines(strategy, way):
    """And nothing new starts; KeyboardInterrupt is raised, the outcomes can be read, no thread is left."""
    with Child(
        ASYNC_PRELUDE
        + f"""
expected = {1 if strategy == "sequential" else 2}
process = Process("cut", {strategy!r}, 2)
process.add_task(int, 7)
process.add_task(int, 8)
process.add_task(stuck)
process.add_task(stuck)
process.add_task(print, "never")
try:
    {way}
except KeyboardInterrupt:
    say("caught", process.status, process.last_run.status)
run = process.last_run
say([outcome.state for outcome in run.outcomes])
say([thread.name for thread in threading.enumerate()])
process = Process("another")
process.add_task(asyncio.sleep, 0, 5)
say(process.execute(), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    ) as child:
        child.expect("ready")
        child.interrupt()
        child.expect(*["CancelledError"] * (1 if strategy == "sequential" else 2))
        child.expect("caught failed cancelled")
        child.expect(str(["completed"] * 2 + ["cancelled"] * 3))
        assert child.rest() == (0, "['MainThread']\n[5] True\n", "")


@posix
@pytest.mark.parametrize("loop", ["own", "notebook"])
@pytest.mark.parametrize("kind", ["coroutine", "thread"])
def test_ctrl_c_twice_leaves_at_once(kind, loop):
    """A coroutine that ignores it, and a thread that hangs; the interpreter exits without a word of complaint."""
    with Child(
        ASYNC_PRELUDE
        + f"""
expected = 1

def hangs():
    begun.append(None)
    ready()
    try:
        current_task().sleep(50)
    except TaskCancelled:
        say("no")
    threading.Event().wait()

async def quick():
    return 1

async def kernel():
    exec(compile("process.execute()", "<cell>", "exec"), globals())

process = Process("twice", "parallel", 3)
process.add_task(quick)
process.add_task({"stubborn" if kind == "coroutine" else "hangs"})
try:
    {"process.execute()" if loop == "own" else "asyncio.new_event_loop().run_until_complete(kernel())"}
except KeyboardInterrupt:
    say("caught", process.status, process.last_run.status, process.last_run.outcomes[0].value)
"""
    ) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("no")
        child.interrupt()
        code, out, err = child.rest()
        assert out.replace("no\n", "").splitlines() == ["caught failed cancelled 1"]
        assert code == 0
        assert err == ""


@posix
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_programs_own_handler_may_raise(strategy):
    """As for SIGTERM: what it raises right inside the loop stops the run as Ctrl-C does."""
    with Child(
        ASYNC_PRELUDE
        + f"""
expected = 1 if {strategy!r} == "sequential" else 2

class Terminated(KeyboardInterrupt):
    pass

def handler(*_):
    raise Terminated

signal.signal(signal.SIGINT, handler)
process = Process("handled", {strategy!r}, 2)
process.add_task(int)
process.add_task(int)
process.add_task(stuck)
process.add_task(stuck)
process.add_task(print, "never")
try:
    process.execute()
except Terminated:
    say("caught", process.status, process.last_run.status)
"""
    ) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("CancelledError")
        if strategy != "sequential":
            child.expect("CancelledError")
        child.expect("caught failed cancelled")
        assert child.rest() == (0, "", "")


@posix
def test_what_runs_is_let_end_where_a_handler_raised():
    """As where Ctrl-C came: a plain function in flight is waited for."""
    with Child(
        ASYNC_PRELUDE
        + """
expected = 1

def handler(*_):
    raise KeyboardInterrupt

def asked():
    told()
    say("left" if gone.wait(0.5) else "waited for")

gone = threading.Event()
signal.signal(signal.SIGINT, handler)
process = Process("handled", "parallel", 2)
process.add_task(asked)
process.add_task(stuck)
try:
    process.execute()
except KeyboardInterrupt:
    gone.set()
    say("caught", [outcome.state for outcome in process.last_run.outcomes])
"""
    ) as child:
        child.expect("ready")
        child.interrupt()
        assert {child.popen.stdout.readline() for _ in range(2)} == {"told\n", "CancelledError\n"}
        child.expect("waited for", "caught ['completed', 'cancelled']")
        assert child.rest() == (0, "", "")


@posix
def test_ctrl_c_in_a_nested_process_ends_all():
    """A process with coroutines, called as a task of another in the main thread."""
    with Child(
        ASYNC_PRELUDE
        + """
expected = 1
inner, outer = Process("inner", "parallel"), Process("outer")
inner.add_task(stuck)
outer.add_task(inner)
outer.add_task(say, "never")
try:
    outer.execute()
except KeyboardInterrupt:
    say(inner.last_run.status, outer.last_run.status)
"""
    ) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("CancelledError", "cancelled cancelled")
        assert child.rest() == (0, "", "")
