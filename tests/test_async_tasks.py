"""Each coroutine in an asyncio task of its own, and pauses between attempts that hold no slot."""

import asyncio
import contextvars
import weakref

import anyio
import pytest
import tenacity

from coroutines import Sleeper, awaited, executed, later, states
from procession import Process, current_task, task

pytestmark = pytest.mark.usefixtures("nothing_is_left")

either_way = pytest.mark.parametrize("way", [executed, awaited])
either_kind = pytest.mark.parametrize("mapped", [False, True], ids=["tasks", "elements"])


def process_of(function, count, workers, *, mapped, **options):
    process = Process("each", "parallel", workers, **options)
    if mapped:
        process.map(function, range(count))
    else:
        for number in range(count):
            process.add_task(function, number)
    return process


def results_of(way, process, *, mapped):
    results = way(process)
    return results[0] if mapped else results


def flaky_rules(attempts):
    return tenacity.Retrying(stop=tenacity.stop_after_attempt(attempts), wait=tenacity.wait_none())


# asyncio tasks


@either_way
@either_kind
@pytest.mark.parametrize("options", [{}, {"timeout": 30}, {"retries": 1}, {"retries": flaky_rules(1)}])
def test_each_coroutine_is_an_asyncio_task_of_its_own(way, mapped, options):
    """What a program keeps by asyncio task is nobody else's."""
    kept, seen = weakref.WeakKeyDictionary(), []

    async def keeps(number):
        mine = kept.setdefault(asyncio.current_task(), [])
        mine.append(number)
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        assert asyncio.current_task() is seen[number]
        return list(mine)

    process = process_of(task(**options)(keeps) if options else keeps, 8, 1, mapped=mapped)
    assert results_of(way, process, mapped=mapped) == [[number] for number in range(8)]
    assert len(set(seen)) == 8


@either_kind
@pytest.mark.parametrize("rules", [lambda: 2, lambda: flaky_rules(3)], ids=["number", "rules"])
def test_each_attempt_is_an_asyncio_task_of_its_own(mapped, rules):
    """Its number is that of the attempt, and its context variables are its own."""
    seen, variable = [], contextvars.ContextVar("variable", default="clean")

    @task(retries=rules())
    async def flaky(_):
        seen.append((asyncio.current_task(), current_task().attempt, variable.get()))
        variable.set("soiled")
        await asyncio.sleep(0)
        if len(seen) < 3:
            raise ConnectionError
        return "well"

    process = process_of(flaky, 1, 2, mapped=mapped)
    assert results_of(executed, process, mapped=mapped) == ["well"]
    assert [attempt for _, attempt, _ in seen] == [1, 2, 3]
    assert {value for _, _, value in seen} == {"clean"}
    assert len({mine for mine, _, _ in seen}) == 3
    assert process.last_run.outcomes[0].attempts == 3


@either_way
@either_kind
def test_a_context_variable_is_not_seen_by_the_next_coroutine(way, mapped):
    """Nor by one that runs at the same time."""
    variable = contextvars.ContextVar("variable", default="clean")

    async def sets(number):
        before = variable.get()
        variable.set(number)
        await asyncio.sleep(0)
        return before, variable.get()

    process = process_of(sets, 6, 2, mapped=mapped)
    assert results_of(way, process, mapped=mapped) == [("clean", number) for number in range(6)]


@either_kind
def test_a_coroutine_that_is_cancelled_before_it_begins_is_seen_to(mapped):
    """By whoever cancels all tasks of the loop: the run ends, and says so."""
    began = []

    async def begins(number):
        began.append(number)

    async def main():
        process = process_of(begins, 1, 1, mapped=mapped)
        execution = asyncio.create_task(process.execute_async())
        me = asyncio.current_task()
        while not (new := asyncio.all_tasks() - {me, execution}):
            await asyncio.sleep(0)
        for each in new:
            each.cancel()
        with pytest.raises(asyncio.CancelledError):
            await execution
        assert states(process.last_run) == ["failed"]

    asyncio.run(main())
    assert began == []


@either_way
@either_kind
def test_a_coroutine_that_cancels_its_asyncio_task_fails_alone(way, mapped):
    """As under gather: the others succeed."""

    async def selfish(number):
        if number == 1:
            asyncio.current_task().cancel("selfish")
        await asyncio.sleep(0)
        assert asyncio.current_task().cancelling() == 0
        return number

    process = process_of(selfish, 4, 4, mapped=mapped, on_error="continue")
    with pytest.raises(asyncio.CancelledError, match="selfish"):
        way(process)
    if not mapped:
        assert states(process.last_run) == ["completed", "failed", "completed", "completed"]


@either_way
@either_kind
def test_scopes_and_groups_work_inside_a_coroutine(way, mapped):
    """Those of asyncio and of anyio, as under gather."""

    async def scoped(number):
        if number % 3 == 0:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await asyncio.Event().wait()
        elif number % 3 == 1:
            with anyio.move_on_after(0.001) as scope:
                await asyncio.Event().wait()
            assert scope.cancelled_caught
        else:
            async with asyncio.TaskGroup() as group:
                parts = [group.create_task(later(part)) for part in range(3)]
            assert [part.result() for part in parts] == [0, 1, 2]
        await asyncio.sleep(0)
        assert asyncio.current_task().cancelling() == 0
        return number

    process = process_of(scoped, 9, 3, mapped=mapped)
    assert results_of(way, process, mapped=mapped) == list(range(9))


