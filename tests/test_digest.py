"""Digests and fingerprints: how a later run tells whether a task is still the same."""

import array
import collections
import copy
import copyreg
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import itertools
import json
import marshal
import operator
import os
import pathlib
import pickle
import re
import socket
import subprocess
import sys
import threading
import types
import typing
import uuid
import zlib
import zoneinfo
from unittest.mock import MagicMock, Mock

import attrs
import numpy
import pandas
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from procession import DigestError, Process, task
from procession._model.task import MapFunction, name_of
from procession._plan import digest as digest_module
from procession._plan.digest import digest, digest_element
from procession._plan.fingerprint import Fingerprint, called, fingerprint_of, qualified
from procession._plan.parts import main_module


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Level(enum.IntEnum):
    LOW = 1


Pair = collections.namedtuple("Pair", "left right")


@dataclasses.dataclass
class Point:
    x: int
    y: object = None
    note: object = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Fixed:
    kinds: typing.ClassVar[list] = []
    x: int
    note: object = dataclasses.field(default=None, compare=False)


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a, b):
        self.a = a
        self.b = b


class Tags(set):
    pass


class Node:
    def __init__(self, *others, label=""):
        self.others = list(others)
        self.label = label


class Client:
    def __init__(self, address="a", lock=None):
        self.address = address
        self.lock = lock

    def fetch(self, url):
        return url

    @classmethod
    def of(cls):
        return cls()

    @functools.cached_property
    def length(self):
        return len(self.address)


class Counted:
    """Counts how often it is taken apart."""

    def __init__(self):
        self.times = 0

    def __reduce__(self):
        self.times += 1
        return Counted, tuple([i] for i in range(100))


def fetch(url, deep=False):
    return url


@functools.lru_cache
def cached(x):
    return x


def limited(n):
    """A decorator whose functions have all the same name and code, and each its own limit."""

    def decorate(function):
        @functools.wraps(function)
        def call(*args):
            return function(*args)[:n]

        return call

    return decorate


def whole(url):
    return url


short = limited(3)(whole)
short.__qualname__ = "short"


def adder(n):
    return lambda x: x + n


def copied(text):
    """An equal string that is another object, not interned."""
    return "".join([text, "!"])[:-1]


def samples():
    """Values of many kinds, each with a name."""
    loop = [1]
    loop.append(loop)
    left, right = Node(label="l"), Node(label="r")
    left.others.append(right)
    right.others.append(left)
    return {
        "nothing": None,
        "numbers": (0, -1, 2**31, -(2**31) - 1, 2**200, True, 1.5, -0.0, float("inf"), float("nan"), 1e-320, 2j),
        "text": ("", "a", "é", "\ud800", "😀", "\ud83d\ude00", b"", b"\x00"),
        "containers": [[], (), {}, set(), [1, [2, (3,)]], {"b": {1: 2}, "a": [None]}, ...],
        "sets": [{"x", "y", "z", 1, None}, frozenset("abcdefg"), {("a", 1), ("b", (2,))}, Tags("abcdefgh")],
        "dicts": [{"x": 1, 2: "y", None: {"z"}, ("t", (1,)): []}, collections.OrderedDict(b=1, a=[2])],
        "more dicts": [collections.defaultdict(list, {"k": [1], "j": [2]}), collections.Counter("abca")],
        "long": ["x" * 5000, {"k": b"y" * 5000}, list(range(3000))],
        "collections": [collections.deque([1, "a"], 3), Pair(1, [2]), array.array("d", [1.0]), bytearray(b"ab")],
        "numbers of classes": [decimal.Decimal("1.50"), fractions.Fraction(1, 3), Level.LOW, range(3), slice(1, None)],
        "times": [
            datetime.date(2026, 11, 24),
            datetime.datetime(2026, 11, 24, 1, 2, 3, 4, datetime.UTC, fold=1),
            datetime.time(1, 2),
            datetime.timedelta(days=1, microseconds=1),
            datetime.timezone(datetime.timedelta(hours=2), "x"),
        ],
        "enums": [Colour.RED, Access.READ, Access.READ | Access.WRITE],
        "paths": [pathlib.PurePosixPath("/a/b/../c"), pathlib.PureWindowsPath("c:/x")],
        "objects": [Point(1, [2]), Fixed(1), Slotted(1, {"a"}), Node(label="n"), types.SimpleNamespace(b=1, a=2)],
        "others": [uuid.UUID(int=5), re.compile("a+", re.IGNORECASE), ValueError("a", 2), NotImplemented, object()],
        "types": [int, Point, list[int], collections.OrderedDict, pathlib.Path, types],
        "functions": [
            len,
            fetch,
            cached,
            str.upper,
            "a".upper,
            Client("b").fetch,
            Client.of,
            dict.fromkeys,
            json.dumps,
        ],
        "closures": [adder(1), lambda x, y=2, *, z=[3]: x, functools.partial(fetch, "u", deep=True)],
        "operators": [operator.itemgetter(1, 2), operator.attrgetter("a.b"), operator.or_],
        "views": [{"a": 1}.keys(), {"a": 1}.values(), {"a": [1]}.items(), types.MappingProxyType({"a": 1})],
        "cycles": [loop, left, [right, left]],
    }


