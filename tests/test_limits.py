"""Limits: how they are made, what they refuse, and that they are kept, with a clock that is moved by hand."""

import heapq
import math
import pickle
from functools import partial
from itertools import count
from types import coroutine

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from procession import Limit, Process, RetryAfter, task
from procession._engine.admission import Admission, PutOff
from procession._engine.bucket import reserve
from procession._engine.gate import NotBegun, gated

NAMES = map("limit {}".format, count())


def limit(**options):
    """Return a limit that no other test has, as limits of one name are one."""
    return Limit(next(NAMES), **options)


# Definition


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"rate": 0}, ValueError, "rate is a finite number above 0; got 0"),
        ({"rate": -1}, ValueError, "rate is a finite number above 0; got -1"),
        ({"rate": math.nan}, ValueError, "rate is a finite number above 0; got nan"),
        ({"rate": math.inf}, ValueError, "rate is a finite number above 0; got inf"),
        ({"rate": "20"}, TypeError, "rate is a number; got '20'"),
        ({"rate": True}, TypeError, "rate is a number; got True"),
        (
            {"rate": 0.5},
            ValueError,
            "would never admit a call, which counts 1: give a longer span, as in rate=1, per=2",
        ),
        ({"rate": 1, "per": 0}, ValueError, "per, in seconds, is a finite number above 0; got 0"),
        ({"rate": 1, "per": math.nan}, ValueError, "per, in seconds, is a finite number above 0; got nan"),
        ({"per": 2.0}, ValueError, "per says how `rate` counts, and there is no rate"),
        ({"cost": len}, ValueError, "cost says how `rate` counts, and there is no rate"),
        ({"rate": 1, "cost": 5}, TypeError, "cost is a function; got 5"),
        ({"at_once": 0}, ValueError, "at_once is at least 1; got 0"),
        ({"at_once": 2.5}, TypeError, "at_once is a number of calls, an int; got 2.5"),
        ({"at_once": True}, TypeError, "at_once is a number of calls, an int; got True"),
        ({"retry_after": "5"}, TypeError, "retry_after is a function; got '5'"),
        ({"patience": -1}, ValueError, "patience, in seconds, is a number of at least 0; got -1"),
        ({"patience": math.nan}, ValueError, "patience, in seconds, is a number of at least 0; got nan"),
    ],
)
def test_a_limit_refuses_what_makes_no_sense(options, error, text):
    """With the name of the limit, and what would be right."""
    with pytest.raises(error) as caught:
        Limit("api", **options)
    assert text in str(caught.value)
    assert "Limit('api')" in str(caught.value)


@pytest.mark.parametrize(("name", "error"), [("", ValueError), (5, TypeError), (None, TypeError)])
def test_a_limit_has_a_name(name, error):
    """That is not empty."""
    with pytest.raises(error, match="name"):
        Limit(name)


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
def test_a_pause_is_a_number_of_seconds(seconds):
    """From 0 on, and finite."""
    with pytest.raises(ValueError, match="finite number of at least 0"):
        RetryAfter(seconds)
    with pytest.raises(TypeError, match="takes a number"):
        RetryAfter("5")
    copy = pickle.loads(pickle.dumps(RetryAfter(2.5)))
    assert (copy.seconds, str(copy)) == (2.5, "the service asks for a pause of 2.5 s")


@pytest.mark.parametrize("wrong", ["api", 5, [limit(at_once=1)], (limit(at_once=1), "gpu")])
def test_a_task_takes_limits_only(wrong):
    """One, or a tuple of several."""
    with pytest.raises(TypeError, match=r"task\(limit=...\) takes a Limit or a tuple of them; got"):
        task(limit=wrong)


def test_a_task_has_no_two_limits_of_one_name():
    """As they would be one."""
    with pytest.raises(ValueError, match="two limits of the name 'api'"):
        task(limit=(Limit("api", at_once=1), Limit("api", at_once=1)))


