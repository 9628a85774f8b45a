"""Threads that are interrupted all the time: everything still happens exactly once, in order, every time."""

import itertools
import random
import sys
import threading
import time

import pytest

from procession import Process, TaskSkippedError
from procession._engine.ledger import Ledger
from procession._model.strategy import Stage

pytestmark = pytest.mark.usefixtures("restless")

WORKERS = 8


def pass_on():
    """Let another thread go first, if one wants to."""
    time.sleep(0)


def graph(count, chance):
    """Return for each of so many tasks the ones it waits for."""
    return [sorted(chance.sample(range(index), min(index, chance.choice([0, 1, 1, 2, 4])))) for index in range(count)]


@pytest.mark.parametrize("strategy", ["parallel", "hybrid"])
def test_every_task_is_called_once_and_results_keep_their_places(strategy, rounds):
    """With eight workers who draw from the same list."""
    calls = []

    def work(number):
        calls.append(number)
        pass_on()
        return number

    process = Process("plain", strategy, WORKERS)
    for number in range(60):
        process.add_task(work, number)
    most = 0
    for _ in range(rounds(200)):
        calls.clear()
        assert process.execute() == list(range(60))
        assert sorted(calls) == list(range(60))
        if strategy == "hybrid":
            assert calls[:30] == list(range(30))
        most = max(most, len({outcome.worker for outcome in process.last_run.outcomes[30:]}))
    assert most > 1  # or nothing of this was put to the test


def test_a_task_finds_what_it_waits_for_done_and_written(rounds):
    """Under every interleaving it starts after them, once, and sees all that they wrote, through the values and beside."""
    for round_ in range(rounds(200)):
        needs = graph(40, random.Random(round_))
        written, calls = {}, []

        def work(index, values, written=written, calls=calls, needs=needs):
            calls.append(index)
            pass_on()
            assert [written[need] for need in needs[index]] == values
            written[index] = index + sum(values)
            return written[index]

        process = Process("graph", "parallel", WORKERS)
        handles = []
        for index, needed in enumerate(needs):
            handles.append(process.task(work, index, [handles[need] for need in needed]))
        results = process.execute()
        assert sorted(calls) == list(range(40))
        assert results == [written[index] for index in range(40)]
        assert results == [index + sum(results[need] for need in needs[index]) for index in range(40)]


def test_many_that_wait_for_many(rounds):
    """Of all that end, exactly one finds itself the last: what waits is made ready once.

    8 ──▶ 1 ──▶ 8 ──▶ 1 ──▶ 8
    """
    clock = itertools.count()

    def work(*_):
        start = next(clock)
        pass_on()
        return start, next(clock)

    process = Process("fan", "parallel", WORKERS)
    layers = [[process.task(work) for _ in range(8)]]
    for _ in range(2):
        layers.append([process.task(work, layers[-1])])
        layers.append([process.task(work, layers[-1][0]) for _ in range(8)])
    for _ in range(rounds(200)):
        clock = itertools.count()
        process.execute()
        assert next(clock) == 2 * (8 + 1 + 8 + 1 + 8)
        times = [[process.last_run[handle] for handle in layer] for layer in layers]
        for earlier, later in itertools.pairwise(times):
            assert max(end for _, end in earlier) < min(start for start, _ in later)


def test_a_map_draws_each_element_once_and_in_order(rounds):
    """A generator, which can't be entered by two at once, and a list that is known only when its task has ended."""
    for _ in range(rounds(200)):
        drawn, calls = [], []

        def lazy(drawn=drawn):
            for number in range(100):
                drawn.append(number)
                pass_on()
                yield number

        def work(number, calls=calls):
            calls.append(number)
            pass_on()
            return -number

        process = Process("map", "parallel", WORKERS)
        numbers = process.map(work, lazy())
        process.map(work, numbers)
        assert process.execute() == [[-number for number in range(100)], list(range(100))]
        assert drawn == list(range(100))
        assert sorted(calls) == sorted([*range(100), *(-number for number in range(100))])


@pytest.mark.parametrize("policy", ["stop", "return"])
def test_a_failure_among_many_is_told_as_it_was(policy, rounds):
    """What started has one outcome, what had not never starts, and nobody hangs."""
    for round_ in range(rounds(200)):
        chance = random.Random(round_)
        needs, failing, calls = graph(40, chance), chance.randrange(40), []

        def work(index, _, calls=calls, failing=failing):
            calls.append(index)
            pass_on()
            if index == failing:
                raise KeyError(index)
            return index

        process = Process("failure", "parallel", WORKERS, on_error=policy)
        handles = []
        for index, needed in enumerate(needs):
            handles.append(process.task(work, index, [handles[need] for need in needed]))
        lost = {failing}
        for index, needed in enumerate(needs):
            lost |= {index} if lost.intersection(needed) else set()
        if policy == "stop":
            with pytest.raises(KeyError) as caught:
                process.execute()
            assert caught.value.args == (failing,)
        else:
            results = process.execute()
            assert isinstance(results[failing], KeyError)
            assert {index for index, value in enumerate(results) if isinstance(value, TaskSkippedError)} == lost - {
                failing
            }
            assert sorted(calls) == sorted(set(range(40)) - lost | {failing})
        states = [outcome.state for outcome in process.last_run.outcomes]
        begun = [index for index, state in enumerate(states) if state != "skipped"]
        assert sorted(calls) == begun
        assert [index for index in begun if states[index] != "completed"] == [failing]
        assert not lost.intersection(begun) - {failing}


def test_the_ledger_hands_out_each_task_once_and_nothing_after_a_halt(rounds):
    """And never one before what it waits for. Whoever saw the halt before drawing finds nothing to draw."""
    for round_ in range(rounds(200)):
        needs = graph(60, random.Random(round_))
        ledger = Ledger(60, {index: tuple(needed) for index, needed in enumerate(needs) if needed}, "stop")
        halt = 30 if round_ % 2 else None
        claimed, late, early = [], [], []
        barrier = threading.Barrier(WORKERS)

        def work(ledger=ledger, needs=needs, claimed=claimed, late=late, early=early, barrier=barrier, halt=halt):
            barrier.wait(20)
            while len(claimed) < 60:
                halted = ledger.halted
                try:
                    index = ledger.claim()
                except IndexError:
                    if halted:
                        return
                    continue
                claimed.append(index)
                late += [index] if halted else []
                ledger.starts[index] = 0.0
                early += [need for need in needs[index] if ledger.ends[need] is None]
                if len(claimed) == halt:
                    ledger.fail(index, KeyError(index))
                    ledger.ends[index] = 1.0
                else:
                    ledger.ends[index] = 1.0
                    ledger.settle(index)

        ledger.open(Stage(0, 60, at_once=True))
        threads = [threading.Thread(target=work, daemon=True) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)
        assert len(claimed) == len(set(claimed))
        assert early == late == []
        assert not ledger.ready
        if halt is None:
            assert sorted(claimed) == list(range(60))
