"""The ledger, driven step by step without a thread or a clock, against the rules as one would say them."""

from collections import deque
from typing import NamedTuple

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from procession import Hybrid, Parallel, Sequential, TaskCancelled
from procession._engine.ledger import Ledger
from procession._model.strategy import Stage
from procession._plan.plan import plan_of

STRATEGIES = st.sampled_from([Sequential(), Parallel(), Hybrid()]) | st.builds(Hybrid, st.integers(0, 12))
POLICIES = st.sampled_from(["stop", "continue", "return"])
NEVER_STARTED = {"waiting", "skipped"}
ERRORS = st.sampled_from([KeyError, KeyError, ValueError, KeyboardInterrupt, SystemExit])


# The rules


class Rules:
    """Which tasks may start, what stopped the run, and how each task stands when all is over."""

    def __init__(self, before, policy, done):
        self.before = before  # task → every task that must have succeeded before it starts
        self.policy = policy
        self.states = ["completed" if index in done else "waiting" for index in range(len(before))]
        self.failure = None
        self.halted = self.cancelled = False

    def may_start(self):
        return [
            index
            for index, state in enumerate(self.states)
            if state == "waiting" and not self.halted and all(self.states[n] == "completed" for n in self.before[index])
        ]

    def fail(self, index, error):
        self.states[index] = "failed"
        if isinstance(error, KeyboardInterrupt):
            self.cancelled = True
        if self.policy == "stop" or not isinstance(error, Exception):
            self.halted = True
            # Who cancels knows why the run ends: no other error is the reason any more, but Ctrl-C itself is.
            if not self.cancelled or isinstance(error, KeyboardInterrupt):
                self.failure = self.failure or error
        elif not self.halted:
            for other, state in enumerate(self.states):
                if state == "waiting" and self.lost(other):
                    self.states[other] = "skipped"

    def interrupt(self, error):
        self.halted = True
        self.cancelled = self.cancelled or isinstance(error, KeyboardInterrupt)
        self.failure = self.failure or error

    def cancel(self):
        self.halted = self.cancelled = True

    def well(self):
        return not self.halted and "failed" not in self.states

    def ends(self, index):
        """How the task stands at the end."""
        never = "cancelled" if self.cancelled else "skipped"
        return never if self.states[index] == "waiting" else self.states[index]

    def lost(self, index):
        """Whether something that the task waits for did not succeed, or never will."""
        return any(
            self.states[n] in ("failed", "cancelled", "skipped") or (self.states[n] == "waiting" and self.lost(n))
            for n in self.before[index]
        )


def before_each(needs, strategy):
    """Say for each task, from the strategy alone, which tasks must have succeeded before it starts."""
    count = len(needs)
    if isinstance(strategy, Parallel):
        first = 0
    elif isinstance(strategy, Sequential):
        first = count
    else:
        first = count // 2 if strategy.first is None else min(strategy.first, count)
    return [
        set(range(index)) if index < first else set(range(first)) | set(needed) for index, needed in enumerate(needs)
    ]


# A run without anybody who runs


class Script(NamedTuple):
    """What a run is to come to, but for the order in which things happen."""

    needs: list
    strategy: object
    policy: str
    workers: int
    errors: dict  # task → the type of what it raises
    done: set  # tasks that succeeded in an earlier execution
    nuisances: dict  # step → what happens from outside at that moment


@st.composite
def scripts(draw):
    wishes = draw(st.lists(st.sets(st.integers(0, 30), max_size=3), min_size=1, max_size=10))
    needs = [sorted({wish % index for wish in wished}) if index else [] for index, wished in enumerate(wishes)]
    places = st.integers(0, len(needs) - 1)
    return Script(
        needs=needs,
        strategy=draw(STRATEGIES),
        policy=draw(POLICIES),
        workers=draw(st.integers(1, 4)),
        errors=draw(st.dictionaries(places, ERRORS, max_size=4)),
        done=draw(st.just(set()) | st.sets(places)),
        nuisances=draw(
            st.just({})
            | st.dictionaries(
                st.integers(0, 10), st.sampled_from(["cancel", KeyboardInterrupt, MemoryError]), max_size=3
            )
        ),
    )


