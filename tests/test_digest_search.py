"""Digests of values that are made up: equal for equal values, and for no others."""

from hypothesis import given
from hypothesis import strategies as st

from procession._plan.digest import digest
from test_digest import Point, copied

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
