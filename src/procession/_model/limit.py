"""Limits: how many calls may be under way, or begin within a while, under one name."""

import math
import os
from collections.abc import Callable, MutableMapping
from typing import Any, Final, cast

from procession._model.secret import masked
from procession._model.text import shown, sketch

LimitKey = tuple[str, int | None, float | None, float, str | None]
"""What a limit allows, under which name, and where that is counted: two limits with the same key are one."""


class Limit:
    """A limit on how many calls may be under way at the same time, or may start within a span of time.

    A limit is given to the tasks that it holds for: `@task(limit=api)`, or several, `@task(limit=(api, gpu))`. A call
    that a limit holds back takes no worker: other tasks go on, and it begins once all of its limits have room for it at
    the same time. Calls are admitted in the order of their places in the process: a call never overtakes another that
    waits for the same limit, however little it costs. Each attempt of a task is admitted anew. Waiting for a
    limit does not count against the timeout of a task.

    Limits with the same name and the same numbers are one limit, for all threads and runs of a program. Another program
    counts by itself, unless the limit is `shared`. A resumed run that another program began waits `per` seconds before
    its first call under a `rate`.

    Args:
        name: What the limit is called in logs and messages.
        at_once: How many calls may be under way at the same time, at least 1; `None`, the default, for any number. A
            call that was abandoned at its timeout counts until it really ends.
        rate: How many calls may begin within any span of `per` seconds or, with `cost`, how much they may cost
            together; `None`, the default, for any number. There is no span, wherever it begins, with more than that.
        per: The length of that span in seconds, 1.0 by default.
        cost: A function that takes the arguments of a call and returns what that call costs, a number of at least 0;
            `None`, the default, if each costs 1. It is called for each attempt. A call that costs more than `rate`
            fails at once with `ValueError`.
        retry_after: A function that takes the exception of a call and returns in how many seconds the service may be
            asked again, as an HTTP 429 says it in its header; `None` for an exception that does not say so. It is an
            alternative to raising `RetryAfter` in the task.
        patience: The longest pause in seconds that the service may ask for, an hour by default. If it asks for more,
            the task fails with its exception.
        shared: Where the calls of several programs are counted together: the path of an SQLite file, for programs of
            one machine, or a URL such as `postgresql://host/name`. Each of them gives the limit the same name and
            numbers. `None`, the default, if it is for this program alone. Takes the extra `journal`.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A number is out of its range, or an argument has no effect without another.

    Example:
        >>> from procession import Limit, Process, task
        >>> api = Limit("api", at_once=4, rate=20, per=1.0)
        >>> @task(limit=api)
        ... def fetch(url: str) -> str:
        ...     return url.upper()
        >>> process = Process("pages", "parallel")
        >>> pages = process.map(fetch, ["a", "b"])
        >>> process.execute()
        [['A', 'B']]

    """

    __slots__ = ("at_once", "bucket", "cost", "name", "patience", "per", "rate", "retry_after", "shared")

    def __init__(
        self,
        name: str,
        *,
        at_once: int | None = None,
        rate: float | None = None,
        per: float = 1.0,
        cost: Callable[..., float] | None = None,
        retry_after: Callable[[Exception], float | None] | None = None,
        patience: float = 3600.0,
        shared: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"Limit(name) takes a str; got {sketch(name)}")
        if not name:
            raise ValueError("Limit(name) takes a name that is not empty")
        self.name: Final = name
        where = f"Limit({shown(name)!r})"
        self.at_once: Final = None if at_once is None else _checked_count(where, at_once)
        self.rate: Final = None if rate is None else _checked_number(f"{where}: rate", rate, above=0)
        self.per: Final = _checked_number(f"{where}: per, in seconds,", per, above=0)
        self.cost: Final = _checked_function(f"{where}: cost", cost)
        self.retry_after: Final = _checked_function(f"{where}: retry_after", retry_after)
        self.patience: Final = _checked_number(f"{where}: patience, in seconds,", patience, least=0)
        self.shared: Final = None if shared is None else _checked_address(f"{where}: shared", shared)
        self.bucket: object = None
        """What is under way under the limit, kept alive by it; made by the first run."""
        if rate is None:
            for option, given in ("per", per != 1.0), ("cost", cost is not None):
                if given:
                    raise ValueError(f"{where}: {option} says how `rate` counts, and there is no rate: give it, too")
        elif cost is None and self.rate is not None and self.rate < 1:
            raise ValueError(
                f"{where}: a rate of {rate:g} in {per:g} s would never admit a call, which counts 1: give a longer "
                f"span, as in rate=1, per={per / rate:g}"
            )

    @property
    def key(self) -> LimitKey:
        """What the limit allows, under which name."""
        return self.name, self.at_once, self.rate, self.per, self.shared

    def __reduce__(self) -> tuple[Callable[..., "Limit"], tuple[Any, ...]]:
        return _made, (*self.key, self.cost, self.retry_after, self.patience)

    def __repr__(self) -> str:
        given = {"at_once": self.at_once, "rate": self.rate, "per": None if self.rate is None else self.per}
        parts = [f"{option}={value:g}" for option, value in given.items() if value is not None]
        if self.shared is not None:
            parts.append(f"shared={shown(masked(self.shared))!r}")
        return f"Limit({', '.join([repr(shown(self.name)), *parts])})"