class Drive:
    """Moves a ledger as an engine does, stage by stage, and the rules beside it; after each step they must agree."""

    def __init__(self, script):
        needs = {index: tuple(needed) for index, needed in enumerate(script.needs) if needed}
        calls = [(len, ("",), {})] * len(script.needs)
        plan = plan_of(calls, script.strategy, options={}, needs=needs, handled=set(range(len(calls))))
        left = {
            index: tuple(n for n in needed if n not in script.done)
            for index, needed in plan.edges.items()
            if index not in script.done
        }
        edges = {index: needed for index, needed in left.items() if needed}
        self.script = script
        self.ledger = Ledger(len(calls), edges, script.policy, done=script.done)
        self.rules = Rules(before_each(script.needs, script.strategy), script.policy, script.done)
        for index in script.done:
            self.ledger.ends[index] = 0.0
        self.time = 0.0
        self.in_flight = []
        self.claimed = []
        self.stages = list(plan.stages)
        self.at_once = False
        self.check()

    def check(self):
        ledger, rules = self.ledger, self.rules
        while self.stages and not ledger.ready and not self.in_flight and ledger.well:
            stage = self.stages.pop(0)
            self.at_once = stage.at_once
            assert ledger.open(stage) == len(ledger.ready)
        offered = list(ledger.ready)
        if not self.at_once:
            offered = [] if self.in_flight else offered[:1]
        assert sorted(offered) == rules.may_start()
        assert ledger.failure is rules.failure
        assert ledger.cancelled == rules.cancelled
        assert ledger.well == rules.well()
        for index, state in enumerate(rules.states):
            # In order, a failure ends the run: what comes after it is skipped when that is over.
            assert ledger.state(index) == state or (ledger.halted and {ledger.state(index), state} == NEVER_STARTED)

    def moves(self):
        """Everything that may happen next."""
        limit = self.script.workers if self.at_once else 1
        moves = [("claim", None)] if self.ledger.ready and len(self.in_flight) < limit else []
        moves += [("end", index) for index in self.in_flight]
        if self.ledger.halted:
            moves += [("stop", index) for index in self.in_flight]
        return moves

    def make(self, move, index):
        self.time += 1.0
        getattr(self, move)(index)
        self.check()

    def claim(self, _):
        index = self.ledger.ready.popleft()
        assert index in self.rules.may_start()
        self.ledger.starts[index] = self.time
        self.rules.states[index] = "running"
        self.in_flight.append(index)
        self.claimed.append(index)

    def end(self, index):
        self.in_flight.remove(index)
        if index in self.script.errors:
            error = self.script.errors[index](index)
            self.ledger.fail(index, error, in_order=not self.at_once)
            self.ledger.fail(index, KeyboardInterrupt("the first one counts"), in_order=not self.at_once)
            self.ledger.ends[index] = self.time
            self.rules.fail(index, error)
            assert self.ledger.errors[index] is error
            return
        before = list(self.ledger.ready)
        self.ledger.values[index], self.ledger.ends[index] = index, self.time
        freed = self.ledger.settle(index)
        self.rules.states[index] = "completed"
        if self.at_once and not self.rules.halted:
            # Last in line, and in the order added.
            new = [other for other in self.rules.may_start() if other not in before]
            assert list(self.ledger.ready) == before + new
            assert freed == len(new)

    def stop(self, index):
        self.in_flight.remove(index)
        self.ledger.stop(index)
        self.ledger.ends[index] = self.time
        self.rules.states[index] = "cancelled"

    def disturb(self, nuisance):
        if nuisance == "cancel":
            assert self.ledger.cancel() is not self.rules.cancelled
            self.rules.cancel()
        else:
            error = nuisance("from outside")
            self.ledger.interrupt(error)
            self.rules.interrupt(error)
        self.check()

    def finish(self):
        self.ledger.finish()
        assert not self.ledger.ready
        assert len(self.claimed) == len(set(self.claimed))
        assert sorted(self.claimed) == [i for i, start in enumerate(self.ledger.starts) if start is not None]
        for index in range(len(self.script.needs)):
            assert self.ledger.state(index) == self.rules.ends(index)
        failed = [index for index, state in enumerate(self.rules.states) if state == "failed"]
        assert sorted(self.ledger.errors) == failed
        before = [self.ledger.state(index) for index in range(len(self.script.needs))]
        assert not self.ledger.cancel()  # too late
        assert [self.ledger.state(index) for index in range(len(self.script.needs))] == before