def test_limits_of_one_name_agree_within_a_process():
    """The process, the task and both limits are named when the second is added; with the same numbers they are one."""
    process = Process("pages")
    process.add_task(task(limit=Limit("api", at_once=2))(len), "a")
    process.add_task(task(limit=Limit("api", at_once=2))(len), "b")
    with pytest.raises(ValueError, match="name of another limit of the same run") as caught:
        process.add_task(task(limit=Limit("api", at_once=3), name="fetch")(len), "c")
    assert "process 'pages', task 2 (fetch): Limit('api', at_once=3)" in str(caught.value)
    assert len(process.tasks) == 2


def test_limits_of_one_name_agree_in_nested_processes_too():
    """They are limits of one run. That is said when it begins, as the inner process may get its task later."""
    inner, outer = Process("inner"), Process("outer")
    outer.add_task(task(limit=Limit("api", at_once=2))(len), "a")
    outer.add_task(inner)
    inner.add_task(task(limit=Limit("api", at_once=3))(len), "b")
    with pytest.raises(ValueError, match=r"process 'inner': Limit\('api', at_once=3\) has the name of another limit"):
        outer.execute()
    assert outer.status == "initialized"


def test_a_task_that_is_refused_leaves_no_limit_behind():
    """Its other limit may be another one later."""
    process = Process("pages")
    process.add_task(task(limit=Limit("api", at_once=2))(len), "a")
    with pytest.raises(ValueError, match="name of another limit"):
        process.add_task(task(limit=(Limit("gpu", at_once=1), Limit("api", at_once=3)))(len), "b")
    process.add_task(task(limit=Limit("gpu", at_once=2))(len), "c")
    assert process.execute() == [1, 1]


def test_a_limit_says_what_it_allows():
    """Wherever it is named."""
    assert repr(Limit("api", rate=20, per=2.0, at_once=4)) == "Limit('api', at_once=4, rate=20, per=2)"
    assert repr(Limit("api", at_once=4)) == "Limit('api', at_once=4)"


def test_a_limit_can_be_pickled():
    """As it goes along with a function that is sent by value."""
    copy = pickle.loads(pickle.dumps(Limit("api", rate=20, per=2.0, cost=len, patience=5)))
    assert (copy.key, copy.cost, copy.patience) == (("api", None, 20, 2.0, None), len, 5)


# Admission, as time goes by


def test_a_call_may_end_just_when_another_was_refused(monkeypatch):
    """Then the other is admitted at once: nothing holds it back any more."""

    @coroutine
    def paused():
        yield

    def refused(claims, now):
        found = reserve(claims, now)
        with pytest.raises(StopIteration):
            other.send(None)  # which takes no lock as it ends
        return found

    one, woken = limit(at_once=1), []
    admission = Admission([one], fail, fail)
    monkeypatch.setattr("procession._engine.admission.reserve", refused)
    other = gated(paused, (one,), admission)()
    other.send(None)
    ask = partial(admission.ask, (0, -1), (one,), (), {}, lambda: lambda: woken.append(True))
    assert ask() is None
    assert woken
    assert ask() is not None


def fail(error, *_):
    raise error


