"""Fingerprints: how a run that goes on tells which tasks are still the same, and what has changed."""

import functools
import json
import operator
import threading
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procession import DigestError, Process, task
from procession._model.task import MapFunction, name_of
from procession._plan.fingerprint import Fingerprint, called, fingerprint_of, qualified
from procession._plan.identity import digest_element
from procession._plan.parts import main_module
from test_digest import Client, adder, fetch, lock, plain, whole
from test_digest_search import leaves


def test_a_fingerprint_tells_the_first_difference():
    """In words, by place and name; counts of tasks too."""
    was = plain((fetch, 1), (len, "a"), (fetch, [2]))
    for now, text in [
        (plain((fetch, 1), (len, "a"), (fetch, [2])), None),
        (plain((fetch, 1), (max, "a"), (fetch, [3])), "task 1 was builtins:len, is builtins:max"),
        (plain((fetch, 1), (len, "a"), (fetch, [3])), "task 2 (test_digest:fetch) has other arguments: argument 1"),
        (plain((fetch, 1), (len, "a")), "there were 3 tasks, now 2"),
        (plain((fetch, 1), (fetch, [2])), "task 1 was builtins:len, is test_digest:fetch (there were 3 tasks, now 2)"),
        (plain(), "there were 3 tasks, now 0"),
        (was._replace(process_name="q\n"), r"the process was called 'p', now 'q\\n'"),
    ]:
        assert was.first_difference(now) == text


def test_a_difference_of_one_task_is_told_of_one():
    """It is not said as several."""
    assert plain((fetch, 1)).first_difference(plain()) == "there was 1 task, now 0"


@pytest.mark.parametrize("name", ["inner", "it's", 'a "b" (c', "a\\'\n:d", "map of x", "\ud800"])
def test_a_task_is_called_as_its_process_is_however_that_is_named(name):
    """What it is recognised by has where the callable comes from, too; what a task is called has not."""
    inner = Process(name)
    for function in inner, task(name="given (name)")(inner), task(name="x")(len), len, MapFunction(inner):
        assert called(qualified(function)) == name_of(function)


def test_it_is_said_which_arguments_differ():
    """By place or name, and never by value; also what came, what went, and what the callable holds."""

    def told(was, now):
        one, other = (fingerprint_of("p", [(len, (), {}), (fetch, (7, []), {"z": 0}), each]) for each in (was, now))
        return one.first_difference(other).partition("has other arguments: ")[2]

    long = "x" * 9000
    for was, now, text in [
        ((fetch, (1, 2), {}), (fetch, (1, 3), {}), "argument 2"),
        ((fetch, ("s", [1]), {}), (fetch, ("t", [1]), {}), "argument 1"),
        ((fetch, (1, 2), {}), (fetch, (3, [2]), {}), "argument 1 and argument 2"),
        ((fetch, (1, 2), {}), (fetch, (1, [2]), {}), "argument 2"),
        ((fetch, (long, 2), {}), (fetch, (long, 3), {}), "argument 2"),
        ((fetch, (long, 2), {}), (fetch, (long + "y", 2), {}), "argument 1"),
        ((fetch, (), {"url": 1, "deep": 2}), (fetch, (), {"deep": 3, "url": 1}), "argument 'deep'"),
        ((fetch, (1,), {}), (fetch, (1,), {"deep": True}), "argument 'deep'"),
        ((fetch, (1, 2), {}), (fetch, (1,), {}), "no argument 2"),
        ((adder(1), (2,), {}), (adder(1), (3,), {}), "argument 1"),
        ((adder(1), (2,), {}), (adder(4), (2,), {}), "those that its callable is bound to, or closes over"),
        ((adder(1), (), {}), (adder(4), (), {}), "those that its callable is bound to, or closes over"),
        ((MapFunction(fetch), ([1], [2]), {}), (MapFunction(fetch), ([1], [3]), {}), "argument 2"),
    ]:
        assert told(was, now) == text


