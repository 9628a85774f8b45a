"""Any value comes over as pickle alone would have brought it: whatever is in it, and however large its parts are."""

import pickle
import sys

import pytest
from hypothesis import given, settings, strategies

numpy = pytest.importorskip("numpy")
if sys.platform == "win32":
    pytest.skip("there is no such memory on Windows", allow_module_level=True)

import arrays
from procession import Process
from procession._remote.wire import packed
from procession._remote.wire.packed import Packed, Packer, unpack
from procession._remote.wire.serialize import pack_calls
from procession._remote.wire.snapshots import Snapshots

LARGE = 64
"""What counts as large here, in bytes, so that values stay small."""

sizes = strategies.sampled_from([0, 1, LARGE // 8 - 1, LARGE // 8, LARGE // 8 + 1, 100, 1000])
kinds = strategies.sampled_from(["f8", "i1", "?", "c16", "M8[s]", "S3", "U2", [("a", "i4"), ("b", "f8", 2)]])


@strategies.composite
def made_arrays(draw):
    """Arrays of all kinds: views, in Fortran order, read-only, empty, structured."""
    array = numpy.zeros(draw(sizes) * 2, dtype=draw(kinds))
    array.view("u1")[:] = numpy.arange(array.nbytes, dtype="u1") % 2
    how = draw(
        strategies.sampled_from(["as it is", "slice", "step", "back", "columns", "Fortran", "read-only", "apart"])
    )
    if how == "slice":
        array = array[len(array) // 2 :]
    elif how == "step":
        array = array[::2]
    elif how == "back":
        array = array[::-1]
    elif how == "columns":
        array = array.reshape(2, -1).T
    elif how == "Fortran":
        array = numpy.asfortranarray(array.reshape(2, -1))
    elif how == "read-only":
        array.flags.writeable = False
    elif how == "apart":
        array = array.reshape(2, -1)[:, 1:]
    return array


plain = strategies.one_of(
    strategies.none(),
    strategies.integers(),
    strategies.text(max_size=5),
    strategies.binary(max_size=5),
    strategies.sampled_from(
        [b"b" * 1000, bytearray(b"a" * 1000), "é" * 1000, "a" * 100_000, b"b" * 100_000, 1 << 9000]
    ),
    made_arrays(),
)
values = strategies.recursive(
    plain,
    lambda inner: strategies.one_of(
        strategies.lists(inner, max_size=4),
        strategies.tuples(inner, inner),
        strategies.dictionaries(strategies.text(max_size=2), inner, max_size=3),
        inner.map(lambda one: [one, one]),
        inner.map(arrays.Box),
    ),
    max_leaves=6,
)


def alike(one, other):
    """Return whether two values are the same in all that can be seen."""
    assert type(one) is type(other)
    if isinstance(one, numpy.ndarray):
        assert arrays.facts(one) == arrays.facts(other)
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        assert [a is one[0] for a in one] == [b is other[0] for b in other]
        return all(map(alike, one, other))
    elif isinstance(one, dict):
        assert list(one) == list(other)
        return all(map(alike, one.values(), other.values()))
    elif isinstance(one, arrays.Box):
        return alike(one.content, other.content)
    else:
        assert one == other
    return True


def sent(data):
    """Return what the other side gets."""
    arrived = pickle.loads(pickle.dumps(data))
    if isinstance(data, Packed):
        arrived.files = data.files
    return unpack(arrived)


@pytest.fixture(autouse=True, scope="module")
def small_threshold():
    """More than a few bytes are large."""
    before, packed.LARGE = packed.LARGE, LARGE
    yield
    packed.LARGE = before


@settings(deadline=None)
@given(values)
def test_a_result_comes_as_pickle_would_have_brought_it(value):
    """Also one that is packed after another."""
    packer = Packer()
    for _ in range(2):
        assert alike(sent(packer(value)), pickle.loads(pickle.dumps(value, 5)))


@settings(deadline=None)
@given(strategies.lists(values, max_size=4), strategies.booleans())
def test_calls_come_as_pickle_would_have_brought_each(arguments, whole):
    """In the first message and in those after it, and nothing that one call has is another's, if it can be changed."""
    snapshots = Snapshots()
    calls = [(number, -1, 1, None, arrays.same, (value, value), {}) for number, value in enumerate(arguments)]
    for _ in range(3):
        data, _ = pack_calls(calls, snapshots, whole=whole)
        for call, arrived in zip(calls, sent(data), strict=True):
            ours = pickle.loads(pickle.dumps(call, 5))
            assert arrived[:5] == call[:5]
            assert alike(arrived[5], ours[5])


@settings(deadline=None)
@given(made_arrays())
def test_a_change_of_what_came_changes_nothing_else(array):
    """Neither the array that was sent, nor what comes the next time."""
    snapshots, before = Snapshots(), array.tobytes()
    calls = [(number, -1, 1, None, arrays.same, (array,), {}) for number in range(2)]
    for _ in range(2):
        data, _ = pack_calls(calls, snapshots, whole=False)
        one, other = (call[5][0] for call in sent(data))
        if array.nbytes > 2 * LARGE and one.flags.writeable:
            one[...] = numpy.zeros_like(one)
            assert other.tobytes() == before
        assert array.tobytes() == before


def test_a_sample_of_values_goes_there_and_back():
    """Through real worker processes, with the real size that counts as large."""
    packed.LARGE = 1 << 20
    sample = [
        numpy.arange(1 << 18, dtype="f8").reshape(512, 512).T,
        numpy.zeros(1 << 16, [("a", "i4"), ("b", "f8", 3)]),
        {"bytes": b"b" * 3_000_000, "text": "é" * 2_000_000, "array": bytearray(b"a" * 2_000_000)},
        [numpy.zeros((0, 5)), numpy.ones(1 << 17), numpy.ones((1 << 17) + 1)],
        [(number, str(number)) for number in range(200_000)],
    ]
    process = Process("sample", "parallel", 2, executor="processes")
    process.map(arrays.same, sample)
    (results,) = process.execute()
    assert all(map(alike, results, sample))
