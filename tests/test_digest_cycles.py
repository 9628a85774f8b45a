"""Digests of what is deep, shared, or holds itself."""

import functools
import itertools
import marshal
import types

import pytest

from procession import DigestError
from procession._model.task import MapFunction
from procession._plan import digest as digest_module
from procession._plan.digest import digest
from procession._plan.fingerprint import fingerprint_of
from test_digest import Node, fetch


class Counted:
    """Counts how often it is taken apart."""

    def __init__(self):
        self.times = 0

    def __reduce__(self):
        self.times += 1
        return Counted, tuple([i] for i in range(100))


def test_depth_does_not_matter():
    """Fifty thousand levels of lists, or of objects, are digested like three."""
    deep, other = [], [1]
    for _ in range(50_000):
        deep, other = [deep], [other]
    assert digest(deep) != digest(other)
    chain = Node()
    for _ in range(10_000):
        chain = Node(chain)
    assert digest(chain) != digest(chain.others[0])


def test_what_is_shared_many_times_is_looked_at_once():
    """A value that would have 2 ** 200 parts, were each counted, is digested at once."""
    wide = [types.SimpleNamespace()]
    for _ in range(200):
        wide = [wide, wide]
    assert digest(wide) == digest([wide[0], wide[1]])


def test_an_argument_that_many_tasks_share_is_digested_once():
    """A large object costs its time once, not once for each task."""
    counted = Counted()
    fingerprint_of("p", [(fetch, (counted, place), {"also": [counted]}) for place in range(500)])
    assert counted.times == 1


def test_a_long_text_that_many_tasks_share_is_written_once(monkeypatch):
    """Alone or in a list, the text is not copied for each task."""
    written = []

    def counted(value, version):
        written.append(len(marshal.dumps(value, version)))
        return marshal.dumps(value, version)

    monkeypatch.setattr(digest_module, "dumps", counted)
    text = "x" * 100_000
    fingerprint_of("p", [(fetch, (text, place), {"deep": [text, place]}) for place in range(50)])
    assert sum(length > 100_000 for length in written) <= 3


def ring(*labels):
    nodes = [Node(label=label) for label in labels]
    for node, following in zip(nodes, nodes[1:] + nodes[:1], strict=True):
        node.others.append(following)
    return nodes


def test_cycles_are_digested_by_what_is_seen_from_the_value():
    """The same knot has the same digest, from the same end of it."""
    assert digest(ring("a", "b", "c")[0]) == digest(ring("a", "b", "c")[0])
    different = [ring("a", "b", "c")[0], ring("a", "b", "c")[1], ring("a", "c", "b")[0], ring("a", "b", "d")[0]]
    different += [ring("a")[0], ring("a", "b")[0], Node(ring("a", "b")[1], label="x"), ring("a", "b")]
    assert len({digest(value) for value in different}) == len(different)


def test_a_cycle_may_hold_itself_in_every_way():
    """As an item, a key's value, a default, a closed-over variable, in a set."""
    for make in (self_in_list, self_in_dict, self_in_closure, self_in_set, self_in_method):
        assert digest(make(1)) == digest(make(1)) != digest(make(2)), make


def self_in_list(x):
    value = [x]
    value += [value, [value, (value,)]]
    return value


def self_in_dict(x):
    value = {"x": x}
    value["self"] = [value, {"self": value}]
    return value


def self_in_closure(x):
    def again(n):
        return again(n - x)

    return again


def self_in_set(x):
    value = Node(label=x)
    value.others = {value, Node(value), Node(label="a"), frozenset({value})}
    return value


def self_in_method(x):
    value = Node(label=x)
    value.others = [MapFunction(value.__init__), value.__init__, functools.partial(fetch, value)]
    return value


def test_in_a_cycle_sharing_and_order_of_sets_do_not_count_either():
    """One object twice is as good as two equal ones."""

    def knot(shared):
        top = Node(label="top")
        one = Node(top)
        top.others = [one, one if shared else Node(top), {one, Node(top, label="z"), Node(label="y")}]
        return top

    assert digest(knot(shared=True).others[:2]) == digest(knot(shared=False).others[:2])


def test_many_that_all_know_each_other_are_no_puzzle():
    """A dense knot takes rounds, not all ways through it."""
    nodes = [Node(label=place) for place in range(60)]
    for node in nodes:
        node.others = nodes
    again = [Node(label=place) for place in range(60)]
    for node in again:
        node.others = list(again)
    assert digest(nodes[0]) == digest(again[0]) != digest(again[1])


def test_a_long_way_to_a_cycle_is_linear():
    """Only what lies on a cycle is looked at more than once."""
    value = ring("a", "b")[0]
    for _ in range(10_000):
        value = [value]
    assert digest(value) != digest(value[0])


def test_a_knot_that_would_take_forever_is_refused(monkeypatch):
    """Plainly, rather than after an hour."""
    monkeypatch.setattr(digest_module, "_PATIENCE", 1000)
    nodes = [Node() for _ in range(100)]
    for before, after in itertools.pairwise(nodes):
        before.others.append(after)
        after.others.append(before)
    with pytest.raises(DigestError, match="look too much alike"):
        digest(nodes[0])