GOLDEN = {
    "nothing": "738096e476d3c5447c3cb95c39bfc964",
    "numbers": "52cfe9074535c909f4571e5134fa22ab",
    "text": "81e3421babd320d290b89560c406cfe3",
    "containers": "4dc550bf3d86855a956db2d3968f5960",
    "sets": "a6f75d30d182766b7633ef87159c29bb",
    "dicts": "525f3551fbe1d25744c4c0d4aed6d020",
    "more dicts": "8e48862c37d31c96569260a0dddf809e",
    "long": "bcc67c12de8ff459e1ff545144f7f88a",
    "collections": "a5d10714fc9ad7b12f23ab8b99f1955d",
    "numbers of classes": "7d09b71133f1af3328cad8a8142f0e40",
    "times": "dcf22e626cf676904d7237e9e667512d",
    "enums": "6eecabdefcd8918bb77095e22ae00ac7",
    "paths": "4500604aa917376645a03925e6d7fe82",
    "objects": "60d56e718f5a04c4a1deb1644b21d87e",
    "others": "a566fa50a36dcb939740c5b6d8b842f2",
    "types": "a81df8d85902f592332d4e7e1450d790",
    "functions": "04dbdcad4079db082337613bc57de986",
    "closures": "18fe41ab6b420d6fb1ed3ed7ff33bf8f",
    "operators": "a67e55170a9799ba3936b9ed6603a6be",
    "views": "d0d92a40f6bd99433c0d316d0d97e27c",
    "cycles": "b0f320c7f04aea408ed7b26559114e60",
}


def test_digests_are_the_same_in_every_version_of_python():
    """A run that is resumed under another Python finds its tasks again."""
    assert {name: digest(value).hex() for name, value in samples().items()} == GOLDEN


def test_exceptions_are_what_they_say_whatever_else_is_imported(monkeypatch):
    """A library that has them pickled in another way changes nothing."""
    error = ValueError("a", 2)
    before = digest(error)
    monkeypatch.setitem(copyreg.dispatch_table, ValueError, lambda error: (ValueError, error.args, {"more": 1}))
    assert digest(error) == before


@pytest.mark.parametrize("seed", ["0", "1", "12345"])
def test_digests_do_not_depend_on_the_interpreter(seed):
    """Hash seeds change the order of sets, and nothing else."""
    script = "import test_digest as t; print({n: t.digest(v).hex() for n, v in t.samples().items()} == t.GOLDEN)"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=50)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_digests_do_not_change_when_they_are_taken_or_values_are_used():
    """Looking leaves no traces, in caches of an object neither."""
    client = Client("abc")
    before = digest(client)
    assert client.length == 3
    assert digest(client) == before != digest(Client("abd"))
    values = samples()
    assert [digest(value) for value in values.values()] == [digest(value) for value in values.values()]


# What counts

DIFFERENT = [
    0,
    1,
    True,
    1.0,
    1 + 0j,
    "1",
    b"1",
    bytearray(b"1"),
    Level.LOW,
    decimal.Decimal(1),
    0.0,
    -0.0,
    None,
    ...,
    (),
    [],
    {},
    set(),
    frozenset(),
    [1],
    (1,),
    {1},
    frozenset({1}),
    {1: 1},
    [[1]],
    [(1,)],
    [[1], []],
    [[], [1]],
    [[], 1],
    [None],
    {1: [2], 3: [4]},
    {1: [4], 3: [2]},
    {1: 2, 3: 4},
    {1: 4, 3: 2},
    [1, 2],
    [2, 1],
    "ab",
    ["a", "b"],
    ["ab"],
    ["ab", ""],
    ["", "ab"],
    "\ud83d\ude00",
    "😀",
    2**64,
    -(2**64),
    float("nan"),
    float("inf"),
    array.array("b", [1]),
    array.array("B", [1]),
    Colour.RED,
    Colour.BLUE,
    Colour,
    "RED",
    Pair(1, 2),
    (1, 2),
    Point(1),
    Point(2),
    Point(1, []),
    Fixed(1),
    Fixed(2),
    Slotted(1, 2),
    Slotted(2, 1),
    Tags([1]),
    Tags([2]),
    collections.OrderedDict(a=1, b=2),
    collections.OrderedDict(b=2, a=1),
    {"a": 1, "b": 2},
    collections.deque([1]),
    collections.deque([1], 5),
    range(3),
    range(4),
    range(0, 6, 2),
    int,
    float,
    fetch,
    Client("a").fetch,
    Client("b").fetch,
    adder(1),
    adder(2),
    adder(1.0),
    functools.partial(fetch, 1),
    functools.partial(fetch, 2),
    functools.partial(fetch, url=1),
    lambda x=1: x,
    lambda x=2: x,
    lambda *, y=2: y,
    pathlib.PurePosixPath("a"),
    pathlib.PureWindowsPath("a"),
    datetime.date(2026, 1, 1),
    datetime.datetime(2026, 1, 1),
    datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    "x" * 5000,
    "x" * 4999 + "y",
    ["x" * 5000],
    ["x" * 4999 + "y"],
    Node(),
    Node(Node()),
    Node(label="x"),
]