@either_kind
def test_coroutines_that_never_wait_leave_the_loop_to_others(mapped):
    """Another task of the caller's loop gets its turn while they go on."""

    async def main():
        turns = []

        async def at_once(number):
            return len(turns)

        async def other():
            while True:
                turns.append(None)
                await asyncio.sleep(0)

        beside = asyncio.create_task(other())
        process = process_of(at_once, 1000, 4, mapped=mapped)
        await process.execute_async()
        beside.cancel()
        assert len(turns) > 20

    asyncio.run(main())


# Pauses


@either_way
@either_kind
def test_a_pause_between_attempts_holds_no_slot(way, mapped):
    """Two that pause leave both slots to four others, and only go on when these have ended."""
    ended, pausing = [], []

    class Pauses(tenacity.wait.wait_base):
        def __call__(self, retry_state):
            pausing.append(retry_state)
            return 0 if len(ended) == 4 else 0.01

    def not_yet(retry_state):
        return len(ended) < 4

    @task(retries=tenacity.Retrying(wait=Pauses(), retry=not_yet))
    async def waits(_):
        return "in the end"

    async def other(number):
        while len(pausing) < 2:
            await asyncio.sleep(0)
        ended.append(number)
        return number

    process = Process("paused", "parallel", 2)
    if mapped:
        process.map(waits, range(2))
    else:
        process.add_task(waits, 0)
        process.add_task(waits, 1)
    for number in range(4):
        process.add_task(other, number)
    results = way(process)
    assert results[-4:] == list(range(4))
    assert results[:-4] == ([["in the end"] * 2] if mapped else ["in the end"] * 2)


def test_nothing_else_starts_during_a_pause_in_order():
    """That is what in order means."""
    order = []

    @task(retries=1)
    async def flaky():
        order.append("flaky")
        if len(order) == 1:
            raise ConnectionError

    async def after():
        order.append("after")

    process = Process("ordered")
    process.add_task(flaky)
    process.add_task(after)
    process.execute()
    assert order == ["flaky", "flaky", "after"]


@pytest.mark.parametrize("workers", [2, 20])
@pytest.mark.parametrize("lazy", [list, iter], ids=["list", "iterator"])
def test_a_map_whose_calls_all_pause_draws_no_more_than_its_bound(workers, lazy):
    """A service that fails does not make it draw its whole source."""
    bound, drawn, begun = max(64, 4 * workers), [], []

    def source():
        for number in range(1000):
            drawn.append(number)
            yield number

    @task(retries=tenacity.Retrying(wait=tenacity.wait_fixed(10_000), stop=tenacity.stop_never))
    async def fails(number):
        begun.append(number)
        if len(begun) == bound:
            asyncio.get_running_loop().call_later(0.05, process.last_run.cancel)
        raise ConnectionError(number)

    process = Process("failing", "parallel", workers, on_error="continue")
    process.map(fails, source() if lazy is iter else list(range(1000)))
    with pytest.raises(BaseException):  # noqa: B017, PT011 - whichever of its elements it names
        process.execute()
    assert begun == list(range(bound))
    assert len(drawn) == (bound if lazy is iter else 0)


@either_kind
def test_halting_ends_what_pauses(mapped):
    """At once, with what its last attempt raised."""
    pausing = []

    @task(
        retries=tenacity.Retrying(
            wait=tenacity.wait_fixed(10_000), stop=tenacity.stop_never, before_sleep=lambda _: pausing.append(None)
        )
    )
    async def fails(number):
        raise ConnectionError(number)

    async def halts():
        while len(pausing) < 3:
            await asyncio.sleep(0)
        raise EOFError

    process = process_of(fails, 3, 4, mapped=mapped)
    process.add_task(halts)
    with pytest.raises(EOFError):
        process.execute()
    assert [type(outcome.error) for outcome in process.last_run.outcomes] == [ConnectionError] * (
        1 if mapped else 3
    ) + [EOFError]
    assert {outcome.attempts for outcome in process.last_run.outcomes} == {1}


# Turns


def test_maps_and_tasks_have_their_turns():
    """A long map keeps no task from starting, nor does it wait for all of them."""
    ended = []

    async def element(number):
        ended.append(("map", number))
        await asyncio.sleep(0)

    async def other(number):
        ended.append(("task", number))

    process = Process("turns", "parallel", 2)
    process.map(element, range(500))
    for number in range(500):
        process.add_task(other, number)
    process.map(element, range(500, 1000))
    process.execute()
    kinds = [kind for kind, _ in ended]
    assert "task" in kinds[:100]
    assert "map" in kinds[:100]
    assert len(ended) == 1500


def test_more_elements_start_while_slots_are_free():
    """As many as there are workers, beside tasks of both kinds."""
    sleeper = Sleeper(6)
    process = Process("full", "parallel", 6)
    process.map(sleeper, range(2))
    process.map(sleeper, iter(range(2)))
    process.add_task(sleeper)
    process.add_task(len, "plain")
    process.add_task(sleeper)
    run = process.start()
    assert sleeper.all_here.wait(20)
    run.cancel()
    assert not run.wait(0) or run.status == "cancelled"
    run.wait(20)
    assert sleeper.cancelled == 6
