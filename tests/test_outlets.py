"""Who sleeps until elements come, or until there is room, is woken in time: no generated plan waits without end.

Everything happens in one thread here, a step at a time, in an order that is drawn. A map or task that found nothing to
do does nothing more until it is woken.
"""

import random
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import maps_in_order, pipelines
from procession._engine.elements import Elements
from procession._engine.feed import Feed
from procession._engine.outlet import Outlet
from procession._engine.streams import Source

COUNT = 20


def fail(error):
    raise error


class Sleeper:
    """What has a step to make unless it sleeps, or is over."""

    def __init__(self):
        self.asleep = False
        self.over = False

    def wake(self):
        self.asleep = False


class Map(Sleeper):
    """Draws elements as long as there is room; its calls end when they are told to."""

    def __init__(self, outlet, feed):
        super().__init__()
        self.outlet = outlet
        self.feed = feed
        self.drawn = 0
        self.running = []
        outlet.wake = self.wake
        if feed is not None:
            feed.wake = self.wake

    def step(self):
        """Draw what can be drawn now; fall asleep if that is nothing."""
        if not self.outlet.source.wanted:
            self.over = True
            if self.feed is not None:
                self.feed.close()
            return
        self.asleep = True
        room = self.outlet.room(self.drawn)
        if room is not None and room <= 0:
            return
        if self.feed is None:
            places = range(self.drawn, COUNT)[: 3 if room is None else min(room, 3)]
            self.over = not places
        else:
            places = [place for place, _ in self.feed.take(COUNT if room is None else room)]
            self.over = not places and self.feed.taker.over
        if places or self.over:
            self.asleep = False
            self.drawn += len(places)
            self.running += places
            self.outlet.note_drawn(self.drawn, over=self.over)

    def end(self, place):
        """Have the call of an element end."""
        self.running.remove(place)
        self.outlet.results[place] = place
        self.outlet.hand_on(place)


class Task(Sleeper):
    """Takes the elements of one stream after the other, or in turn, as the streams of a call are read."""

    def __init__(self, feeds, in_turn, stop, *, rests):
        super().__init__()
        self.rests = rests
        self.resting = False
        self.in_turn = in_turn
        self.stop = stop
        self.feeds = feeds
        self.taken = [[] for _ in feeds]
        self.at = 0
        for feed in feeds:
            feed.bind()

    def step(self):
        """Take an element, or fall asleep: then the others of its maps do not wait for this task."""
        feed = self.feeds[self.at]
        if len(self.taken[self.at]) == self.stop:
            self.close()
            return
        if self.resting:
            self.resting = False
            if feed.fall_asleep():
                self.fall_asleep(feed)
            return
        feed.wake = self.return_to_work
        elements = feed.take(1, counted=False, rests=self.rests)
        if elements:
            feed.note_taken([elements[0][0]])
            self.taken[self.at].append(elements[0][0])
            if self.in_turn:
                self.at = (self.at + 1) % len(self.feeds)
        elif feed.taker.over:
            self.at += 1
            if self.at == len(self.feeds) or self.in_turn:
                self.close()
        elif self.rests:
            self.resting = True
        else:
            self.fall_asleep(feed)

    def fall_asleep(self, feed):
        self.asleep = True
        for other in self.feeds:
            if other is not feed:
                other.bind(binds=False)

    def close(self):
        self.over = True
        for feed in self.feeds:
            feed.close()

    def return_to_work(self):
        self.asleep = self.resting = False
        for feed in self.feeds:
            feed.bind()


def built(plan, window, in_turn, *, rests):
    in_order = maps_in_order(plan)
    lock, stages, outlets = threading.Lock(), [], {}
    for place, (taken, is_map, stop) in enumerate(plan):
        if is_map:
            outlets[place] = Outlet(lock, Source(window, kept=False, in_order=place in in_order), fail)
            columns = [outlets[index] for index in taken]
            feed = Feed(lock, columns, ordered=False, binds=True, own=outlets[place]) if taken else None
            stages.append(Map(outlets[place], feed))
        else:
            feeds = [Feed(lock, (outlets[index],), ordered=True, binds=True) for index in taken]
            stages.append(Task(feeds, in_turn, stop, rests=rests))
    return stages


