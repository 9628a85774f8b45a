"""Digests: 16 bytes that say whether two values are equal, the same in every interpreter.

They depend on no hash seed, no version of Python, no order of sets and dicts, and not on which equal parts of a value
are one object. `1`, `True` and `1.0` differ, as do `0.0` and `-0.0`; every nan is the same.

value ──leaf──▶ digest                          of numbers and text, alone or directly in a container: most values
  │
  └──taken apart──▶ nodes ──parts first──▶ digest of a node: its label and the digests of its parts
                      └──in a cycle──▶ all nodes of the cycle are hashed in rounds, until no round tells more apart
"""

from functools import partial
from hashlib import blake2b
from itertools import pairwise, repeat
from marshal import dumps
from types import EllipsisType, FunctionType
from typing import TYPE_CHECKING, Any, Final, cast

from procession._model.task import drives_tasks
from procession._model.text import shown
from procession._plan.parts import Opaque, nameless, place_of, taken_apart
from procession.errors import DigestError

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE: Final = 16
"""The length of a digest, in bytes."""

SIMPLE: Final = frozenset({int, str, float, bool, complex, bytes, type(None), EllipsisType})
"""Types whose values `marshal` writes as the same bytes in every interpreter, in its version 0, which has neither
references nor interned strings. Containers are written so only if they hold these types alone: `marshal` writes any
buffer as bytes, and dicts in their order."""

_CONTAINERS: Final = frozenset({list, tuple, set, frozenset, dict})
_IN_ANY_ORDER: Final = tuple(cast("Any", kind).__iter__ for kind in (set, frozenset))
_TEXT: Final = frozenset({str, bytes})
_HEAVY: Final = 64
"""Digests of values with so many parts are kept, since a second digest would cost more than a place in a dictionary."""
_HEAVY_BYTES: Final = 4096
"""The same for values of so many bytes."""
_PATIENCE: Final = 1_000_000
"""How many nodes of one cycle are hashed over all rounds before the value is refused: some seconds of work."""


def digest(value: object) -> bytes:
    """Return the digest of a value. Raises `DigestError` if a part of the value has no digest.

    >>> digest({"a": 1, "b": {2, 3}}) == digest({"b": {3, 2}, "a": 1})
    True
    """
    try:
        return Digester().value(value)
    except Refused as refused:
        raise DigestError(f"the value{refused}") from refused.__cause__


def check_order(iterables: tuple[object, ...], where: str) -> None:
    """Raise `DigestError` if an iterable of a map is a set; `where` names process and task.

    >>> check_order(([2, 1], {2, 1}), "process 'p', task 0 (f)")
    Traceback (most recent call last):
        ...
    procession.errors.DigestError: process 'p', task 0 (f), argument 2 is a set, whose elements come ...
    """
    try:
        refuse_sets(iterables)
    except Refused as refused:
        raise DigestError(f"{where}, {refused}") from None


def refuse_sets(iterables: tuple[object, ...]) -> None:
    """Raise `Refused` if an iterable is a set: elements are recorded by their places, and those of a set have none."""
    for place, iterable in enumerate(iterables, start=1):
        if getattr(type(iterable), "__iter__", None) in _IN_ANY_ORDER:
            raise Refused(
                f"argument {place} is a {type(iterable).__name__}, whose elements come in another order in the next "
                "interpreter: a run that goes on could not tell which of them was recorded. Give map a list, such as "
                "sorted(...)"
            )


class Refused(Exception):
    """A value has no digest. The message names the value, where it lies and what to pass instead, but no task."""


