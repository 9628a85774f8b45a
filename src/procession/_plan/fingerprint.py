"""Fingerprints: what a journal keeps of a process, so that a later run can tell what has changed.

A task is its place, its name, and a digest of its arguments. What its function does is no part of it, so that a run
can go on once a mistake is mended; nor is how it is run: strategy, workers, failure policy.
"""

import json
import re
import sys
import zlib
from array import array
from ast import literal_eval
from collections.abc import Callable, Sequence, Sized
from types import BuiltinMethodType, MethodType, ModuleType
from typing import Any, NamedTuple

from procession._model.handle import Handle
from procession._model.task import Call, Each, look_up, name_of, options_of, unwrapped
from procession._model.text import counted, shown
from procession._plan.digest import SIZE, Digester, Refused, combined, refuse_sets
from procession._plan.parts import Drawn, named, place_of
from procession.errors import DigestError

_VERSION = 1
_WIDTH = 4

_MAP = "map of "
_MAPS = re.compile(f"((?:{_MAP})*)(.*)", re.DOTALL)
"""How often it is a map of another: a task's own name may say so without end."""
_NAMED_ITSELF = re.compile(r"""(?:(.*) \()?[\w.<>]+:[\w.<>]+ ('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\)?""", re.DOTALL)
"""The name that was given, if any, and the own name, as it is written in Python."""


class Fingerprint(NamedTuple):
    """What a process was, task by task: about 20 bytes each, and each name once."""

    process_name: str
    names: tuple[str, ...]
    """The different names of tasks, in the order in which they first occur."""
    which: bytes
    """The place in `names` of each task's name: 4 bytes each, the lowest first."""
    digests: bytes
    """The digest of each task's arguments: 16 bytes each."""

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return len(self.digests) // SIZE

    def name(self, place: int) -> str:
        """Return the name of the task at a place: what it is called, and where its callable comes from."""
        return self.names[int.from_bytes(self.which[place * _WIDTH : (place + 1) * _WIDTH], "little")]

    def called(self, place: int) -> str:
        """Return what the task at a place is called."""
        return called(self.name(place))

    def digest(self, place: int) -> bytes:
        """Return the digest of the arguments of the task at a place."""
        return self.digests[place * SIZE : (place + 1) * SIZE]

    def first_difference(self, other: "Fingerprint") -> str | None:
        """Return what changed first from this fingerprint to the other, in words; `None` if nothing did.

        >>> before = fingerprint_of("p", [(len, ("a",), {}), (len, ("b",), {})])
        >>> before.first_difference(fingerprint_of("p", [(len, ("a",), {}), (max, ("b",), {})]))
        'task 1 was builtins:len, is builtins:max'
        """
        if self == other:
            return None
        if self.process_name != other.process_name:
            return f"the process was called {shown(self.process_name)!r}, now {shown(other.process_name)!r}"
        counts = f"there {'was' if self.tasks == 1 else 'were'} {counted(self.tasks, 'task')}, now {other.tasks:,}"
        also = "" if self.tasks == other.tasks else f" ({counts})"
        for place in range(min(self.tasks, other.tasks)):
            was, now = self.name(place), other.name(place)
            if was != now:
                return f"task {place} was {shown(was)}, is {shown(now)}{also}"
            if self.digest(place) != other.digest(place):
                return f"task {place} ({shown(was)}) has other arguments{also}"
        return counts

    def changed(self, other: "Fingerprint") -> set[int]:
        """Return the places of all tasks that differ between the two, or that only one of them has.

        >>> before = fingerprint_of("p", [(len, ("a",), {}), (len, ("b",), {})])
        >>> before.changed(fingerprint_of("p", [(len, ("c",), {}), (len, ("b",), {}), (len, ("d",), {})]))
        {0, 2}
        """
        both = min(self.tasks, other.tasks)
        changed = set(range(both, max(self.tasks, other.tasks)))
        if self.which != other.which or self.names != other.names:
            changed.update(place for place in range(both) if self.name(place) != other.name(place))
        if self.digests != other.digests:
            changed.update(place for place in range(both) if self.digest(place) != other.digest(place))
        return changed

    def to_bytes(self) -> bytes:
        """Return the fingerprint as bytes that `from_bytes` reads."""
        which = zlib.compress(self.which)
        head = {"version": _VERSION, "process": self.process_name, "names": self.names, "which": len(which)}
        return json.dumps(head).encode() + b"\n" + which + self.digests

    @classmethod
    def from_bytes(cls, written: bytes) -> "Fingerprint":
        """Return the fingerprint that was written; `ValueError` if it was none, or one of a newer version.

        >>> fingerprint = fingerprint_of("p", [(len, ("a",), {})])
        >>> Fingerprint.from_bytes(fingerprint.to_bytes()) == fingerprint
        True
        """
        line, _, rest = written.partition(b"\n")
        try:
            head = json.loads(line)
            if head["version"] == _VERSION:
                split = int(head["which"])
                which, digests = zlib.decompress(rest[:split]), rest[split:]
                read = cls(str(head["process"]), tuple(map(str, head["names"])), which, digests)
                if len(digests) % SIZE or len(which) != read.tasks * _WIDTH:
                    raise ValueError("it was cut short")
                return read
        except (ValueError, LookupError, TypeError, zlib.error) as error:
            raise ValueError(f"not the fingerprint of a process: {shown(str(error))}") from error
        raise ValueError(f"the fingerprint is of version {shown(str(head['version']))}; version {_VERSION} is known")


