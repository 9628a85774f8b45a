"""Limits that programs share through a database: kept by all together, and none of them waits for ever."""

import json
import signal
import threading
import time
from dataclasses import replace
from itertools import count, cycle
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journals import execute
from marks import linux
from procession import JournalError, Limit, Process, RunCancelledError, task
from procession._engine.buckets import look_into
from procession._engine.shared_bucket import SharedBucket
from procession._model.shared_limit import Grant, Wish
from procession.journal import Journal, lease
from procession.journal.limits import LimitCount
from programs import program
from test_limits import Call, World

HOUR = 3600.0
NAMES = map("shared {}".format, count())

PROGRAM = """
    import json, sys, threading, time
    from procession import Limit, Process, task

    options = json.loads(sys.argv[1])
    begun = []

    def call(number):
        begun.append(time.monotonic())
        time.sleep(options.pop("lasts", 0.0))

    def main():
        process = Process("program", "parallel", 4)
        process.map(task(limit=Limit(**options["limit"]))(call), range(options["calls"]))
        process.execute()
        print(json.dumps(begun))

    if __name__ == "__main__":
        print("ready", flush=True)
        sys.stdin.readline()
        main()
"""


class Program:
    """A program of its own that makes calls under a limit, once it is told to."""

    def __init__(self, folder, **options):
        folder.mkdir()
        self.popen = program(folder, PROGRAM, json.dumps(options), stdin=True)
        assert self.popen.stdout.readline() == "ready\n", self.popen.stderr.read()

    def go(self):
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def begun(self):
        """Return when each of its calls began."""
        out, err = self.popen.communicate(timeout=50)
        assert self.popen.returncode == 0, err
        return json.loads(out)


@pytest.mark.usefixtures("no_children")
def test_programs_stay_within_a_limit_together_and_both_are_served(where, tmp_path):
    """In no span begin more calls of both than may; while both wait for room, each gets its part."""
    found = []
    for per, calls in (
        (0.4, 40),
        (2.0, 20),
        (4.0, 20),
        (6.0, 20),
    ):  # longer spans only where one of them was held up for some
        limit = {"name": f"api {per}", "rate": 10, "per": per, "shared": where}
        programs = [Program(tmp_path / f"{name} {per}", limit=limit, calls=calls) for name in ("a", "b")]
        for each in programs:
            each.go()
        first, second = (each.begun() for each in programs)
        begun = sorted(first + second)
        assert len(begun) == 2 * calls
        shortest = min(later - sooner for sooner, later in zip(begun, begun[10:]))
        both = max(first[0], second[0])  # one may take a while to come to its first call
        shared = [start for start in begun if start > both][:20]
        part = len(set(shared) & set(first))
        found.append((per, shortest, part))
        within = shortest > per / 4  # each call looks at the clock some time after it has begun
        if within and 5 <= part <= 15:
            break
    assert within and 5 <= part <= 15, found


def limited(limit, function=abs, elements=(-1,), **options):
    process = Process("limited", "parallel", 4, **options)
    process.map(task(limit=limit)(function), list(elements))
    return process


@linux
@pytest.mark.usefixtures("no_children")
def test_what_a_killed_program_held_is_let_go_of(where, tmp_path, comes_true):
    """The one place of the limit is taken until the program is dead that holds it, and then no longer."""
    limit = {"name": "gpu", "at_once": 1, "shared": where}
    holder = Program(tmp_path / "holder", limit=limit, calls=1, lasts=600)
    holder.go()
    taken = "SELECT places FROM procession_limit_users WHERE places > 0"
    assert comes_true(lambda: tables(where) and execute(where, taken))
    made = []
    run = limited(Limit(**limit), made.append, [1]).start()
    time.sleep(0.3)
    assert made == []
    holder.popen.send_signal(signal.SIGKILL)
    holder.popen.communicate()
    run.result(20)
    assert made == [1]


def tables(where):
    """Return whether the tables are there."""
    try:
        return execute(where, "SELECT name FROM procession_limits")
    except Exception:
        return False


def test_nothing_is_left_behind(where, nothing_is_left):
    """No thread, and no row that says that the program is there; what has begun stays noted."""
    assert limited(Limit("api", rate=1000, per=HOUR, at_once=9, shared=where), elements=[-1, -2, -3]).execute() == [
        [1, 2, 3]
    ]
    assert execute(where, "SELECT * FROM procession_limit_users") == []
    assert execute(where, "SELECT SUM(cost) FROM procession_limit_starts") == [(3.0,)]