@settings(max_examples=200, deadline=None)
@given(
    pipelines(streams=2),
    st.sampled_from([1, 2, 5, 64]),
    st.sets(st.integers(0, COUNT - 1)),
    st.booleans(),
    st.booleans(),
    st.integers(),
)
def test_whoever_sleeps_is_woken_until_all_is_done(plan, window, slow, in_turn, rests, seed):
    """However small the window is, and though some elements end only when all others wait."""
    stages = built(plan, window, in_turn, rests=rests)
    rng = random.Random(seed)
    maps = [stage for stage in stages if isinstance(stage, Map)]
    while not all(stage.over for stage in stages) or any(each.running for each in maps):
        ends = [(each, place) for each in maps for place in each.running]
        awake = [(stage, None) for stage in stages if not (stage.over or stage.asleep)]
        steps = [end for end in ends if end[1] not in slow] + awake or ends
        assert steps, [(type(stage).__name__, stage.over, stage.asleep) for stage in stages]
        stage, place = rng.choice(steps)
        stage.step() if place is None else stage.end(place)
    for stage in stages:
        if isinstance(stage, Task):
            count = COUNT if stage.stop is None else stage.stop
            assert stage.taken[0] == list(range(count))
            assert all(taken == list(range(len(taken))) for taken in stage.taken)


class CountedLock:
    """A lock that counts how often it was taken."""

    def __init__(self):
        self.taken = 0
        self._lock = threading.Lock()

    def __enter__(self):
        self.taken += 1
        self._lock.acquire()

    def __exit__(self, *_):
        self._lock.release()


def test_an_element_that_lies_too_far_ahead_takes_no_lock():
    """Nobody who is asleep could go on with it. One that is missed wakes them, also after others have taken some.

    first map ──▶ second map ──▶ a task, in order
    """
    lock, woken = CountedLock(), []
    first, second = (Outlet(lock, Source(2, kept=False, in_order=True), fail) for _ in range(2))
    feed = Feed(lock, (first,), ordered=False, binds=True, own=second)
    task = Feed(lock, (second,), ordered=True, binds=True)
    second.wake = feed.wake = lambda: woken.append("second map")

    def end(outlet, place):
        before = lock.taken
        outlet.results[place] = place
        outlet.hand_on(place)
        return lock.taken > before

    def take(taker):
        return [place for place, _ in taker.take(2)]

    end(first, 3)
    assert take(feed) == []  # the task misses 0, so nothing from 2 on may be drawn
    assert not end(first, 2)
    assert not end(first, 4)
    assert not woken
    assert end(first, 0)
    assert woken == ["second map"]
    assert take(feed) == [0]
    assert take(feed) == []
    end(second, 0)
    assert take(task) == [0]  # now 2 may be drawn, which has ended before
    assert woken == ["second map", "second map"]
    assert take(feed) == [2]
    assert take(feed) == []
    assert end(first, 1)
    assert woken == ["second map", "second map", "second map"]
    assert take(feed) == [1]