def test_different_values_have_different_digests():
    """Type, value, order where there is one, and what is bound all count."""
    assert len({digest(value) for value in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": [2]}, {"b": [2], "a": 1}),
        (set("abcdef"), set("fedcba")),
        (["ab", "ab"], ["ab", copied("ab")]),
        ([[0]] * 2, [[0], [0]]),
        (float("nan"), -float("nan")),
        (float("inf") - float("inf"), float("nan")),
        (10**30, 10**15 * 10**15),
        (range(0, 3, 2), range(0, 4, 2)),
        (range(5, 5), range(0)),
        (Point(1, note="a"), Point(1, note="b")),
        (Fixed(1, "a"), Fixed(1, "b")),
        (adder(1), adder(1)),
        (uuid.UUID(int=3), uuid.UUID(int=3, is_safe=uuid.SafeUUID.safe)),
        (collections.Counter("ab"), collections.Counter("ba")),
        (fetch, task(retries=3)(fetch)),
        (functools.partial(len, "a"), task(retries=3)(functools.partial(len, "a"))),
        (fractions.Fraction(2, 4), fractions.Fraction(1, 2)),
    ],
)
def test_what_is_no_part_of_a_value_does_not_count(one, other):
    """Order of dicts and sets, shared references, interning, and how a value was written do not matter."""
    assert digest(one) == digest(other)
    assert digest([one, 1]) == digest([other, 1])


def test_a_copy_through_pickle_has_the_same_digest():
    """Values that came from another process are the same values."""
    left_out = {"closures", "types", "functions", "operators", "views"}
    for name, value in samples().items():
        if name not in left_out:
            assert digest(pickle.loads(pickle.dumps(value))) == bytes.fromhex(GOLDEN[name]), name


def test_bodies_of_functions_do_not_count_and_their_names_do():
    """Mending a function is the main reason to resume."""
    namespace = {}
    exec("def outer():\n def f(x=1): return x\n return f\n", namespace)
    one = namespace["outer"]()
    exec("def outer():\n def f(x=1): return x + 1\n return f\n", namespace)
    assert digest(one) == digest(namespace["outer"]())
    exec("def outer():\n def g(x=1): return x\n return g\n", namespace)
    assert digest(one) != digest(namespace["outer"]())


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=3)
    | st.binary(max_size=3)
    | st.complex_numbers()
)
hashable = st.recursive(leaves, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(hashable, inner, max_size=4)
        | st.sets(hashable, max_size=4)
        | st.builds(Point, inner, inner)
    ),
    max_leaves=12,
)


def rebuilt(value):
    """An equal value that shares nothing with the first, with dicts and sets filled the other way round."""
    if type(value) is str:
        return copied(value)
    if type(value) in {list, tuple}:
        return type(value)(map(rebuilt, value))
    if type(value) in {set, frozenset}:
        return type(value)(map(rebuilt, reversed(list(value))))
    if type(value) is dict:
        return {rebuilt(key): rebuilt(value[key]) for key in reversed(value)}
    return Point(rebuilt(value.x), rebuilt(value.y)) if type(value) is Point else value


def told(value):
    """The value as text that is the same for equal values only: the slow and plain rival of a digest."""
    if isinstance(value, (set, frozenset)):
        inside = ",".join(sorted(map(told, value)))
    elif isinstance(value, dict):
        inside = ",".join(sorted(f"{told(key)}:{told(item)}" for key, item in value.items()))
    elif isinstance(value, (list, tuple)):
        inside = ",".join(map(told, value))
    elif isinstance(value, Point):
        inside = f"{told(value.x)},{told(value.y)}"
    else:
        inside = repr(value)
    return f"{type(value).__name__}<{inside}>"