def test_a_program_that_begins_anew_makes_no_burst(where):
    """What was begun before counts on."""
    limit = Limit("api", rate=2, per=HOUR, shared=where)
    assert limited(limit, elements=[-1, -2]).execute() == [[1, 2]]
    made = []
    run = limited(limit, made.append).start()
    time.sleep(0.3)
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert made == []


def test_the_same_database_may_be_a_journal(where):
    """Whichever comes first."""
    limit = Limit("api", rate=100, shared=where)
    limited(limit).execute()
    assert limited(limit).execute(run_id="a", journal=where) == [[1]]
    with Journal(where) as journal:
        assert [run.id for run in journal.runs()] == ["a"]
    limited(Limit("other", rate=100, shared=where)).execute()


# What a database is told, and grants


class Users:
    """Programs that share a limit, and the clock of their database."""

    def __init__(self, where, monkeypatch):
        self.now = 1000.0
        self.where = where
        self.name = next(NAMES)
        self.open = []
        monkeypatch.setattr(LimitCount, "_now", lambda _, connection: self.now)

    def join(self, **options):
        self.open.append(LimitCount(Limit(self.name, shared=self.where, **options)))
        return self.open[-1]


@pytest.fixture
def users(where, monkeypatch):
    users = Users(where, monkeypatch)
    yield users
    for each in users.open:
        each.close()


NOTHING = Wish(0, 0.0, [], 0, None, 0, 0.0, 0.0, 0)


def wants(calls, *, cost=None, first=1.0, **more):
    return NOTHING._replace(calls=calls, cost=calls if cost is None else cost, first=first, **more)


def test_room_is_granted_once(users):
    """What one program has, be it reserved, begun or under way, another has not."""
    first, second = users.join(rate=10, per=1.0, at_once=8), users.join(rate=10, per=1.0, at_once=8)
    assert first.exchange(wants(5))[:2] == (5, 5.0)
    assert second.exchange(wants(5))[:2] == (3, 5.0)
    second.exchange(wants(0, places=3, begun=[(1, 0.0, 3.0)]))
    first.exchange(wants(0, begun=[(1, 0.0, 5.0)], ended=5))
    users.now += 0.5
    grant = first.exchange(wants(5, cost=5.0, first=3.0))
    assert grant[:2] == (0, 0.0)
    assert grant.again_s == pytest.approx(0.2)
    users.now += 0.5
    assert first.exchange(wants(5))[:2] == (5, 5.0)


def test_what_is_said_twice_counts_once(users):
    """As after an answer that was lost."""
    user = users.join(rate=10, per=1.0)
    for _ in range(3):
        assert user.exchange(wants(2, begun=[(1, 0.0, 4.0)]))[:2] == (2, 2.0)
    assert execute(users.where, "SELECT SUM(cost) FROM procession_limit_starts") == [(4.0,)]


def test_a_program_that_waits_gets_its_part(users):
    """One that is always the first to ask leaves it the room."""
    greedy, patient = users.join(rate=10, per=1.0), users.join(rate=10, per=1.0)
    greedy.exchange(wants(50))
    greedy.exchange(wants(50, begun=[(1, 0.0, 10.0)]))
    for _ in range(3):
        assert patient.exchange(wants(50)).places == 0
        users.now += 0.34
    assert greedy.exchange(wants(50))[:2] == (5, 5.0)
    assert patient.exchange(wants(50)).cost == 5.0


def test_a_program_that_asks_late_gets_its_part(users):
    """One that asks again and again while room is there takes no more than its own."""
    eager, late = users.join(rate=10, per=1.0), users.join(rate=10, per=1.0)
    eager.exchange(wants(50))
    eager.exchange(wants(50, begun=[(1, 0.0, 10.0)]))
    for _ in range(3):
        assert late.exchange(wants(50)).places == 0
        users.now += 0.34
    assert eager.exchange(wants(50)).places == 5
    for _ in range(3):
        users.now += 0.02
        assert eager.exchange(wants(45, places=5, reserved=5.0)).places == 0
    assert late.exchange(wants(50)).cost == 5.0