def test_a_fingerprint_of_version_1_is_compared_by_what_it_has():
    """Names and digests; its main module is the program's. What it does not know is not taken for the same."""
    main = main_module()

    def of_version_1(*names):
        now = plain(*[(fetch, 1)] * len(names))
        which = zlib.compress(b"".join(at.to_bytes(4, "little") for at in range(len(names))))
        head = {"version": 1, "process": "p", "names": names, "which": len(which)}
        return Fingerprint.from_bytes(json.dumps(head).encode() + b"\n" + which + now.digests)

    was = of_version_1("test_digest:fetch", "get (test_digest:fetch)", "__main__:f", "map of __main__:f")
    assert was.names == ("test_digest:fetch", "get (test_digest:fetch)", f"{main}:f", f"map of {main}:f")
    assert was.changed(plain((fetch, 1), (task(name="get")(whole), 1), (fetch, 1), (fetch, 1))) == {2, 3}
    assert was.first_difference(plain((fetch, 2))) == (
        "task 0 (test_digest:fetch) has other arguments (there were 4 tasks, now 1)"
    )
    one, other = (lambda x: x), (lambda x: [x])
    known = of_version_1(qualified(one))
    assert known.changed(plain((one, 1), (other, 1))) == {0, 1}


def test_a_fingerprint_tells_which_tasks_changed():
    """Those with another name or other arguments, and those that only one has."""
    was = plain((fetch, 1), (len, "a"), (fetch, 2))
    assert was.changed(was) == set()
    assert was.changed(plain((fetch, 1), (max, "a"), (fetch, 3))) == {1, 2}
    assert was.changed(plain((len, 1), (len, "a"), (fetch, 2), (fetch, 2))) == {0, 3}
    assert was.changed(plain((fetch, 1))) == {1, 2}
    assert plain((fetch, 1)).changed(was) == {1, 2}


def test_keywords_and_positions_are_different_arguments():
    """A keyword is its name and its value, in any order."""
    seen = set()
    for args, kwargs in [
        ((1,), {}),
        ((), {"url": 1}),
        ((), {"deep": 1}),
        ((1, 2), {}),
        ((1,), {"deep": 2}),
        (([],), {}),
        ((), {"url": []}),
        ((1,), {"deep": []}),
        (((1,), ()), {}),
        (((1,), (("deep", 2),)), {}),
        ((1, [2]), {}),
        (([1, 2],), {}),
        (("x" * 9000,), {}),
        (("x" * 4000, "x" * 5000), {}),
    ]:
        seen.add(fingerprint_of("p", [(fetch, args, kwargs)]).digests)
    assert len(seen) == 14
    one, other = {"a": 1, "b": 2}, {"b": 2, "a": 1}
    assert fingerprint_of("p", [(fetch, (), one)]) == fingerprint_of("p", [(fetch, (), other)])


def test_what_is_bound_to_a_callable_counts():
    """A closure, a partial, a method and a callable object carry values; their names do not say which."""
    for one, same, other in [
        (adder(1), adder(1), adder(2)),
        (Client("a").fetch, Client("a").fetch, Client("b").fetch),
        (functools.partial(fetch, 1), functools.partial(fetch, 1), functools.partial(fetch, 2)),
        (operator.itemgetter(1), operator.itemgetter(1), operator.itemgetter(2)),
        ("a".join, "a".join, "b".join),
        (MapFunction(adder(1)), MapFunction(adder(1)), MapFunction(adder(2))),
    ]:
        assert plain((one, "x")) == plain((same, "x"))
        assert plain((one, "x")).first_difference(plain((other, "x"))).endswith("is bound to, or closes over")


def test_a_handle_is_the_place_of_its_task():
    """So is one inside a list, and in a process that was built anew."""

    def process(which):
        built = Process("p")
        handles = [built.task(fetch, "a"), built.task(fetch, "a")]
        built.add_task(fetch, handles[which], deep=[handles[which]])
        return fingerprint_of("p", built.tasks)

    assert process(0) == process(0)
    assert process(0).changed(process(1)) == {2}


def test_a_lazy_iterable_of_a_map_is_not_drawn():
    """It counts by its type; a list counts by its elements, and the elements of both by themselves."""

    def drawn():
        pytest.fail("drawn")
        yield

    def mapped(*iterables):
        return plain((MapFunction(fetch), *iterables))

    assert mapped(drawn(), map(drawn, [1])) == mapped((x for x in [1]), map(len, "a"))
    assert mapped(iter([1])) != mapped(x for x in [1])
    assert mapped([1, [2]]) == mapped([1, [2]]) != mapped([1, [3]])
    assert mapped({"a": 1}.items()) == mapped({"a": 1}.items()) != mapped({"a": 2}.items())
    process = Process("p")
    numbers = process.task(list, "abc")
    process.map(fetch, numbers)
    assert fingerprint_of("p", process.tasks).tasks == 2


