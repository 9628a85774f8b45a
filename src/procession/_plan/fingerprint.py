"""Fingerprints: the description of a process that a journal keeps, so that a resumed run can tell what has changed.

The fingerprint of a task has its place, its name, and a digest of its arguments. Where several tasks share a name that
does not lead to their code, it also has a digest of the code: see `identity`. Otherwise the code of functions is no
part of it, so that a run can go on after a mistake is mended; nor are strategy, workers and failure policy.
"""

import copyreg
import json
import re
import sys
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import accumulate, pairwise
from marshal import dumps
from typing import Any, Final, Literal, NamedTuple
from zlib import crc32

from procession._model.task import Call, MapFunction, is_process, unwrapped
from procession._model.text import counted, shown
from procession._plan.digest import SIMPLE, SIZE, Digester, Refused, combined, long, refuse_sets
from procession._plan.identity import Unnamed, called, holding, identity, moved, qualified, said, unnamed_in
from procession._plan.parts import Drawn, main_module, undrawn
from procession.errors import DigestError

_VERSION = 2
_WIDTH = 4
_MARK = 2
_MAIN_IN_1 = re.compile("((?:map of )*)__main__:")


class Form(NamedTuple):
    """The parts that the arguments of a call have."""

    bound: bool
    """Whether the callable holds arguments: an object that it is bound to, or values that it closes over."""
    positional: int
    """The number of positional arguments."""
    names: tuple[str, ...]
    """The names of the keyword arguments, sorted."""

    @property
    def marked(self) -> int:
        """How many parts have a mark: all, or none if there is only one, which then is the part that has changed."""
        parts = self.bound + self.positional + len(self.names)
        return parts if parts > 1 else 0

    @property
    def parts(self) -> list[str]:
        """The parts in words, without values."""
        named = [
            f"argument {name}" for name in (*range(1, self.positional + 1), *(repr(shown(one)) for one in self.names))
        ]
        return ["those that its callable is bound to, or closes over", *named] if self.bound else named


class Arguments(NamedTuple):
    """The arguments of tasks, each with a short mark that says whether this argument has changed."""

    forms: tuple[Form, ...] = ()
    """The different forms of calls in the process."""
    which: bytes = b""
    """For each task, the place of its form in `forms`, as 4 bytes in little-endian order."""
    marks: bytes = b""
    """For each part of each task with several parts, 2 bytes of a hash."""

    def difference(self, other: "Arguments", place: int) -> str:
        """Return words for which arguments of the task at a place have changed, after their digest has."""
        if not self.which:  # written by a version that did not keep forms
            return "has other arguments"
        was, now = self._form(place), other._form(place)
        changed = now.parts
        if was != now:
            changed = [part for part in now.parts if part not in was.parts]
            changed += [f"no {part}" for part in was.parts if part not in now.parts]
        elif now.marked:
            pairs = zip(now.parts, self._marks(place), other._marks(place), strict=True)
            changed = [part for part, before, after in pairs if before != after]
        return "has other arguments" + (f": {' and '.join(changed)}" if changed else "")

    def bound(self, place: int) -> bool:
        """Return whether the callable of the task at a place holds arguments; `True` if that was not kept."""
        return not self.which or self._form(place).bound

    def _form(self, place: int) -> Form:
        return self.forms[_number(self.which, place)]

    def _marks(self, place: int) -> list[bytes]:
        start = _MARK * sum(self._form(before).marked for before in range(place))
        return [self.marks[start + _MARK * at :][:_MARK] for at in range(self._form(place).marked)]