@settings(derandomize=True, deadline=None, max_examples=1000)
@given(scripts(), st.data())
def test_the_ledger_keeps_to_the_rules_in_every_interleaving(script, data):
    """What may start, how it ends and what stopped the run follow from the rules, whatever happens when."""
    drive = Drive(script)
    step = 0
    while moves := drive.moves():
        if step in script.nuisances:
            note(f"from outside: {script.nuisances[step]}")
            drive.disturb(script.nuisances[step])
        else:
            drive.make(*data.draw(st.sampled_from(moves)))
        step += 1
    drive.finish()


# What the steps above do not reach


def drawn(ledger):
    """Return the order in which a single worker draws everything."""
    order = []
    while ledger.ready:
        index = ledger.ready.popleft()
        ledger.starts[index] = ledger.ends[index] = float(len(order))
        order.append(index)
        ledger.settle(index)
    return order


def test_what_becomes_ready_stands_last_in_line():
    """In the order added, so that chains side by side get on evenly.

    0 ──▶ 2 ──▶ 4 ──▶ 6
    │     └──▶ 5 ─────┘
    └──▶ 3
    1
    """
    ledger = Ledger(7, {2: (0,), 3: (0,), 4: (2,), 5: (2,), 6: (4, 5)}, "stop")
    ledger.open(Stage(0, 7, at_once=True))
    assert list(ledger.ready) == [0, 1]
    assert drawn(ledger) == [0, 1, 2, 3, 4, 5, 6]


def test_what_takes_values_that_are_released_stands_first_in_line():
    """So that they are: each chain goes on before another one begins.

    0 ──▶ 3 ──▶ 6
    1 ──▶ 4 ──▶ 7
    2 ──▶ 5
    └───────▶ 8
    """
    edges = {3: (0,), 4: (1,), 5: (2,), 6: (3,), 7: (4,), 8: (2,)}
    ledger = Ledger(9, edges, "stop", first={3, 4, 5, 6, 7})
    ledger.open(Stage(0, 9, at_once=True))
    assert drawn(ledger) == [0, 3, 6, 1, 4, 7, 2, 5, 8]


@pytest.mark.parametrize("halt", ["cancel", "interrupt", "fail"])
def test_a_stage_does_not_open_once_halted(halt):
    """Who stops a run between two stages, or before the first, stops it for good."""
    ledger = Ledger(3, {}, "stop")
    if halt == "cancel":
        ledger.cancel()
    elif halt == "interrupt":
        ledger.interrupt(KeyboardInterrupt())
    else:
        ledger.fail(0, KeyError())
    assert not ledger.well
    assert ledger.open(Stage(1, 3, at_once=True)) == 0
    assert list(ledger.ready) == []


@pytest.mark.parametrize("policy", ["stop", "continue", "return"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, TaskCancelled])
def test_what_is_no_exception_halts_under_every_policy(policy, error):
    """It is a request to the program and not a result."""
    ledger = Ledger(3, {}, policy)
    ledger.open(Stage(0, 3, at_once=True))
    ledger.starts[ledger.ready.popleft()] = 0.0
    ledger.fail(0, error())
    assert (ledger.halted, type(ledger.failure), list(ledger.ready)) == (True, error, [])
    assert ledger.cancelled == (error is KeyboardInterrupt)