def fingerprint_of(process_name: str, calls: Sequence[Call]) -> Fingerprint:
    """Return the fingerprint of a process.

    An iterable of a `map` that has no length counts by its type alone, since looking at its elements would draw them:
    see `digest_element`. A handle is the place of its task.

    Raises `DigestError` that names process, task and argument if one cannot be digested, or a map draws from a set.
    """
    digester = Digester()
    names: dict[str, int] = {}
    known: dict[int, tuple[int, bytes]] = {}
    which, digests = array("I"), list[bytes]()
    for place, (function, args, kwargs) in enumerate(calls):
        try:
            found = known.get(id(function))
            if found is None:
                name = names.setdefault(qualified(function), len(names))
                found = known[id(function)] = name, b"" if _said(function) else digester.callable(function)
            name, beyond = found
            digest = digester.call(_sources(args) if type(function) is Each else args, kwargs)
        except Refused as refused:
            where = f"process {shown(process_name)!r}, task {place} ({shown(qualified(function))})"
            raise DigestError(f"{where}, {refused}") from refused.__cause__
        which.append(name)
        digests.append(combined(beyond, digest) if beyond else digest)
    if sys.byteorder == "big":  # pragma: no cover  # there is no such machine to test on
        which.byteswap()
    return Fingerprint(process_name, tuple(names), which.tobytes(), b"".join(digests))


def qualified(function: Callable[..., Any]) -> str:
    """Return what a task is recognised by: where its callable comes from, after the name it was given, if any.

    >>> import json
    >>> qualified(json.dumps), qualified(Each(len)), qualified([].append)
    ('json:dumps', 'map of builtins:len', 'builtins:list.append')
    """
    if isinstance(function, Each):
        return f"{_MAP}{qualified(function.function)}"
    given = options_of(function).name
    origin = _origin(unwrapped(function))
    return origin if given is None else f"{given} ({origin})"


def called(name: str) -> str:
    """Return what a task is called that is recognised by this: without where its callable comes from.

    >>> [called(name) for name in ("app.pages:fetch", "map of json:dumps", "fetch (app.pages:get)", "app:Step 'load'")]
    ['fetch', 'map of dumps', 'fetch', 'load']
    """
    maps, function = _MAPS.fullmatch(name).groups()  # type: ignore[union-attr]  # any text is like that
    return f"{maps}{_called(function)}"


def _called(name: str) -> str:
    # The expression takes a while on a name of millions of characters.
    named_itself = _NAMED_ITSELF.fullmatch(name) if name.endswith(("'", '"', "')", '")')) else None
    if named_itself is not None:
        given, own = named_itself.groups()
        return str(literal_eval(own)) if given is None else str(given)
    given, bracket, _ = name.rpartition(" (")
    return given if bracket else name.partition(":")[2] or name


def _origin(function: Any) -> str:
    if isinstance(function, MethodType):
        return _origin(function.__func__)
    if isinstance(function, BuiltinMethodType) and not _of_module(function):
        owner = function.__self__
        return f"{place_of(owner if isinstance(owner, type) else type(owner))}.{function.__name__}"
    if isinstance(look_up(function, "__qualname__"), str):
        return place_of(function)
    # What says itself what it is in a digest is known by its own name too: a process. See _NAMED_ITSELF.
    origin = place_of(type(function))
    return f"{origin} {name_of(function)!r}" if look_up(function, "__procession_digest__") else origin


def _said(function: Any) -> bool:
    """Return whether its name says all there is to a callable: no arguments of its own, no object, no variables."""
    if isinstance(function, Each):
        return _said(function.function)
    return isinstance(function, type) or (
        _of_module(function) if isinstance(function, BuiltinMethodType) else named(function)
    )


def _of_module(function: BuiltinMethodType) -> bool:
    return function.__self__ is None or isinstance(function.__self__, ModuleType)


def _sources(iterables: tuple[Any, ...]) -> tuple[Any, ...]:
    refuse_sets(iterables)
    return tuple(map(_undrawn, iterables))


def _undrawn(iterable: Any) -> Any:
    if type(iterable) is Handle or (isinstance(iterable, Sized) and not hasattr(type(iterable), "__next__")):
        return iterable
    return Drawn(iterable)