class World:
    """Runs whose calls are admitted, begin and end at whole seconds of an imaginary clock."""

    def __init__(self, limits, runs):
        self.now = 0.0
        self.limits = limits
        self.events = []
        self.number = count()
        self.admissions = [Admission(limits, self.later, self.fail, clock=lambda: self.now) for _ in range(runs)]
        self.waiting = {}  # (run, place) → its call
        self.under_way = []
        self.begun = []  # (when, call)
        self.closed = dict.fromkeys(limits, -1.0)

    def later(self, seconds, then):
        heapq.heappush(self.events, (self.now + seconds, next(self.number), then))

    def fail(self, error):
        raise error

    def come(self, call):
        if call.quick and len(call.limits) == 1 and call.limits[0].cost is None and self.began_at_once(call):
            return
        call.quick = False  # from now on it has a place in a line
        self.waiting[call.run, call.place] = call
        claims = self.admissions[call.run].ask(
            (call.place, -1), call.limits, (call.cost,), {}, lambda: lambda: self.come(call)
        )
        if claims is not None:
            del self.waiting[call.run, call.place]
            self.admissions[call.run].begin(claims)
            self.begun.append((self.now, call))
            self.under_way.append(call)
            self.later(call.lasts, lambda: self.end(call, claims))

    def began_at_once(self, call):
        """Make a call through the gate: return whether it has begun, as it does where there is room and nobody waits."""
        made = gated(call.awaited, call.limits, self.admissions[call.run])()
        try:
            made.send(None)
        except NotBegun:
            return False
        self.begun.append((self.now, call))
        self.under_way.append(call)
        self.later(call.lasts, lambda: self.end_at_once(call, made))
        return True

    def end_at_once(self, call, made):
        self.under_way.remove(call)
        self.close(call)
        try:
            made.send(None)
        except StopIteration:
            pass
        except PutOff:
            call.pause = None
            self.come(call)

    def close(self, call):
        for each in call.limits if call.pause is not None else ():
            self.closed[each] = max(self.closed[each], self.now + call.pause)

    def end(self, call, claims):
        self.under_way.remove(call)
        self.close(call)
        pause, call.pause = call.pause, None
        error = None if pause is None else RetryAfter(pause)
        standing = self.admissions[call.run].end(call.limits, claims, error)
        assert isinstance(standing, PutOff) is (pause is not None)
        if pause is not None:
            self.come(call)

    def run(self):
        while self.events:
            self.now, _, then = heapq.heappop(self.events)
            then()
            self.check()

    def check(self):
        for each in self.limits:
            here = [call for call in self.under_way if each in call.limits]
            assert each.at_once is None or len(here) <= each.at_once
            costs = [(at, call.cost if each.cost else 1) for at, call in self.begun if each in call.limits]
            for at, _ in costs:
                spent = sum(cost for other, cost in costs if at <= other < at + each.per)
                assert each.rate is None or spent <= each.rate

    def has_room(self, call):
        """Whether all limits of a call have room for it, as the history tells."""
        for each in call.limits:
            here = sum(each in other.limits for other in self.under_way)
            spent = sum(
                other.cost if each.cost else 1
                for at, other in self.begun
                if each in other.limits and at + each.per > self.now
            )
            cost = call.cost if each.cost else 1
            if (
                here >= (each.at_once or math.inf)
                or spent + cost > (each.rate or math.inf)
                or self.now < self.closed[each]
            ):
                return False
        return True


class Call:
    def __init__(self, run, place, limits, cost, lasts, pause=None, quick=False):
        self.run, self.place, self.limits, self.cost, self.lasts, self.pause = run, place, limits, cost, lasts, pause
        self.quick = quick

    async def awaited(self):
        await turn()
        if self.pause is not None:
            raise RetryAfter(self.pause)


@coroutine
def turn():
    yield


def cost_of(cost):
    return cost


@st.composite
def worlds(draw, pauses):
    numbers = st.none() | st.integers(1, 3)
    limits = []
    for _ in range(draw(st.integers(1, 3))):
        rate = draw(st.none() | st.integers(3, 6))
        weighs = rate is not None and draw(st.booleans())
        options = {} if rate is None else {"rate": rate, "per": draw(st.integers(1, 5))}
        limits.append(limit(at_once=draw(numbers), cost=cost_of if weighs else None, **options))
    runs = draw(st.integers(1, 3))
    world = World(limits, runs)
    calls = []
    for place in range(draw(st.integers(1, 12))):
        its = draw(st.lists(st.sampled_from(limits), min_size=1, unique=True))
        pause = draw(st.none() | st.integers(0, 4)) if pauses else None
        call = Call(
            draw(st.integers(0, runs - 1)),
            place,
            tuple(its),
            draw(st.integers(0, 3)),
            draw(st.integers(0, 4)),
            pause,
            draw(st.booleans()),
        )
        calls.append(call)
        world.later(draw(st.integers(0, 6)), lambda call=call: world.come(call))
    return world, calls


@given(worlds(pauses=False))
@settings(max_examples=100, deadline=None)
def test_a_limit_is_kept_and_no_room_is_left_unused(made):
    """In no span begin more than may, none waits for ever, and the first of all that wait begins once it has room."""
    world, calls = made
    check = world.check

    def check_both():
        check()
        for run in range(len(world.admissions)):
            places = sorted(place for other, place in world.waiting if other == run)
            if len(world.admissions) == 1 and places:
                assert not world.has_room(world.waiting[run, places[0]])

    world.check = lambda: world.events and world.events[0][0] == world.now or check_both()
    world.run()
    assert not world.waiting
    assert len(world.begun) == len(calls)