@given(values)
def test_equal_values_have_equal_digests(value):
    """However they were made."""
    assert digest(value) == digest(rebuilt(value))
    assert digest([value, value]) == digest([value, rebuilt(value)])


@given(values, values)
def test_digests_are_equal_for_equal_values_only(one, other):
    """Two values have one digest if and only if they are told alike."""
    assert (digest(one) == digest(other)) is (told(one) == told(other))


# Depth, sharing, cycles


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


# Arrays


def test_an_array_is_its_type_shape_and_content():
    """However it lies in memory."""
    numbers = numpy.arange(12.0).reshape(3, 4)
    same = [numbers.copy(), numpy.asfortranarray(numbers), numpy.vstack([numbers, numbers])[:3]]
    assert {digest(array) for array in same} == {digest(numbers)}
    others = [numbers.T, numbers.reshape(4, 3), numbers.astype("f4"), numbers + 1, numbers.tolist()]
    others += [numpy.ma.array(numbers, mask=numbers > 3), numpy.ma.array(numbers, mask=numbers > 4)]
    others += [numpy.array(["2026-11-24"], "M8[D]"), numpy.array(["2026-11-24"], "M8[s]")]
    others += [
        numpy.array([1, "a", [2]], object),
        numpy.array([1, "a", [3]], object),
        numpy.float64(1),
        numpy.float32(1),
    ]
    others += [numpy.zeros(2, [("a", "i4"), ("b", "i4")]), numpy.zeros(2, [("a", "i4"), ("c", "i4")]), numpy.zeros(0)]
    assert len({digest(value) for value in [numbers, *others]}) == len(others) + 1


def test_a_scalar_of_numpy_is_its_type_and_value():
    """Whatever module its version keeps them in."""
    numbers = [numpy.int64(1), numpy.float64(1), numpy.float32(1), numpy.bool_(True), numpy.str_("1"), 1, 1.0, True]
    numbers += [numpy.datetime64("2026-11-24"), numpy.datetime64("2026-11-24", "s"), numpy.timedelta64(1, "s")]
    numbers += [
        numpy.array([(1, "a")], [("n", "i8"), ("o", "O")])[0],
        numpy.array([(1, 2)], [("n", "i8"), ("m", "i8")])[0],
    ]
    assert len({digest(value) for value in numbers}) == len(numbers)
    assert [digest(copy.deepcopy(value)) for value in numbers] == [digest(value) for value in numbers]
    assert digest(numpy.int64(1)).hex() == "18bfd1471ca0116a8d255fae7425c09f"
    assert digest(numpy.ma.array([1.0, 2.0], mask=[0, 1])).hex() == "adc63093197adfeede90674948407fdf"
    assert digest(numpy.zeros(2, [("a", "i4"), ("b", "S3")])).hex() == "11082ebfc6631cb49dae5205f6fb3d7c"


# Tables and models


def tables():
    """A frame of columns of many kinds."""
    times = pandas.date_range("2026-01-01", periods=3, tz="Europe/Rome")
    return pandas.DataFrame(
        {
            "numbers": [1, 2, 3],
            "halves": [0.5, None, 1.5],
            "text": ["a", None, "c"],
            "times": times,
            "spans": pandas.to_timedelta([1, 2, 3], "h"),
            "months": pandas.period_range("2026-01", periods=3, freq="M"),
            "kinds": pandas.Categorical(["x", "y", "x"]),
            "missing": pandas.array([1, None, 3], "Int64"),
            "whether": pandas.array([True, None, False], "boolean"),
            "objects": [{"a": 1}, [2], None],
            "ranges": pandas.arrays.IntervalArray.from_breaks([0, 1, 2, 3]),
            "few": pandas.arrays.SparseArray([0, 0, 1]),
        },
        index=pandas.MultiIndex.from_tuples([("a", 1), ("a", 2), ("b", 1)], names=["letter", "number"]),
    )


def test_a_table_is_its_content_whatever_was_looked_at():
    """Indexes cache what they were asked for, and frames keep columns in blocks; neither is part of them."""
    was = digest(tables())
    table = tables()
    repr(table), repr(table.index), table.index.is_unique, table.loc["a"], table["times"].dt.day
    assert digest(table) == digest(table.copy()) == digest(pickle.loads(pickle.dumps(table))) == was
    assert digest(pandas.concat([table[:1], table[1:]])) == digest(table[table["numbers"] > 0]) == was
    index = pandas.date_range("2026-01-01", periods=3)
    before = digest(index)
    repr(index), index.is_unique, index.get_loc("2026-01-02"), index.year
    assert digest(index) == digest(pandas.DatetimeIndex(list(index))) == before