@pytest.mark.parametrize("halt", [Ledger.cancel, lambda ledger: ledger.interrupt(KeyError())])
def test_who_sees_the_halt_finds_nothing_to_draw(halt):
    """Not even in the moment in which the run is being halted."""
    left = []

    class Watched(deque):
        def clear(self):
            left.append(ledger.halted)
            super().clear()
            left.append(ledger.halted)

    ledger = Ledger(3, {}, "stop")
    ledger.ready = Watched()
    ledger.open(Stage(0, 3, at_once=True))
    halt(ledger)
    assert left == [False, False]
    assert (ledger.halted, list(ledger.ready)) == (True, [])


@pytest.mark.parametrize("edges", [{1: (0,)}, {1: (0,), 2: (0,)}])
def test_what_becomes_ready_after_a_halt_is_never_offered(edges):
    """Not even for the moment in which a worker could take it."""
    offered = []

    class Watched(deque):
        def append(self, index):
            offered.append(index)
            super().append(index)

        def appendleft(self, index):
            offered.append(index)
            super().appendleft(index)

        def extend(self, indexes):
            for index in indexes:
                offered.append(index)
                super().append(index)

        def extendleft(self, indexes):
            for index in indexes:
                self.appendleft(index)

    ledger = Ledger(3, edges, "stop")
    ledger.ready = Watched()
    ledger.open(Stage(0, 3, at_once=True))
    ledger.starts[ledger.ready.popleft()] = 0.0
    offered.clear()  # of those that the stage had ready
    ledger.cancel()
    ledger.settle(0)
    assert offered == list(ledger.ready) == []


EDGES = pytest.mark.parametrize("edges", [{1: (0,)}, {1: (0,), 2: (0,)}, {1: (0, 3), 2: (0, 3)}])


@EDGES
def test_what_is_made_ready_while_the_run_is_halted_cannot_be_claimed(edges):
    """The halt comes between the look at it and the append: for that moment something is ready, and nobody gets it."""
    claimed = []

    class Halting(deque):
        def _halt_before(self, add, given):
            ledger.cancel()
            add(given)
            with pytest.raises(IndexError):
                claimed.append(ledger.claim())
            add(given)  # and not because that was claimed

        def append(self, index):
            self._halt_before(super().append, index)

        def extend(self, indexes):
            self._halt_before(super().extend, indexes)

    ledger = Ledger(4, edges, "stop")
    if 3 in edges[1]:
        ledger.settle(3)
    ledger.ready = Halting()
    assert ledger.settle(0) == 0
    assert claimed == list(ledger.ready) == []
    assert ledger.halted


@EDGES
def test_what_is_made_ready_in_the_middle_of_a_halt_is_not_left_over(edges):
    """It comes after the halt has emptied the line, and before anybody can see the halt."""
    freed = []

    class Settling(deque):
        def clear(self):
            super().clear()
            if not freed:
                freed.append(ledger.settle(0))

    ledger = Ledger(4, edges, "stop")
    if 3 in edges[1]:
        ledger.settle(3)
    ledger.ready = Settling()
    ledger.cancel()
    assert freed == [len(edges)]
    assert list(ledger.ready) == []
    with pytest.raises(IndexError):
        ledger.claim()


@EDGES
def test_a_halt_right_after_an_append_takes_it_back(edges):
    """Who has made something ready does not count on it any more, and recruits nobody for it."""

    class Halted(deque):
        def append(self, index):
            super().append(index)
            ledger.cancel()

        def extend(self, indexes):
            super().extend(indexes)
            ledger.cancel()

    ledger = Ledger(4, edges, "stop")
    if 3 in edges[1]:
        ledger.settle(3)
    ledger.ready = Halted()
    assert ledger.settle(0) == 0
    assert list(ledger.ready) == []


def test_long_chains_are_skipped_without_recursion():
    """A hundred thousand tasks that wait for one another are skipped in one sweep."""
    count = 100_000
    ledger = Ledger(count, {index: (index - 1,) for index in range(1, count)}, "continue")
    ledger.open(Stage(0, count, at_once=True))
    ledger.starts[ledger.ready.popleft()] = 0.0
    ledger.fail(0, KeyError())
    ledger.ends[0] = 1.0
    ledger.finish()
    assert {ledger.state(index) for index in range(1, count)} == {"skipped"}
    assert not ledger.halted