def test_elements_are_digested_as_they_come():
    """The same element has the same digest; one that has none is told."""
    assert digest_element((1, [2]), "w") == digest_element((1, [2]), "w") != digest_element((1, [3]), "w")
    one, other = (lambda x: x + 1), (lambda x: x - 1)
    assert digest_element((one, [one]), "w") == digest_element((one, [one]), "w") != digest_element((one, [other]), "w")
    with pytest.raises(DigestError, match=r"^process 'p', task 3 \(f\), an element, argument 2 at \[0\] is of type"):
        digest_element((1, [lock]), "process 'p', task 3 (f)")


class Flow:
    """Says itself what it is in a digest, as a process does."""

    def __init__(self, name, *inner):
        self.name = name
        self.inner = inner
        self.lock = threading.Lock()

    def __procession_digest__(self):
        return fingerprint_of(self.name, self.inner)

    def __call__(self):
        pass


def test_what_says_itself_what_it_is_counts_as_that():
    """A process in a process is its name and its own fingerprint."""
    was = plain((Flow("a", (fetch, (1,), {})),))
    assert was == plain((Flow("a", (fetch, (1,), {})),))
    assert was.changed(plain((Flow("a", (fetch, (2,), {})),))) == {0}
    assert was.first_difference(plain((Flow("b", (fetch, (1,), {})),))) == (
        "task 0 was test_fingerprint:Flow 'a', is test_fingerprint:Flow 'b'"
    )
    with pytest.raises(DigestError, match="^process 'inner', task 0"):
        plain((Flow("outer", (Flow("inner", (fetch, (lock,), {})), (), {})),))


def test_a_process_in_a_process_is_its_name_and_its_tasks():
    """As a task, by its method, and as an argument; whatever it has run before."""

    def nested(name, url, **how):
        inner = Process(name, **how)
        inner.map(fetch, [url])
        return inner

    for place in range(3):
        was, same, tasks, name = (
            [(fetch, (inner,), {}), (inner, (), {}), (inner.execute, (), {})][place]
            for inner in (nested("a", "u"), nested("a", "u", strategy="parallel"), nested("a", "v"), nested("b", "u"))
        )
        before = fingerprint_of("p", [was])
        assert before == fingerprint_of("p", [same])
        assert before.changed(fingerprint_of("p", [tasks])) == before.changed(fingerprint_of("p", [name])) == {0}
    inner = nested("a", "u")
    before = plain((inner,))
    inner.execute()
    assert plain((inner,)) == before


@given(
    st.text(max_size=5),
    st.lists(st.tuples(st.sampled_from([fetch, len, max]), st.tuples(st.integers(), leaves))),
)
def test_a_fingerprint_survives_being_written(name, tasks):
    """Whatever the process is called."""
    fingerprint = fingerprint_of(name, [(function, args, {}) for function, args in tasks])
    again = Fingerprint.from_bytes(fingerprint.to_bytes())
    assert again == fingerprint
    assert [again.name(place) for place in range(again.tasks)] == [qualified(function) for function, _ in tasks]


def test_a_fingerprint_is_small():
    """About 16 bytes a task when written, and each name once."""
    assert len(plain(*[(fetch, place) for place in range(10_000)]).to_bytes()) < 170_000


@pytest.mark.parametrize("cut", [0, 1, 20, 60, -1, -16, -17])
def test_a_fingerprint_that_was_cut_short_is_refused(cut):
    """Never read as a smaller one."""
    written = plain((fetch, 1), (len, "a")).to_bytes()
    with pytest.raises(ValueError, match="not the fingerprint"):
        Fingerprint.from_bytes(written[:cut])


def test_a_fingerprint_of_a_newer_version_is_refused():
    """By its number."""
    written = plain((fetch, 1)).to_bytes().replace(b'"version": 2', b'"version": 3')
    with pytest.raises(ValueError, match="of version 3; version 2 is known"):
        Fingerprint.from_bytes(written)