class Digester:
    """Digests values and keeps the digests of large ones. Only for as long as none of the values is changed."""

    __slots__ = ("_heavy", "_kept", "_unnamed", "arguments", "unnamed")

    def __init__(self) -> None:
        self.arguments: list[bytes] = []
        """The digest of each argument of the last call; empty if one pass over all arguments was enough."""
        self.unnamed = False
        """Whether a function or class without a name of its own may have been digested since this was last reset."""
        self._unnamed: set[int] = set()  # the keys of `_heavy` whose values may hold an unnamed function or class
        self._heavy: dict[int, bytes] = {}
        self._kept: list[object] = []  # so that no other object gets an id that is a key of `_heavy`

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Return the digest of the arguments of a call. Raises `Refused` with the argument's name."""
        # The arguments of most tasks are digested by one pass in C: 1.3 µs. Whether the pass is taken must depend on
        # the values alone, not on earlier calls, or equal arguments would get different digests.
        values = (*args, *kwargs.values()) if kwargs else args
        if SIMPLE.issuperset(map(type, values)) and self._heavy.keys().isdisjoint(map(id, values)):
            try:
                written = dumps((args, tuple(sorted(kwargs.items()))) if kwargs else args, 0)
            except ValueError:  # more than 2 GiB; the code below finds the argument
                written = bytes(_HEAVY_BYTES)
            if len(written) < _HEAVY_BYTES:
                self.arguments = []
                return blake2b(written, digest_size=SIZE).digest()
        names = sorted(kwargs)
        self.arguments = digests = [self._argument(str(place), value) for place, value in enumerate(args, start=1)]
        digests += [self._argument(repr(shown(name)), kwargs[name]) for name in names]
        return _hashed(b"\0call" + dumps((len(args), *names), 0) + b"".join(digests))

    def callable(self, function: object) -> bytes:
        """Return the digest of the callable of a task. The message of `Refused` says that the callable is meant."""
        try:
            return self.value(function)
        except Refused as refused:
            raise Refused(f"the callable{refused}") from refused.__cause__

    def _argument(self, name: str, value: object) -> bytes:
        try:
            return self.value(value)
        except Refused as refused:
            raise Refused(f"argument {name}{refused}") from refused.__cause__

    def value(self, value: object) -> bytes:
        """Return the digest of a value. Raises `Refused` if a part of it has no digest.

        Values other than leaves are taken apart depth first, with a list as the stack, so that no depth is too large.
        Cycles are found by Tarjan's algorithm for strongly connected components (Depth-first search and linear graph
        algorithms, 1972): the `low` of a node is the earliest node that it leads back to.
        """
        way: list[_Node] = []
        part = value
        try:
            leaf = self._leaf(value)
            if leaf is not None:
                return leaf
            first = self._node(value, 0)
            seen = {id(value): first}
            unsettled = [first]
            way.append(first)
            while way:
                node = way[-1]
                for part in node.rest:
                    leaf = self._leaf(part)
                    other = leaf or seen.get(id(part))
                    if other is None:
                        below = seen[id(part)] = self._node(part, len(seen))
                        unsettled.append(below)
                        way.append(below)
                        break
                    node.add(other)
                else:
                    way.pop()
                    if node.low == node.place:
                        self._settle(unsettled, node)
                    if way:
                        way[-1].add(node)
        except Opaque as opaque:
            raise Refused(_refusal([*(node.value for node in way), part], opaque)) from opaque.__cause__
        return first.found

    def _leaf(self, value: Any) -> bytes | None:
        """Return the digest of a known value, a simple value or a container of simple values; `None` for others."""
        found = self._heavy.get(id(value))
        if found is not None:
            self.unnamed = self.unnamed or id(value) in self._unnamed
            return found
        kind = cast("Any", type(value))
        if kind in SIMPLE:
            written = _marshalled(value)
        elif kind in _CONTAINERS:
            items = (*value, *value.values()) if kind is dict else value
            if not SIMPLE.issuperset(map(type, items)):
                return None
            if self._heavy and not self._heavy.keys().isdisjoint(map(id, items)):
                return None
            written = _written(value)
            if len(written) >= _HEAVY_BYTES and any(map(long, items)):
                return None
        else:
            return None
        found = _hashed(written)
        if len(written) >= _HEAVY_BYTES and (kind in _CONTAINERS or long(value)):
            self._keep(value, found)
        return found

    def _node(self, value: object, place: int) -> "_Node":
        node = _Node(value, place)
        self.unnamed = self.unnamed or nameless(value) or nameless(type(value)) or drives_tasks(value)
        return node

    def _keep(self, value: object, found: bytes) -> None:
        self._heavy[id(value)] = found
        if self.unnamed:
            self._unnamed.add(id(value))
        self._kept.append(value)

    def _settle(self, unsettled: "list[_Node]", first: "_Node") -> None:
        """Set the digests of the nodes from `first` on; there are several only if they form a cycle."""
        members = [unsettled.pop()]
        while members[-1] is not first:
            members.append(unsettled.pop())
        if len(members) > 1 or first in first.parts:
            _told_apart(members)
        else:
            first.found = first.hashed({})
        for node in members:
            if node.weight >= _HEAVY:
                self._keep(node.value, node.found)