class Fingerprint(NamedTuple):
    """The fingerprint of a process: about 20 bytes for each task, and each name once."""

    process_name: str
    names: tuple[str, ...]
    """The different names of tasks, in the order in which they first occur."""
    which: bytes
    """For each task, the place of its name in `names`, as 4 bytes in little-endian order."""
    digests: bytes
    """The digest of each task's arguments: 16 bytes each."""
    codes: tuple[str, ...] = ()
    """For each of `names`, a digest of the code of its functions without a name of their own; empty for most."""
    apart: tuple[int, ...] = ()
    """The places in `names` of names that tasks with different code share, so that the code tells them apart."""
    arguments: Arguments = Arguments()

    def __reduce__(self) -> tuple[Any, ...]:
        """Return the parts that count in a digest of the fingerprint, where a process is a task of another."""
        names = tuple(map(identity, self.names))
        names = tuple(f"{name}#{self.codes[at]}" if at in self.apart else name for at, name in enumerate(names))
        return copyreg.__newobj__, (Fingerprint, self.process_name, names, self.which, self.digests)  # type: ignore[attr-defined]

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return len(self.digests) // SIZE

    def name(self, place: int) -> str:
        """Return the full name of the task at a place: its name, and the module and name of its callable."""
        return self.names[_number(self.which, place)]

    def called(self, place: int) -> str:
        """Return the name of the task at a place, as users see it."""
        return called(self.name(place))

    def digest(self, place: int) -> bytes:
        """Return the digest of the arguments of the task at a place."""
        return self.digests[place * SIZE : (place + 1) * SIZE]

    def first_difference(self, other: "Fingerprint") -> str | None:
        """Return the first difference from this fingerprint to the other in words; `None` if there is none.

        >>> before = fingerprint_of("p", [(len, ("a",), {}), (len, ("b",), {})])
        >>> before.first_difference(fingerprint_of("p", [(len, ("a",), {}), (max, ("b",), {})]))
        'task 1 was builtins:len, is builtins:max'
        """
        if self.process_name != other.process_name:
            return f"the process was called {shown(self.process_name)!r}, now {shown(other.process_name)!r}"
        counts = f"there {'was' if self.tasks == 1 else 'were'} {counted(self.tasks, 'task')}, now {other.tasks:,}"
        also = "" if self.tasks == other.tasks else f" ({counts})"
        for place, how in self._differences(other):
            was, now = shown(self.name(place)), shown(other.name(place))
            if how == "arguments":
                return f"task {place} ({was}) {self.arguments.difference(other.arguments, place)}{also}"
            if was != now:
                return f"task {place} was {was}, is {now}{also}"
            return (
                f"task {place} ({was}) has other code, which is what tells those of this name apart: give each a name "
                f"of its own, as in @task(name=...){also}"
            )
        return counts if also else None

    def changed(self, other: "Fingerprint") -> set[int]:
        """Return the places of all tasks that differ between the two fingerprints, or that only one of them has.

        >>> before = fingerprint_of("p", [(len, ("a",), {}), (len, ("b",), {})])
        >>> before.changed(fingerprint_of("p", [(len, ("c",), {}), (len, ("b",), {}), (len, ("d",), {})]))
        {0, 2}
        """
        both = sorted((self.tasks, other.tasks))
        return {place for place, _ in self._differences(other)}.union(range(*both))

    def same_maps(self, other: "Fingerprint", tasks: AbstractSet[int]) -> set[int]:
        """Return those of the passed tasks that are maps of the same function in both, whatever their iterables.

        >>> lengths, largest = MapFunction(len), MapFunction(max)
        >>> before = fingerprint_of("p", [(lengths, (["a"],), {}), (lengths, (["b"],), {}), (len, ("a",), {})])
        >>> after = fingerprint_of("p", [(lengths, (["c"],), {}), (largest, (["b"],), {}), (len, ("b",), {})])
        >>> before.same_maps(after, {0, 1, 2})
        {0}
        """
        differences = dict(self._differences(other))
        return {
            place
            for place in tasks
            if place < min(self.tasks, other.tasks)
            and other.name(place).startswith("map of ")
            and (
                place not in differences
                # One digest covers the iterables and the arguments that the callable holds, so a change of the digest
                # does not say which of the two has changed.
                or (
                    differences[place] == "arguments"
                    and not (self.arguments.bound(place) or other.arguments.bound(place))
                )
            )
        }

    def same_names(self, other: "Fingerprint", tasks: AbstractSet[int]) -> set[int]:
        """Return those of the passed tasks that are in both and differ at most by their arguments.

        >>> before = fingerprint_of("p", [(len, ("a",), {}), (len, ("b",), {})])
        >>> before.same_names(fingerprint_of("p", [(len, ("c",), {}), (max, ("b",), {})]), {0, 1})
        {0}
        """
        differences = dict(self._differences(other))
        both = min(self.tasks, other.tasks)
        return {place for place in tasks if place < both and differences.get(place) != "name"}

    def _differences(self, other: "Fingerprint") -> "Iterator[tuple[int, Literal['name', 'arguments']]]":
        """Yield the places of tasks that differ, each with whether the name or the arguments do."""
        named = _Names(self, other)
        for place in range(min(self.tasks, other.tasks)):
            if not named.alike(_number(self.which, place), _number(other.which, place)):
                yield place, "name"
            elif self.digest(place) != other.digest(place):
                yield place, "arguments"

    def to_bytes(self) -> bytes:
        """Return the fingerprint as bytes that `from_bytes` reads."""
        which, formed = zlib.compress(self.which), zlib.compress(self.arguments.which)
        marks = self.arguments.marks
        head = {
            "version": _VERSION,
            "process": self.process_name,
            "names": self.names,
            "codes": self.codes,
            "apart": self.apart,
            "forms": self.arguments.forms,
            "lengths": (len(which), len(formed), len(marks)),
        }
        return json.dumps(head).encode() + b"\n" + which + formed + marks + self.digests

    @classmethod
    def from_bytes(cls, written: bytes) -> "Fingerprint":
        """Read a fingerprint from bytes. Raises `ValueError` if they are none, or that of a newer version.

        >>> fingerprint = fingerprint_of("p", [(len, ("a",), {})])
        >>> Fingerprint.from_bytes(fingerprint.to_bytes()) == fingerprint
        True
        """
        line, _, rest = written.partition(b"\n")
        try:
            head = json.loads(line)
            if head["version"] in _READERS:
                read = cls(*_READERS[head["version"]](head, rest))
                if len(read.digests) % SIZE or len(read.which) != read.tasks * _WIDTH:
                    raise ValueError("it was cut short")
                if max(numbers(read.which), default=-1) >= len(read.names):
                    raise ValueError("it names tasks that it does not have")
                return read
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError, zlib.error) as error:
            raise ValueError(f"not the fingerprint of a process: {shown(str(error))}") from error
        raise ValueError(f"the fingerprint is of version {shown(str(head['version']))}; version {_VERSION} is known")