def test_a_large_call_is_not_starved_by_small_ones_of_another_program(users):
    """Once it has waited for a while, what it costs is left for it."""
    small, large = users.join(rate=10, per=1.0), users.join(rate=10, per=1.0)
    small.exchange(wants(6))
    small.exchange(NOTHING._replace(begun=[(1, 0.0, 6.0)]))
    assert large.exchange(wants(1, cost=8.0, first=8.0)).places == 0
    users.now += 0.4
    large.exchange(wants(1, cost=8.0, first=8.0))
    assert small.exchange(wants(4)).places == 0
    users.now += 0.7
    assert large.exchange(wants(1, cost=8.0, first=8.0))[:2] == (1, 8.0)


@pytest.mark.parametrize("first", [1.0, 8.0], ids=["one place", "large calls"])
def test_of_programs_that_have_all_waited_for_long_one_goes_on(users, first):
    """None leaves to the others what all of them wait for."""
    options = {"at_once": 1} if first == 1 else {"rate": 10, "per": 1.0}
    holder, *others = [users.join(**options) for _ in range(3)]
    holder.exchange(wants(1, cost=10.0, first=10.0) if first > 1 else wants(1))
    for _ in range(3):
        for other in others:
            assert other.exchange(wants(2, cost=2 * first, first=first)).places == 0
        users.now += 0.3
    holder.exchange(NOTHING)
    granted = [other.exchange(wants(2, cost=2 * first, first=first)).places for other in others]
    assert sorted(granted) == [0, 1]


def test_a_pause_that_a_service_asks_for_holds_for_all_programs(users):
    """After it one call is made alone, of whichever program, and each that ends makes room for one more."""
    first, second = users.join(at_once=9), users.join(at_once=9)
    first.exchange(NOTHING._replace(closed_s=5.0))
    grant = second.exchange(wants(9))
    assert (grant.places, grant.closed_s) == (0, 5.0)
    users.now += 5.0
    assert second.exchange(wants(9)).places == 1
    assert first.exchange(wants(9)).places == 0
    assert second.exchange(wants(9, ended=1)).places in (1, 2)


def test_a_program_elsewhere_is_given_up_after_a_while(users):
    """One of another machine, of which nobody can see whether it lives: what it held counts as begun."""
    dead, alive = users.join(rate=10, per=HOUR, at_once=5), users.join(rate=10, per=HOUR, at_once=5)
    dead.exchange(wants(5))
    users.open.remove(dead)
    elsewhere = replace(lease.Holder.here(), host="elsewhere").text
    execute(users.where, "UPDATE procession_limit_users SET holder = ? WHERE token = ?", elsewhere, dead._token)
    users.now += lease.DURATION_S - 1
    assert alive.exchange(wants(9)).places == 0
    users.now += 2
    grant = alive.exchange(wants(9))
    assert grant[:2] == (5, 5.0)


@pytest.mark.parametrize("known", [True, False], ids=["known", "seen by the times"])
def test_after_a_restart_of_the_machine_all_counts_as_begun_just_then(users, known):
    """Its clock begins anew then, and programs of before are gone."""
    options = {"rate": 10, "per": 5.0, "at_once": 8}
    before = users.join(**options)
    before.exchange(wants(8))
    before.exchange(NOTHING._replace(places=2, begun=[(1, 0.0, 8.0)]))
    users.open.remove(before)
    gone = replace(lease.Holder.here(), pid=2**22 + 7).text
    execute(users.where, "UPDATE procession_limit_users SET holder = ?", gone)
    if known:
        execute(users.where, "UPDATE procession_limits SET system = 'of before'")
    users.now = 20.0
    after = users.join(**options)
    assert after.exchange(wants(8)).cost == 2.0
    users.now += 5.0
    assert after.exchange(wants(8))[:2] == (8, 8.0)


def test_other_numbers_for_one_name_are_refused_by_name(users):
    """While another program has the limit; when none has, they count from then on."""
    first = users.join(rate=10, per=1.0)
    with pytest.raises(ValueError, match="for another program that has it now") as caught:
        users.join(rate=20, per=1.0)
    assert f"Limit('{users.name}', rate=20, per=1" in str(caught.value)
    assert f"is Limit('{users.name}', rate=10, per=1)" in str(caught.value)
    users.open.remove(first)
    first.close()
    users.join(rate=20, per=1.0)


def test_a_run_is_refused_before_it_begins_where_the_numbers_differ(where):
    """With its process as it was."""
    name, called = next(NAMES), []
    other = LimitCount(Limit(name, at_once=1, shared=where))
    process = limited(Limit(name, at_once=2, shared=where), called.append)
    with pytest.raises(ValueError, match="same numbers, or another name"):
        process.execute()
    assert called == []
    other.close()
    process.execute()
    assert called == [-1]


