"""What may be drawn, taken and let go, decided without threads: no generated plan waits without end."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import maps_in_order, pipelines
from procession._engine.streams import Source, Taker

COUNT = 20


class Stage:
    """A made-up map or task: it draws, has calls end in any order, takes, and may stop early.

    A call of a map has up to `batch` elements: what is there to take, or so many where they are drawn.
    """

    def __init__(self, taker, source, stop, batch=1):
        self.taker = taker
        self.source = source
        self.stop = stop
        self.batch = batch
        self.running = []
        self.drawn = []
        self.taken = []

    @property
    def is_map(self):
        return self.source is not None

    @property
    def over(self):
        if self.taker is not None:
            return self.taker.closed
        return self.source.length is not None

    def steps(self):
        """Return what this stage could do now."""
        found = [("end", places) for places in self.running]
        if self.over:
            return found
        if self.taker is None or self.taker.ready or self.taker.over or len(self.taken) == self.stop:
            room = self.source.room if self.is_map else None
            if room is None or room > 0 or (self.taker is not None and self.taker.over):
                found.append(("draw", None))
        return found

    def do(self, what, places):
        if what == "end":
            self.running.remove(places)
            for place in places:
                self.source.end([place])
        elif self.taker is None:
            self.draw(range(len(self.drawn), min(len(self.drawn) + self.batch, COUNT)))
        elif self.taker.over or len(self.taken) == self.stop:
            self.draw(())
        else:
            room = self.source.room if self.is_map else None
            places = self.taker.take(self.batch if room is None else min(self.batch, room))
            for source in self.taker.sources:
                source.let_go(places)
            self.taken += places
            self.draw(places)

    def draw(self, places):
        if not places:
            if self.taker is not None:
                self.taker.close()
            if self.is_map:
                self.source.length = len(self.drawn)
        elif self.is_map:
            self.drawn += places
            self.source.drawn += len(places)
            self.running.append(tuple(places))
            taken = [taker.taken for taker in self.source.takers]
            assert not taken or len(self.drawn) - min(taken) <= self.source.window


def built(plan, windows, batches):
    in_order = maps_in_order(plan)
    stages = []
    for place, (taken, is_map, stop) in enumerate(plan):
        batch, source = batches[place] if is_map else 1, None
        if is_map:
            source = Source(max(windows[place], 2 * batch), kept=True, in_order=place in in_order, batch=batch)
        taker = None
        if taken:
            taker = Taker([stages[index].source for index in taken], ordered=not is_map, binds=True, own=source)
        stages.append(Stage(taker, source, stop, batch))
    return stages


@settings(max_examples=120, deadline=None)
@given(
    pipelines(streams=1),
    st.lists(st.sampled_from([1, 2, 5, 64]), min_size=6, max_size=6),
    st.just([1] * 6) | st.lists(st.sampled_from([1, 2, 3, 9]), min_size=6, max_size=6),
    st.sets(st.integers(0, COUNT - 1)),
    st.integers(),
)
def test_there_is_always_something_to_do_until_all_is_done(plan, windows, batches, slow, seed):
    """However small windows are, or large batches, whoever stops early, and though some end only when all others wait."""
    stages = built(plan, windows, batches)
    rng = random.Random(seed)
    while not all(stage.over and not stage.running for stage in stages):
        steps = [(stage, step) for stage in stages for step in stage.steps()]
        assert steps, [(stage.taken, stage.running, stage.drawn) for stage in stages]
        quick = [(stage, step) for stage, step in steps if step[0] == "draw" or slow.isdisjoint(step[1])]
        stage, (what, places) = rng.choice(quick or steps)
        stage.do(what, places)
    for stage, (taken, is_map, stop) in zip(stages, plan, strict=True):
        if taken:
            expected = list(range(COUNT if stop is None else stop))
            assert (sorted(stage.taken) if is_map else stage.taken) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1), st.integers(1, 3))
def test_a_value_is_let_go_when_the_last_taker_has_it(order, takers):
    """And not before; what a taker that closes has not taken, it holds no longer."""
    source = Source(64, kept=False)
    everyone = [Taker([source], ordered=False, binds=True) for _ in range(takers)]
    there = set()
    for place in range(5):
        there.add(place)
        assert not source.end([place])
    holders = {place: takers for place in there}
    for number in order:
        taker = everyone[number % takers]
        places = taker.take(1)
        for place in places:
            holders[place] -= 1
        for place in source.let_go(places):
            assert holders[place] == 0
            there.remove(place)
        assert all(holders[place] for place in there)
    for taker in everyone:
        for _, places in taker.close():
            there.difference_update(places)
    assert not there
    assert source.end([5]) == [5]  # nobody is left to take it


@pytest.mark.parametrize("takers", [1, 2])
@pytest.mark.parametrize("closes", [False, True])
def test_a_value_is_let_go_though_what_stands_beside_it_has_failed(takers, closes):
    """Once it is taken, or its taker closes."""
    failing, well = Source(64, kept=False), Source(64, kept=False)
    everyone = [Taker([failing, well], ordered=False, binds=True) for _ in range(takers)]
    failing.end([~0])
    well.end([0])
    gone = []
    for taker in everyone:
        assert not gone
        gone += dict(taker.close())[well] if closes else well.let_go(taker.take(1))
    assert gone == [0]


class Compared(int):
    """A place that counts how often it is compared."""

    times = 0

    def __lt__(self, other):
        Compared.times += 1
        return int(self) < int(other)


def test_it_takes_no_longer_to_take_elements_the_more_have_ended():
    """As of a map that was recorded: all of its elements have, before the first is taken."""
    count = 10_000
    first, second = Source(64, kept=True, in_order=True), Source(64, kept=True, in_order=True)
    taker, _ = Taker([first], ordered=False, binds=True, own=second), Taker([second], ordered=True, binds=True)
    first.end([Compared(place) for place in range(count)])
    Compared.times = 0
    assert taker.take(64) == list(range(64))
    assert Compared.times < count / 2