def test_what_is_another_table_has_another_digest():
    """A cell, a type, a name, an order, an index, an attribute."""
    table, others = tables(), []
    for column in table.columns:
        other = tables()
        other[column] = other[column].iloc[[2, 0, 1]].array
        others.append(other)
    for column, kind in [("numbers", "int32"), ("numbers", "Int64"), ("kinds", "object"), ("text", "category")]:
        others.append(table.astype({column: kind}))
    others += [table.rename(columns={"few": "fewer"}), table[reversed(table.columns)], table[:2], table.reset_index()]
    others += [table.set_index("times"), table.set_index("numbers"), table["numbers"], table["halves"], table.index]
    others += [table.columns, table["numbers"].array, pandas.RangeIndex(3), pandas.Index([0, 1, 2], name="n")]
    others += [pandas.Timestamp("2026-01-01"), pandas.Timestamp("2026-01-01", tz="UTC"), pandas.Timedelta(1, "h")]
    others += [pandas.Timestamp("2026-01-02"), pandas.Period("2026-01"), pandas.NaT, pandas.NA, tables().attrs]
    marked = tables()
    marked.attrs["source"] = "a"
    others.append(marked)
    assert len({digest(value) for value in [table, *others]}) == len(others) + 1
    assert [digest(copy.deepcopy(value)) for value in others] == [digest(value) for value in others]


class Config(pydantic.BaseModel):
    url: str
    retries: int = 5
    _made: int = pydantic.PrivateAttr(default=1)

    @functools.cached_property
    def host(self):
        return self.url.upper()


class Loose(pydantic.BaseModel, extra="allow"):
    url: str


def test_models_that_are_equal_have_one_digest():
    """Which fields were set, and what was cached, is no part of a model of pydantic."""
    spelt = Config.model_validate_json(Config(url="a").model_dump_json())
    assert digest(Config(url="a")) == digest(spelt) == digest(Config(url="a", retries=5))
    assert spelt.host == "A"
    assert digest(spelt) == digest(Config(url="a"))
    private = Config(url="a")
    private._made = 2
    others = [
        Config(url="b"),
        Config(url="a", retries=6),
        private,
        Loose(url="a"),
        Loose(url="a", more=1),
        {"url": "a"},
    ]
    assert len({digest(value) for value in [spelt, *others]}) == len(others) + 1


@attrs.define
class Place:
    x: int
    note: str = attrs.field(default="", eq=False)


@attrs.frozen(slots=False, cache_hash=True)
class Spot:
    x: int

    @functools.cached_property
    def double(self):
        return self.x * 2


@attrs.define
class Own:
    x: int
    y: int = 0

    def __getstate__(self):
        return {"x": self.x}

    def __setstate__(self, state):
        self.x = state["x"]


def test_objects_of_attrs_are_what_they_compare():
    """A cached hash or property, and what is not compared, does not count; what a class says itself does."""
    assert digest(Place(1, "a")) == digest(Place(1, "b")) != digest(Place(2, "a"))
    spot = Spot(1)
    hash(spot), spot.double
    assert digest(spot) == digest(Spot(1)) != digest(Spot(2))
    assert digest(Own(1, 2)) == digest(Own(1, 3)) != digest(Own(2, 2))


def test_a_time_zone_is_its_key():
    """In every version of Python; one that was read from a file has none, and is refused."""
    zones = [zoneinfo.ZoneInfo("Europe/Rome"), zoneinfo.ZoneInfo("Europe/Paris"), datetime.UTC]
    assert len({digest(zone) for zone in zones}) == len(zones)
    assert digest(zoneinfo.ZoneInfo.no_cache("Europe/Rome")) == digest(zones[0])
    assert digest(datetime.datetime(2026, 1, 5, tzinfo=zones[0])).hex() == "ea7f10846c29c4b20f36d8123550b867"


# What cannot be digested


class Raises:
    def __reduce__(self):
        raise OSError("no\x1b[31m")