Limits = tuple[Limit, ...]


def _made(
    name: str,
    at_once: int | None,
    rate: float | None,
    per: float,
    shared: str | None,
    cost: Callable[..., float] | None,
    retry_after: Callable[[Exception], float | None] | None,
    patience: float,
) -> Limit:
    """Return the limit that was pickled."""
    return Limit(
        name,
        at_once=at_once,
        rate=rate,
        per=per,
        cost=cost,
        retry_after=retry_after,
        patience=patience,
        shared=shared,
    )


def checked_limits(limit: object) -> Limits:
    """Return the limits that `task(limit=...)` was given. Raises for what is no limit, and for two of one name."""
    limits: object = (limit,) if isinstance(limit, Limit) else () if limit is None else limit
    if not isinstance(limits, tuple):
        raise TypeError(f"task(limit=...) takes a Limit or a tuple of them; got {sketch(limits)}")
    checked: list[Limit] = []
    for each in cast("tuple[object, ...]", limits):
        if not isinstance(each, Limit):
            raise TypeError(f"task(limit=...) takes a Limit or a tuple of them; got {sketch(each)}")
        if any(each.name == other.name for other in checked):
            raise ValueError(
                f"task(limit=...) has two limits of the name {shown(each.name)!r}: a task needs one of them"
            )
        checked.append(each)
    return tuple(checked)


def check_agreement(known: MutableMapping[str, Limit], limits: Limits, where: str) -> None:
    """Raise `ValueError` for a limit that has the name of a known one and allows something else, else add it."""
    for limit in limits:
        other = known.get(limit.name, limit)
        if other.key != limit.key:
            raise ValueError(
                f"{where}: {limit!r} has the name of another limit of the same run, {other!r}. Limits of one name are "
                "one limit: give both the same numbers, or another name"
            )
    for limit in limits:
        known.setdefault(limit.name, limit)


def checked_seconds(what: str, seconds: object) -> float:
    """Return a number of seconds of at least 0, finite. Raises `TypeError` or `ValueError` for anything else."""
    return _checked_number(f"{what}, in seconds,", seconds, least=0, finite=True)


def checked_cost(limit: Limit, cost: object) -> float:
    """Return the cost of a call, by the function of its limit. Raises `TypeError` or `ValueError` for no number."""
    return _checked_number(f"the cost that {limit!r} computes", cost, least=0, finite=True)


def _checked_count(where: str, at_once: object) -> int:
    if isinstance(at_once, bool) or not isinstance(at_once, int):
        raise TypeError(f"{where}: at_once is a number of calls, an int; got {sketch(at_once)}")
    if at_once < 1:
        raise ValueError(f"{where}: at_once is at least 1; got {sketch(at_once)}")
    return at_once


def _checked_number(
    what: str, value: object, *, above: float = -math.inf, least: float = -math.inf, finite: bool = False
) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{what} is a number; got {sketch(value)}")
    # What is not above a bound may be no number at all, nan.
    finite = finite or above > -math.inf
    if not (value > above and value >= least) or (finite and value == math.inf):
        bound = f"above {above:g}" if above > -math.inf else f"of at least {least:g}"
        raise ValueError(f"{what} is a {'finite ' if finite else ''}number {bound}; got {sketch(value)}")
    return value


def _checked_address(what: str, shared: object) -> str:
    """Return a path or a URL. A path is that of the folder the program is in now, wherever it goes later."""
    if not isinstance(shared, str | os.PathLike):
        raise TypeError(f"{what} is a path or a URL; got {sketch(shared)}")
    address: object = os.fspath(cast("str | os.PathLike[str]", shared))
    if not isinstance(address, str) or not address:
        raise ValueError(f"{what} is a path or a URL that is not empty; got {sketch(address)}")
    scheme, found, _ = address.partition("://")
    if found and scheme.partition("+")[0] not in ("sqlite", "postgresql", "postgres"):
        raise ValueError(f"{what} is an SQLite file or a PostgreSQL server; got {shown(masked(address))!r}")
    return address if found else os.path.abspath(address)  # noqa: PTH100  # as it is called, links and all


def _checked_function(what: str, function: Any) -> Any:
    if function is not None and not callable(function):
        raise TypeError(f"{what} is a function; got {sketch(function)}")
    return function
