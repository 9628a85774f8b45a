"""Digests: which values are the same to a later run, and which cannot be told apart."""

import array
import collections
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

import pytest

from procession import DigestError, task
from procession._model.task import MapFunction
from procession._plan import digest as digest_module
from procession._plan.digest import digest
from procession._plan.fingerprint import fingerprint_of


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
    modules = os.pathsep.join(filter(None, [os.path.dirname(__file__), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": modules}
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


def plain(*each):
    return fingerprint_of("p", [(function, tuple(args), {}) for function, *args in each])