lock = threading.Lock()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ((fetch, (1, lock), {}), "task 1 (test_digest:fetch), argument 2 is of type _thread.lock, which cannot"),
        ((fetch, (), {"url": lock}), "task 1 (test_digest:fetch), argument 'url' is of type _thread.lock"),
        ((fetch, ([1, {"k": (lock,)}],), {}), "argument 1 at [1][k][0] is of type _thread.lock"),
        ((fetch, (Client(lock=lock),), {}), "argument 1 at .lock is of type _thread.lock"),
        ((fetch, (Node({"a": Slotted(1, [lock])}),), {}), "argument 1 at .others[0][a].b[0] is of type _thread.lock"),
        ((fetch, ({"secret text": lock},), {}), "argument 1 at […] is of type"),
        ((adder(lock), (1,), {}), "(test_digest:adder.<locals>.<lambda>), the callable at variable n is of type"),
        ((lambda x=lock: x, (), {}), "the callable at variable x is of type _thread.lock"),
        ((Client(lock=[lock]).fetch, ("u",), {}), "(test_digest:Client.fetch), the callable at .lock[0] is of type"),
        ((functools.partial(fetch, 1, lock), (), {}), "(test_digest:fetch), the callable at [1] is of type"),
        ((fetch, ((x for x in "ab"),), {}), "type builtins.generator, which cannot be digested (an iterator can be"),
        ((fetch, (iter({1, 2}),), {}), "type builtins.set_iterator"),
        ((fetch, (itertools.count(),), {}), "type itertools.count"),
        ((fetch, (threading.local(),), {}), "type _thread._local"),
        ((fetch, (memoryview(b"a"),), {}), "type builtins.memoryview"),
        ((fetch, (sys._getframe(),), {}), "type builtins.frame"),
        ((fetch, (Raises(),), {}), r"type test_digest.Raises, which cannot be digested (OSError: no\x1b[31m)"),
        (
            (MapFunction(fetch), ([1, lock],), {}),
            "(map of test_digest:fetch), argument 1 at [1] is of type _thread.lock",
        ),
        ((MapFunction(adder(lock)), ([1],), {}), "the callable at variable n is of type _thread.lock"),
    ],
)
def test_what_cannot_be_digested_is_told_plainly(call, text):
    """Process, task, argument, the way to it, its type, and what would be right."""
    with pytest.raises(DigestError) as raised:
        fingerprint_of("nightly\n", [(fetch, (1,), {}), call])
    assert text in str(raised.value)
    assert str(raised.value).startswith(r"process 'nightly\\n', task 1 (")
    assert str(raised.value).endswith("leave it out of what __getstate__ returns")
    assert "secret" not in str(raised.value)
    assert isinstance(raised.value, TypeError)


def test_open_files_and_sockets_cannot_be_digested(tmp_path):
    """They are of this process alone."""
    with open(tmp_path / "a", "w") as file, pytest.raises(DigestError, match="TextIOWrapper"):
        digest([file])
    with socket.socket() as plug, pytest.raises(DigestError, match="argument 1 is of type socket.socket"):
        fingerprint_of("p", [(fetch, (plug,), {})])


def test_a_value_that_is_too_long_is_told_plainly(monkeypatch):
    """What can be written of one value at a time has a limit, of 2 GiB."""

    def limited(value, version):
        written = marshal.dumps(value, version)
        if len(written) > 10_000:
            raise ValueError("unmarshallable object")
        return written

    monkeypatch.setattr(digest_module, "dumps", limited)
    for value in ("x" * 20_000, ["x" * 20_000]):
        with pytest.raises(DigestError, match="argument 2 .*more than 2 GiB"):
            plain((fetch, 1, value))


class Strange:
    """Its own code fails to say what it is."""

    def __getattr__(self, name):
        raise OSError(name)

    def __call__(self):
        pass


def test_attributes_that_raise_are_as_good_as_none():
    """A callable object that is odd in itself is no worse off than another."""
    assert plain((Strange(),)) == plain((Strange(),))
    assert digest([Strange()]) == digest([Strange()])


def test_the_error_of_a_reduce_is_the_cause():
    """Who wrote it sees where it was raised."""
    with pytest.raises(DigestError) as raised:
        digest(Raises())
    assert isinstance(raised.value.__cause__, OSError)


# Fingerprints


def plain(*each):
    return fingerprint_of("p", [(function, tuple(args), {}) for function, *args in each])


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


def test_of_other_arguments_it_is_said_which():
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


# What has no name of its own


def renamed(function, name):
    function.__qualname__ = name
    return function