def test_a_database_that_fails_ends_the_run_plainly(tmp_path, nothing_is_left):
    """With the limit and the database named."""
    where = tmp_path / "limits.db"
    begun = threading.Event()

    def gone(number):
        if number == 0:
            where.unlink()
        begun.set()

    process = limited(Limit("api", at_once=1, shared=where), gone, range(4000))
    with pytest.raises(JournalError, match=r"Limit\('api'.* is shared by a database that cannot be used.*limits.db"):
        process.execute()


def test_a_limit_is_shared_through_databases_only():
    """Of the kinds that it knows."""
    with pytest.raises(ValueError, match=r"an SQLite file or a PostgreSQL server; got 'mysql://me:\*\*\*@host/name'"):
        Limit("api", at_once=1, shared="mysql://me:secret@host/name")
    with pytest.raises(TypeError, match="shared is a path or a URL; got 5"):
        Limit("api", at_once=1, shared=5)
    with pytest.raises(ValueError, match="not empty"):
        Limit("api", at_once=1, shared="")


def test_a_shared_limit_does_not_show_its_password():
    """Where it is named."""
    assert "secret" not in repr(Limit("api", at_once=1, shared="postgresql://user:secret@host/name"))


def test_what_calls_note_without_the_lock_is_told():
    """What was granted and has not begun stays reserved while calls use it, and is given back when none does."""
    bucket = SharedBucket(at_once=None, rate=10, per=1.0)
    bucket.take(NOTHING, Grant(5, 5.0, 0.0, None, False), 0.0, 0.0)
    assert bucket.lay_out(0.0)  # and takes room for the first
    bucket.permits.pop()
    bucket.starts += [0.25, 0.25]
    wish = bucket.wish(0.5)
    assert (wish.places, wish.reserved, wish.begun, wish.ended) == (5, 3.0, [(1, 0.25, 2.0)], 0)
    bucket.take(wish, Grant(0, 0.0, 0.0, None, False), 0.5, 0.5)
    bucket.ends.append(None)
    wish = bucket.wish(0.75)
    assert (wish.places, wish.reserved, wish.begun, wish.ended) == (1, 0.0, [], 1)


# Programs, as time goes by


class SharingWorld(World):
    """Programs that share a limit, each with a bucket of its own; the database is asked at moments that are drawn."""

    def __init__(self, limit, programs, delays, expected):
        super().__init__([limit], programs)
        self.delays, self.expected = delays, expected
        self.counts = [LimitCount(limit) for _ in range(programs)]
        self.buckets = [SharedBucket(at_once=limit.at_once, rate=limit.rate, per=limit.per) for _ in range(programs)]
        for program, admission in enumerate(self.admissions):
            admission._buckets = {limit: self.buckets[program]}
            self.later(0, lambda program=program: self.turn(program))

    def turn(self, program):
        """Do what the keeper of a program does."""
        bucket = self.buckets[program]
        wish = bucket.wish(self.now)
        bucket.take(wish, self.counts[program].exchange(wish), self.now, self.now)
        look_into([bucket], self.now)
        if len(self.begun) < self.expected or self.under_way:
            assert self.now < 200
            self.later(next(self.delays), lambda: self.turn(program))


@given(
    st.integers(1, 3) | st.none(),
    st.integers(2, 5),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6), st.integers(0, 3), st.booleans()), max_size=12),
    st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=1, max_size=9),
)
@settings(max_examples=20, deadline=None)
def test_programs_keep_a_limit_together_whenever_they_ask(at_once, rate, coming, delays):
    """In no span begin more calls of all than may, no more are under way, and none waits for ever."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        clock = [0.0]
        patch.setattr(LimitCount, "_now", lambda *_: clock[0])
        limit = Limit(next(NAMES), at_once=at_once, rate=rate, per=3.0, shared=f"{folder}/limits.db")
        world = SharingWorld(limit, 3, cycle(delays), len(coming))
        check = world.check

        def check_on():
            clock[0] = world.events[0][0] if world.events else world.now
            check()

        world.check = check_on
        for place, (program, at, lasts, quick) in enumerate(coming):
            call = Call(program, place, (limit,), 1, lasts, quick=quick)
            world.later(at, lambda call=call: world.come(call))
        world.run()
        for each in world.counts:
            each.close()
    assert not world.waiting
    assert len(world.begun) == len(coming)
