"""Faults in the machinery itself: an error that is raised at one of its lines, as where there is no memory left.

    seen, ending = traced(call)              the places that a call comes through, with how often, and how it ends
    ending, fault = faulty(call, place, 3)   how it ends where such a place raises `fault`, the third time

A trace function raises the error, once, just before a line is carried out, in whatever thread comes to it: each call is
made in a thread of its own, and one that does not end fails after some seconds with the stacks of all threads.
"""

import linecache
import re
import sys
import threading
import traceback
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import procession

PATIENCE_S = 10
ROOT = Path(procession.__file__).parent
MACHINERY = tuple(str(ROOT / room) for room in ("_engine", "_loop", "_remote", "_execution.py", "_executor.py"))
# Nothing is carried out there that could raise: keywords, names given to what has one already, marks on an object. To
# leave a lock does not raise, either, nor does what sees to its own errors, and what `__del__` raises is heard by nobody.
_SAFE = re.compile(
    r"""(try|else|finally|pass|continue|break|while\ True)\b
    |(except|with|async\ with|def|async\ def|class|return|raise|global|del|@|\"\"\")
    |(\w+(:\ [^=]+)?|\w+(,\ \w+)+)\ =\ -?\w+(,\ -?\w+)*$
    |\(\w+(,\ \w+)*\),?\ .*=.*
    |(if|elif|while)\ (not\ )?(self\._)?\w+(\ is\ (not\ )?None)?:$
    |[\w.]+\.release\(\)$
    |self\._end_call\(.*\)$
    |\w+\.\w+\ =\ (None|True|False)$
    |(\w+\.)*ledger\.(values|starts|ends)\[index\]\ =\ \w+$
    """,
    re.VERBOSE,
)
_UNHEARD = frozenset({"__del__", "_end_threads"})
_CLEANERS = frozenset(
    "close _close _shut_down end _end_left _finish _finish_async _close_books status _event progress".split()
)


class Place(NamedTuple):
    """A line of the machinery."""

    path: str
    number: int
    function: str

    @property
    def can_raise(self):
        """Whether what is carried out there can raise at all."""
        return self.function not in _UNHEARD and not _SAFE.match(self._line)

    @property
    def cleans_up(self):
        """Whether it is part of what ends threads: where an error keeps it from that, one may stay that is idle."""
        return self.function in _CLEANERS or any(f".{name}(" in self._line for name in _CLEANERS)

    @property
    def _line(self):
        return linecache.getline(self.path, self.number).strip().partition("  #")[0]

    def __str__(self):
        return f"{Path(self.path).relative_to(ROOT)}:{self.number}: {self._line}"


class MemoryGone(MemoryError):
    """What is raised."""


class Hung(AssertionError):
    """A call did not end."""


class Ending(NamedTuple):
    """How a call ended."""

    value: object
    error: BaseException | None


@cache
def _place(code, number):
    """Return a line of a function as a place, if what is carried out there can raise."""
    place = Place(code.co_filename, number, code.co_name)
    return place if place.can_raise else None


class _Tracer:
    """Calls `on_place` at each place of the machinery, in all threads that begin meanwhile.

    With `only`, a place, it looks at the lines of that one's function alone, which takes far less time.
    """

    def __init__(self, on_place, only=None):
        self._on_place = on_place
        self._only = only
        self._on = False

    def __enter__(self):
        self._on = True
        self._before = threading.gettrace()
        threading.settrace(self._called)

    def __exit__(self, *_):
        self._on = False
        threading.settrace(self._before)

    def _called(self, frame, event, arg):
        if not self._looks_at(frame.f_code):
            return None
        before = None

        def happened(frame, event, arg):
            nonlocal before
            if event == "line" and self._on:
                # Once for a comprehension. From Python 3.12 on, it is a part of the function, each round comes to the
                # line again, and what is raised by a trace function then gets past the `with` statement around it.
                line, before = before, frame.f_lineno
                place = None if line == before else _place(frame.f_code, before)
                if place is not None:
                    self._on_place(place)
            return happened

        return happened

    def _looks_at(self, code):
        if self._only is None:
            return code.co_filename.startswith(MACHINERY)
        return (code.co_filename, code.co_name) == (self._only.path, self._only.function)


def ended(call):
    """Return how a call ends that is made in a thread of its own."""
    endings = []

    def main():
        try:
            endings.append(Ending(call(), None))
        except BaseException as error:
            endings.append(Ending(None, error))

    thread = threading.Thread(target=main, daemon=True, name="caller")
    thread.start()
    thread.join(PATIENCE_S)
    if not endings:
        raise Hung("".join(_stacks()))
    return endings[0]


def _stacks():
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():
        if ident != threading.get_ident():
            yield f"\n{names.get(ident)}:\n" + "".join(traceback.format_stack(frame)[-6:])


def traced(call):
    """Return how often a call comes to each place of the machinery, and how it ends."""
    seen = Counter()
    with _Tracer(lambda place: seen.update((place,))):
        ending = ended(call)
    return seen, ending


def faulty(call, place, nth=1):
    """Return how a call ends where a place raises the n-th time that it is come to, and what that raised, if it did."""
    left, faults, lock = [True] * nth, [], threading.Lock()

    def on_place(at):
        if at == place and left:
            with lock:
                if not left or left.pop() and left:
                    return
                faults.append(MemoryGone(str(place)))
            raise faults[0]

    with _Tracer(on_place, only=place):
        try:
            ending = ended(call)
        except Hung as hung:
            raise Hung(f"{place}\n{hung}") from None
    return ending, faults[0] if faults else None


def leads_to(error, fault, depth=0):
    """Return whether an error is the fault, or has it among its causes or its parts."""
    if error is None or depth > 8:
        return False
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return error is fault or any(
        leads_to(other, fault, depth + 1) for other in (error.__cause__, error.__context__, *parts)
    )