def loaders():
    """Functions and objects that share a name, in pairs of which each does something else."""

    def of(source, how):
        return lambda: how(source)

    def local(source):
        class Load:
            def __call__(self):
                return source

        return Load

    return [
        (lambda: "users", lambda: "orders"),
        (lambda: [x + 1 for x in "a"], lambda: [x - 1 for x in "a"]),
        (functools.partial(lambda x: x + 1, 2), functools.partial(lambda x: x - 1, 2)),
        (of(1, lambda x: x + 1), of(1, lambda x: x - 1)),
        (MapFunction(lambda x: x.a), MapFunction(lambda x: x.b)),
        (task(name="load")(fetch), task(name="load")(whole)),
        (task(name="load")(lambda: 1), task(name="load")(lambda: 2)),
        (task(name="load")(len), task(name="load")(functools.partial(max))),
        (types.SimpleNamespace(f=lambda: 1).f, types.SimpleNamespace(f=lambda: 2).f),
        (local("users")(), local("orders")()),
        (local("users"), local("orders")),
        (renamed(lambda: 1, "Client.gone"), renamed(lambda: 2, "Client.gone")),
    ]


@pytest.mark.parametrize("pair", range(len(loaders())))
def test_what_shares_its_name_is_told_apart_by_its_code(pair):
    """Tasks that have changed places are changed tasks; the same ones, made anew, are not."""
    one, other = loaders()[pair]
    same = loaders()[pair]
    was = plain((one,), (other,))
    assert was.first_difference(plain(*zip(same))) is None
    assert was.changed(plain((other,), (one,))) == {0, 1}
    assert plain((one,)).changed(was) == plain((one,)).changed(plain((one,), (other,))) == {1}
    # As an argument, directly and in what holds it, of one task and of several.
    if getattr(one, "__procession_options__", None) is None:
        assert plain((fetch, one), (fetch, other)).changed(plain((fetch, other), (fetch, one))) == {0, 1}
        assert plain((fetch, {"a": [one], "b": other})).changed(plain((fetch, {"b": one, "a": [other]}))) == {0}
        assert plain((fetch, {"a": [one], "b": other})).changed(plain((fetch, {"b": same[1], "a": [same[0]]}))) == set()


def test_code_that_tells_apart_may_be_told_to_get_a_name():
    """The message says what would be right; with names, bodies are free to change, and lines to move."""
    was = plain((lambda: "users",), (lambda: "orders",))
    assert was.first_difference(plain((lambda: "orders",), (lambda: "users",))) == (
        "task 0 (test_digest:test_code_that_tells_apart_may_be_told_to_get_a_name.<locals>.<lambda>) has other code, "
        "which is what tells those of this name apart: give each a name of its own, as in @task(name=...)"
    )
    users, orders = task(name="users"), task(name="orders")
    was = plain((users(lambda: 1),), (orders(lambda: 2),))
    assert was.changed(plain((users(lambda: 3),), (orders(lambda: 4),))) == set()
    assert was.changed(plain((orders(lambda: 2),), (users(lambda: 1),))) == {0, 1}


def test_the_body_of_one_that_shares_its_name_with_no_other_may_change():
    """Mending is what resuming is for; how often it is a task does not matter, nor what it closes over."""
    assert plain((lambda x: x + 1, 1), (fetch, 2)).changed(plain((lambda x: x - 1, 1), (fetch, 2))) == set()
    was, now = ([(make(n), n) for n in range(3)] for make in (lambda n: lambda x: x + n, lambda n: lambda x: x - n))
    assert plain(*was).changed(plain(*now)) == set()


def test_a_second_one_of_a_name_makes_code_count_from_then_on():
    """What stands at the place of another is not taken for it, and what has stayed is."""
    one, other = (lambda: "users"), (lambda: "orders")
    assert plain((one,)).changed(plain((other,), (one,))) == {0, 1}
    assert plain((one,)).changed(plain((one,), (other,))) == {1}


# The same function by another path


SCRIPT = """
import sys
sys.path.insert(0, "")
{how}
from procession._plan.fingerprint import fingerprint_of
calls = [(m.fetch, (1,), {{}}), (m.Loader("a").load, (), {{}}), (len, (m.Loader("b"), m.fetch), {{}})]
print(fingerprint_of("p", calls).to_bytes().hex())
"""


def test_a_module_that_was_the_program_is_the_same_when_it_is_imported(tmp_path):
    """As a script, as `-m`, and imported: functions, methods and arguments."""
    body = "class Loader:\n  def __init__(self, x): self.x = x\n  def load(self): pass\ndef fetch(url): pass\n"
    (tmp_path / "pages.py").write_text(
        body
        + "if __name__ == '__main__':\n  import sys; m = sys.modules['__main__']\n"
        + "\n".join(f"  {line}" for line in SCRIPT.format(how="").splitlines() if line)
    )

    def told(*words):
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        return Fingerprint.from_bytes(bytes.fromhex(done.stdout))

    imported = told("-c", SCRIPT.format(how="import pages as m"))
    assert imported.names == ("pages:fetch", "pages:Loader.load", "builtins:len")
    assert told("pages.py") == told("-m", "pages") == imported