def test_who_rests_is_woken_only_where_the_map_has_to_wait_or_nothing_more_is_drawn():
    """Else elements gather meanwhile, none of which takes the lock. Once asleep, the next one wakes it."""
    lock, woken = CountedLock(), []
    outlet = Outlet(lock, Source(4, kept=False, in_order=True), fail)
    feed = Feed(lock, (outlet,), ordered=True, binds=True)
    feed.wake = lambda: woken.append(outlet.source.drawn)

    def end(*places):
        before = lock.taken
        for place in places:
            outlet.results[place] = place
            outlet.hand_on(place)
        return lock.taken > before

    def take(rests):
        return [place for place, _ in feed.take(9, rests=rests)]

    end(0)
    assert take(rests=True) == [0]
    assert take(rests=True) == []
    assert not end(1, 2, 3)
    assert outlet.room(4) == 1
    assert not woken
    assert outlet.room(5) == 0
    assert woken == [5]
    assert take(rests=True) == [1, 2, 3]
    assert take(rests=True) == []
    assert feed.fall_asleep()
    assert end(4)
    assert woken == [5, 5]
    assert take(rests=True) == [4]
    assert take(rests=True) == []
    end(5)
    assert not feed.fall_asleep()  # there is something to take by now
    assert take(rests=True) == [5]
    assert take(rests=True) == []
    outlet.note_drawn(8, over=True)
    assert woken == [5, 5, 8]
    assert take(rests=True) == []  # and falls asleep at once, as there will be few
    assert end(6)
    assert woken == [5, 5, 8, 8]


def test_who_rests_is_woken_where_all_that_has_ended_lies_too_far_ahead():
    """For the map before it can draw nothing more then. A pipeline would get on by a window in each rest."""
    lock, woken = CountedLock(), []
    first, second = (Outlet(lock, Source(2, kept=False, in_order=True), fail) for _ in range(2))
    feed = Feed(lock, (first,), ordered=False, binds=True, own=second)
    task = Feed(lock, (second,), ordered=True, binds=True)
    task.wake = lambda: woken.append("task")

    def end(outlet, *places):
        for place in places:
            outlet.results[place] = place
            outlet.hand_on(place)

    end(first, 0, 1)
    assert [place for place, _ in feed.take(2)] == [0, 1]
    end(second, 0)
    assert [place for place, _ in task.take(9, rests=True)] == [0]
    assert task.take(9, rests=True) == []
    end(second, 1)
    end(first, 2)
    assert [place for place, _ in feed.take(2)] == [2]
    assert not woken
    end(first, 3)
    assert feed.take(2) == []  # the task misses 1
    assert woken == ["task"]


def test_who_sleeps_reaches_further_as_others_take_elements():
    """However far ahead that lies which has ended: the first map may have drawn it while nobody bound it."""
    lock, woken = CountedLock(), []
    first, second = (Outlet(lock, Source(2, kept=False, in_order=True), fail) for _ in range(2))
    feed = Feed(lock, (first,), ordered=False, binds=True, own=second)
    task = Feed(lock, (second,), ordered=True, binds=True)
    second.wake = feed.wake = lambda: woken.append("second map")
    for place in (0, 1, 9):
        first.results[place] = place
        first.hand_on(place)
    assert [place for place, _ in feed.take(2)] == [0, 1]
    assert feed.take(2) == []
    for place in (0, 1):
        second.results[place] = place
        second.hand_on(place)
    assert [place for place, _ in task.take(2)] == [0, 1]
    assert task.take(2) == []
    assert not woken
    first.results[2] = 2
    first.hand_on(2)  # which lay too far ahead when the second map fell asleep
    assert woken == ["second map"]
    assert feed.take(2) == [(2, (2,))]


def test_elements_are_handed_out_with_few_looks_at_the_lock():
    """Though the map draws whatever it may at once; and all are counted before the next ones are asked for."""
    lock, drawn = CountedLock(), [64]

    def draw():
        drawn[0] += outlet.room(drawn[0])
        assert outlet.room(drawn[0]) == 0

    outlet = Outlet(lock, Source(64, kept=False, in_order=True), fail)
    outlet.wake = draw
    elements = Elements(Feed(lock, (outlet,), ordered=True, binds=True))
    for place in range(64):
        outlet.results[place] = place
        outlet.hand_on(place)
    assert outlet.room(64) == 0
    assert elements.refill(fail)
    before = lock.taken
    assert [elements.hand_out() for _ in range(64)] == list(range(64))
    assert lock.taken - before <= 64 // 4
    assert drawn[0] + (outlet.room(drawn[0]) or 0) == 128