class _Node:
    """A value while it is digested: `found` is its digest, or empty as long as it is not known."""

    __slots__ = ("found", "label", "low", "parts", "place", "rest", "value", "weight", "width")

    def __init__(self, value: object, place: int) -> None:
        label, parts, self.width = taken_apart(value)
        self.label = dumps(label, 0)
        self.value = value  # kept alive, so that no other part gets its id
        self.place = self.low = place
        self.rest = iter(parts)
        self.parts: list[bytes | _Node] = []
        self.weight = 1
        self.found = b""

    def add(self, part: "bytes | _Node") -> None:
        """Add the digest of a part, or the node of a part in the same cycle, whose digest is not known yet."""
        if isinstance(part, bytes):
            self.weight += 1
            self.parts.append(part)
            return
        self.weight += part.weight
        self.parts.append(part.found or part)
        if not part.found:
            self.low = min(self.low, part.low)

    def hashed(self, colours: "Mapping[_Node, bytes]") -> bytes:
        """Return the digest; `colours` stand in for digests of parts that have none yet."""
        digests = [part if isinstance(part, bytes) else colours[part] for part in self.parts]
        if self.width:
            digests = sorted(b"".join(digests[at : at + self.width]) for at in range(0, len(digests), self.width))
        return _hashed(b"\0node" + self.label + b"".join(digests))


def _told_apart(members: list[_Node]) -> None:
    """Set the digests of the nodes of a cycle by colour refinement (1-dimensional Weisfeiler-Leman).

    All nodes begin with the same colour. In each round, the hash of a node with the colours of its parts becomes its
    next colour. A round can only tell more nodes apart; when a round does not, no later round would, and the refinement
    ends. The digests are then hashed from the set of all pairs of a node's colours in the last two rounds: two cycles
    with the same pairs look the same from each of their nodes.
    """
    colours = dict.fromkeys(members, bytes(SIZE))
    before, classes, rounds = colours, 0, 0
    while len(set(colours.values())) > classes:
        classes, rounds = len(set(colours.values())), rounds + 1
        if rounds * len(members) > _PATIENCE:
            raise Opaque(f"{len(members):,} objects that refer to each other look too much alike")
        before, colours = colours, {node: node.hashed(colours) for node in members}
    pairs = b"".join(sorted({before[node] + colours[node] for node in members}))
    for node in members:
        node.found = _hashed(b"\0knot" + colours[node] + pairs)


def combined(*digests: bytes) -> bytes:
    """Return one digest of several digests."""
    return _hashed(b"\0all" + b"".join(digests))


def _hashed(written: bytes) -> bytes:
    return blake2b(written, digest_size=SIZE).digest()


_TOO_LONG: Final = "it is, or holds, a value of more than 2 GiB"


def _marshalled(value: Any) -> bytes:
    try:
        return dumps(value, 0)
    except ValueError:
        raise Opaque(_TOO_LONG) from None


def _written(container: Any) -> bytes:
    """Return the bytes of a container of simple values."""
    kind = cast("Any", type(container))
    if kind is tuple or kind is list:
        return _marshalled(container)
    items = container.items() if kind is dict else container
    try:
        written = sorted(map(dumps, items, repeat(0)))
    except ValueError:
        raise Opaque(_TOO_LONG) from None
    return f"\0{kind.__name__}".encode() + b"".join(written)


def long(value: Any) -> bool:
    """Return whether a value is text too long to be copied for each container that holds it."""
    return type(value) in _TEXT and len(value) >= _HEAVY_BYTES


def _refusal(way: list[Any], opaque: Opaque) -> str:
    """Return a message: the refused value, its path from the first value of `way`, and what to pass instead."""
    where = _path(way)
    kind = place_of(type(way[-1])).replace(":", ".")
    return (
        f"{' at ' + shown(where) if where else ''} is of type {shown(kind)}, which cannot be digested "
        f"({shown(str(opaque))}): a later run could not tell whether it is still the same. Pass what it is made from "
        "(a list, a path, an address) and make it inside the task, pass a client, connection or lock that tasks share "
        "as unrecorded(...), or have its class leave it out of what __getstate__ returns"
    )


def _path(way: list[Any]) -> str:
    """Return the path from the first value to the last, by names and indexes; values themselves are not shown."""
    steps: list[str] = []
    owner: Any = None  # the object or function to which the next container belongs
    for holder, held in pairwise(way):
        if not isinstance(holder, dict | list | tuple):
            owner = None if isinstance(holder, partial) else holder
        elif isinstance(holder, dict):
            items = cast("dict[Any, Any]", holder).items()  # type: ignore[redundant-cast]
            key = next((key for key, item in items if item is held), None)
            name = key if isinstance(key, str) and key.isidentifier() else "…"
            steps.append(
                f"[{name}]" if owner is None else f"variable {name}" if isinstance(owner, FunctionType) else f".{name}"
            )
            owner = None
        elif owner is None:
            place = next((at for at, item in enumerate(cast("list[Any]", holder)) if item is held), "…")
            steps.append(f"[{place}]")
    return "".join(steps)