def test_a_module_that_was_moved_is_the_same_where_its_name_says_so():
    """By the end of its path, if all of its tasks have moved; by an explicit name always."""

    def of(*names):
        fingerprint = plain(*[(fetch, 1)] * len(names))
        which = b"".join(at.to_bytes(4, "little") for at in range(len(names)))
        return fingerprint._replace(names=names, which=which, codes=("",) * len(names))

    for was, now in [
        ("pages:fetch", "app.pages:fetch"),
        ("src.app.pages:fetch", "app.pages:fetch"),
        ("map of pages:fetch", "map of app.pages:fetch"),
        ("fetch (pages:fetch)", "fetch (other:get)"),
        ("map of fetch (pages:fetch)", "map of fetch (other:get)"),
    ]:
        assert of(was).first_difference(of(now)) is None
    for was, now in [
        ("pages:fetch", "mypages:fetch"),
        ("a.pages:fetch", "b.pages:fetch"),
        ("pages:fetch", "app.pages:get"),
        ("pages:fetch", "map of app.pages:fetch"),
        ("fetch (pages:fetch)", "get (pages:fetch)"),
        ("fetch (pages:fetch)", "pages:fetch"),
        ("pages:fetch", "procession:Process 'pages:fetch'"),
    ]:
        assert of(was).first_difference(of(now)) == f"task 0 was {was}, is {now}"
    assert of("a:f", "b.a:f").changed(of("b.a:f", "a:f")) == {0, 1}
    assert of("load (a:f)", "load (b:f)").changed(of("load (b:f)", "load (a:f)")) == {0, 1}


def test_a_function_with_an_explicit_name_may_be_another_one():
    """Also a lambda, or one that was made by a function, as long as it closes over the same."""
    load = task(name="load")

    def near(n):
        return load(lambda x: x + n)

    assert plain((load(fetch), 1)).first_difference(plain((load(whole), 1))) is None
    assert plain((load(fetch), 1)).first_difference(plain((load(lambda x: x), 1))) is None
    assert plain((near(1), 1)).first_difference(plain((load(adder(1)), 1))) is None
    assert plain((near(1), 1)).changed(plain((near(2), 1))) == plain((near(1), 1)).changed(plain((load(len), 1))) == {0}


def test_a_process_in_a_process_is_known_by_the_identities_of_its_tasks():
    """Explicit names stand for functions there too, and code tells apart what shares a name."""

    def holding(*functions):
        inner = Process("inner")
        for function in functions:
            inner.add_task(function)
        return plain((inner,))

    load = task(name="load")
    assert holding(load(fetch)) == holding(load(whole)) != holding(task(name="other")(fetch))
    one, other = (lambda: "users"), (lambda: "orders")
    assert holding(one, other) == holding(one, other) != holding(other, one)
    assert holding(one) == holding(other)


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


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (fetch, "test_digest:fetch"),
        (task(retries=2)(fetch), "test_digest:fetch"),
        (task(name="get")(fetch), "get (test_digest:fetch)"),
        (functools.partial(task(name="get")(fetch), 1), "get (test_digest:fetch)"),
        (MapFunction(task(name="get")(fetch)), "map of get (test_digest:fetch)"),
        (cached, "test_digest:cached"),
        (Client, "test_digest:Client"),
        (Client.of, "test_digest:Client.of"),
        (Client("a").fetch, "test_digest:Client.fetch"),
        (operator.itemgetter(1), "operator:itemgetter"),
        (dict.fromkeys, "builtins:dict.fromkeys"),
        (str.upper, "builtins:str.upper"),
        (Mock(), "unittest.mock:Mock"),
    ],
)
def test_tasks_are_recognised_by_where_their_callables_come_from(function, name):
    """Module and qualified name, after the name that was given."""
    assert qualified(function) == name
    assert plain((function, 1)).name(0) == name


def test_a_name_stands_for_a_function_only_where_it_leads_to_it():
    """A decorated function is its name; another one of that name is what it closes over too."""
    other = limited(4)(whole)
    other.__qualname__ = "short"
    assert plain((short, "u")) == plain((task(retries=1)(short), "u"))
    assert plain((short, "u")).changed(plain((other, "u"))) == {0}


def test_a_mock_is_its_name():
    """What it recorded in one run does not make it another in the next."""
    client = MagicMock(name="client")
    before = plain((client.fetch, 1), (fetch, client))
    client.fetch(1)
    assert plain((client.fetch, 1), (fetch, client)) == before != plain((client.other, 1), (fetch, client))


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
        "task 0 was test_digest:Flow 'a', is test_digest:Flow 'b'"
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