def _read_1(head: Any, rest: bytes) -> tuple[Any, ...]:
    """Read version 1, which had names and digests only, and the name `__main__` for the main module."""
    split = int(head["which"])
    names = tuple(_MAIN_IN_1.sub(lambda found: f"{found[1]}{main_module()}:", str(name)) for name in head["names"])
    digests = rest[split:]
    return str(head["process"]), names, unpacked(rest[:split], len(digests) // SIZE * _WIDTH), digests


def _read_2(head: Any, rest: bytes) -> tuple[Any, ...]:
    ends = list(accumulate(map(int, head["lengths"])))
    which, formed, marks, digests = (rest[start:end] for start, end in pairwise((0, *ends, len(rest))))
    forms = tuple(Form(bool(bound), int(count), tuple(map(str, names))) for bound, count, names in head["forms"])
    length = len(digests) // SIZE * _WIDTH
    arguments = Arguments(forms, unpacked(formed, length), marks)
    codes, apart = tuple(map(str, head["codes"])), tuple(map(int, head["apart"]))
    return (
        str(head["process"]),
        tuple(map(str, head["names"])),
        unpacked(which, length),
        digests,
        codes,
        apart,
        arguments,
    )


_READERS: Final = {1: _read_1, 2: _read_2}


class _Names:
    """Compares the names of tasks of two fingerprints."""

    def __init__(self, before: Fingerprint, after: Fingerprint) -> None:
        self._before = before
        self._after = after
        self._known: dict[tuple[int, int], bool] = {}
        self._shared = _shared(before.names) | _shared(after.names)

    def alike(self, was: int, now: int) -> bool:
        """Return whether two names stand for the same task; each is the place of a name in its fingerprint."""
        found = self._known.get((was, now))
        if found is None:
            found = self._known[was, now] = self._compared(was, now)
        return found

    def _compared(self, was: int, now: int) -> bool:
        before, after = self._before, self._after
        one, other = before.names[was], after.names[now]
        if (was in before.apart or now in after.apart) and _code(before, was) != _code(after, now):
            return False
        if one == other:
            return True
        if identity(one) == identity(other):
            return identity(one) not in self._shared
        # A module has moved only if all tasks of that name have: otherwise the two are different functions.
        return one not in after.names and other not in before.names and moved(one, other)


def _shared(names: Sequence[str]) -> set[str]:
    """Return the explicit names that tasks with different functions share."""
    counts = Counter(map(identity, dict.fromkeys(names)))
    return {name for name, count in counts.items() if count > 1}


def _code(fingerprint: Fingerprint, name: int) -> str:
    return fingerprint.codes[name] if fingerprint.codes else ""


def _number(packed: bytes, place: int) -> int:
    return int.from_bytes(packed[place * _WIDTH : (place + 1) * _WIDTH], "little")


def unpacked(packed: bytes, length: int) -> bytes:
    """Decompress to `length` bytes, no more: a few compressed bytes may stand for more than fits into memory."""
    packing = zlib.decompressobj()
    found = packing.decompress(packed, length + 1)
    if not packing.eof:
        raise ValueError("it was cut short, or is longer than it says")
    return found


def numbers(written: bytes) -> "array[int]":
    """Return the numbers that bytes hold, 4 bytes each in little-endian order."""
    read = array("I", written)
    if sys.byteorder == "big":  # pragma: no cover  # there is no such machine to test on
        read.byteswap()
    return read


def fingerprint_of(process_name: str, calls: Sequence[Call]) -> Fingerprint:
    """Return the fingerprint of a process.

    An iterable of a `map` without a length counts by its type alone, since reading its elements would draw them: see
    `digest_element`. A handle counts by the place of its task.

    Raises `DigestError`, which names process, task and argument, if an argument has no digest or a map draws from a
    set.
    """
    digester = Digester()
    interned: dict[tuple[str, bytes], int] = {}
    unnamed: dict[int, list[Unnamed]] = {}
    known: dict[int, tuple[str, bytes, list[Unnamed]]] = {}
    forms: dict[Form, int] = {}
    kinds: dict[tuple[Any, ...], tuple[int, tuple[str, ...], bool]] = {}  # from a call as it is written to its form
    which, formed, marks, digests = array("I"), array("I"), array("H"), list[bytes]()
    for place, (function, args, kwargs) in enumerate(calls):
        try:
            found = known.get(id(function))
            if found is None:
                held = None if said(function) else holding(function)
                beyond = b"" if held is None else digester.callable(held)
                functions = [] if said(function) else unnamed_in([function], digester)
                found = known[id(function)] = qualified(function), beyond, functions
            name, beyond, functions = found
            taken = _sources(args) if type(function) is MapFunction else args
            digester.unnamed = False
            digest = digester.call(taken, kwargs)
        except Refused as refused:
            where = f"process {shown(process_name)!r}, task {place} ({shown(qualified(function))})"
            raise DigestError(f"{where}, {refused}") from refused.__cause__
        if digester.unnamed:
            functions = functions + unnamed_in([*taken, *(kwargs[name] for name in sorted(kwargs))], digester)
        code = combined(*(one.code for one in functions)) if functions else b""
        at = interned.setdefault((name, code), len(interned))
        if functions:
            unnamed.setdefault(at, functions)
        which.append(at)
        digests.append(combined(beyond, digest) if beyond else digest)
        kind = (bool(beyond), len(args), *kwargs)
        formal = kinds.get(kind)
        if formal is None:
            form = Form(bool(beyond), len(args), tuple(sorted(kwargs)))
            formal = kinds[kind] = forms.setdefault(form, len(forms)), form.names, form.marked > 0
        at, names, several = formal
        formed.append(at)
        if several:
            if beyond:
                marks.append(int.from_bytes(beyond[:_MARK], "little"))
            values = (*args, *[kwargs[name] for name in names]) if kwargs else args
            if digester.arguments:
                marks.extend(map(_mark, values, digester.arguments))
            else:
                marks.extend([crc32(dumps(value, 0)) & 0xFFFF for value in values])
    named = tuple(name for name, _ in interned)
    return Fingerprint(
        process_name,
        named,
        _packed(which),
        b"".join(digests),
        tuple(code.hex() for _, code in interned),
        tuple(_told_by_code(named, unnamed)),
        Arguments(tuple(forms), _packed(formed), _packed(marks)),
    )


def draws_unseen(function: Callable[..., Any], args: Sequence[Any] = ()) -> bool:
    """Return whether a task draws elements that its fingerprint does not have, itself or in a process that it is.

    >>> draws_unseen(MapFunction(len), (iter(["a"]),)), draws_unseen(MapFunction(len), (["a"],))
    (True, False)
    """
    if isinstance(function, MapFunction):
        return any(type(undrawn(iterable)) is Drawn for iterable in args)
    if not is_process(function):
        return False
    inner: Any = unwrapped(function)
    return any(draws_unseen(called, given) for called, given, _ in getattr(inner, "__self__", inner).tasks)


def _packed(numbers: "array[int]") -> bytes:
    if sys.byteorder == "big":  # pragma: no cover  # there is no such machine to test on
        numbers.byteswap()
    return numbers.tobytes()


def _mark(value: Any, digest: bytes) -> int:
    """Return the mark of an argument: 16 bits of a hash of it, independent of the other arguments."""
    if type(value) in SIMPLE and not long(value):
        return crc32(dumps(value, 0)) & 0xFFFF
    return int.from_bytes(digest[:_MARK], "little")


def _told_by_code(names: Sequence[str], unnamed: Mapping[int, list[Unnamed]]) -> Iterator[int]:
    """Yield the places of names that are told apart by code: their functions share a name and differ in code."""
    codes: dict[tuple[str, str], set[bytes]] = {}
    for at, functions in unnamed.items():
        for one in functions:
            codes.setdefault((identity(names[at]), one.place), set()).add(one.code)
    for at, functions in sorted(unnamed.items()):
        if any(len(codes[identity(names[at]), one.place]) > 1 for one in functions):
            yield at


def _sources(iterables: tuple[Any, ...]) -> tuple[Any, ...]:
    refuse_sets(iterables)
    return tuple(map(undrawn, iterables))