@given(worlds(pauses=True))
@settings(max_examples=100, deadline=None)
def test_while_a_service_wants_a_pause_nothing_under_its_limit_begins(made):
    """And after it, everything is called that waits, those that were told so once more."""
    world, calls = made
    closings = []
    close = world.close

    def note(call):
        close(call)
        if call.pause is not None:
            closings.extend((each, world.now, world.now + call.pause) for each in call.limits)

    world.close = note
    told = sum(call.pause is not None for call in calls)
    world.run()
    assert not world.waiting
    assert len(world.begun) == len(calls) + told
    for each, start, stop in closings:
        assert not [at for at, call in world.begun if each in call.limits and start < at < stop]


def test_calls_are_admitted_by_place_and_runs_take_turns():
    """Whatever they cost; another run does not wait until all of the first have begun."""
    api = limit(rate=1, per=1.0)
    world = World([api], 2)
    for run, place in [(0, 9), (0, 3), (0, 1), (0, 2), (1, 7), (1, 8)]:
        world.later(0, lambda run=run, place=place: world.come(Call(run, place, (api,), 1, 0)))
    world.run()
    assert [(call.run, call.place) for _, call in world.begun] == [(0, 9), (0, 1), (1, 7), (0, 2), (1, 8), (0, 3)]


def test_small_calls_do_not_starve_a_large_one():
    """What comes after it in the same limit waits behind it, though there would be room."""
    api = limit(rate=10, per=10.0, cost=cost_of)
    world = World([api], 1)
    for at, place, cost in [(0, 0, 5), (1, 1, 8), (1, 2, 1), (1, 3, 1)]:
        world.later(at, lambda place=place, cost=cost: world.come(Call(0, place, (api,), cost, 0)))
    world.run()
    assert [(at, call.place) for at, call in world.begun] == [(0, 0), (10, 1), (10, 2), (10, 3)]


def test_a_call_waits_for_all_of_its_limits_at_once():
    """It takes nothing of the one while it waits for the other."""
    api, gpu = limit(at_once=1), limit(at_once=1)
    world = World([api, gpu], 2)
    for run, place, limits, lasts in [(0, 0, (gpu,), 9), (0, 1, (api, gpu), 1), (1, 2, (api,), 1)]:
        world.later(
            place, lambda run=run, place=place, its=limits, lasts=lasts: world.come(Call(run, place, its, 1, lasts))
        )
    world.run()
    assert [(at, call.place) for at, call in world.begun] == [(0, 0), (9, 1), (10, 2)]


def test_after_a_pause_one_call_is_made_alone_to_see_what_the_service_says():
    """Each that ends makes room for one more."""
    api = limit()
    world = World([api], 1)
    for place in range(8):
        world.later(0, lambda place=place: world.come(Call(0, place, (api,), 1, 1, pause=9 if place < 4 else None)))
    world.run()
    assert [at for at, _ in world.begun] == [0] * 8 + [10, 11, 11, 12]


def test_a_service_that_lets_so_many_through_in_a_while_refuses_one_each_time():
    """Apart from those that were under way when it did so first."""
    api = limit()
    world = World([api], 1)
    calls = [Call(0, place, (api,), 1, 0.01) for place in range(200)]
    accepted, refused = [], []

    def judge(call):
        """Accept 20 calls in any second; ask the others to come again in one."""
        recent = [at for at in accepted if at > world.now - 1]
        if len(recent) < 20:
            accepted.append(world.now)
        else:
            refused.append(call)
            call.pause = 1.0

    end = world.end
    world.end = lambda call, claims: (judge(call), end(call, claims))
    for number, call in enumerate(calls):  # so that no more than ten are under way when the first is refused
        world.later(number / 1000, lambda call=call: world.come(call))
    world.run()
    assert len(accepted) == 200
    assert len(refused) <= 10 + 9 + 2
