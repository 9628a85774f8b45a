# pyright: strict
"""What type checkers must accept, and the types they must see. Checked, never run."""

import operator
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, assert_type

import tenacity

from procession import (
    Call,
    CurrentTask,
    Elements,
    EventName,
    ExecutorLike,
    Graph,
    Hybrid,
    OnError,
    Outcome,
    Outcomes,
    Parallel,
    Process,
    ProcessStatus,
    Progress,
    Run,
    RunStatus,
    Sequential,
    Stage,
    Strategy,
    StrategyName,
    TaskState,
    Timeline,
    WorkerProcesses,
    current_task,
    stream,
    task,
)

T = TypeVar("T")


def words(text: str) -> list[str]:
    return text.split()


def length(word: str) -> int:
    return len(word)


def total(numbers: Iterable[int]) -> int:
    return sum(numbers)


def table(rows: dict[str, int], *, title: str = "") -> str:
    return f"{title}{rows}"


def odd_names(*, callable: str, name: int, self: float, timeout: bytes) -> str:
    return f"{callable}{name}{self}{timeout!r}"


def of_two(a: int, b: str) -> float:
    return a / len(b)


def of_three(a: int, b: str, c: float) -> bytes:
    return f"{a}{b}{c}".encode()


def of_four(a: int, b: str, c: float, d: bytes) -> bool:
    return of_three(a, b, c) == d


def of_five(a: int, b: str, c: float, d: bytes, e: bool) -> complex:
    return complex(of_four(a, b, c, d), e)


def of_six(a: int, b: str, c: float, d: bytes, e: bool, f: complex) -> Path:
    return Path(str(of_five(a, b, c, d, e) * f))


def all_lengths(words: Sequence[str], least: int = 0) -> Iterator[int]:
    return (len(word) for word in words if len(word) >= least)


def upper_all(words: list[str]) -> tuple[str, ...]:
    return tuple(map(str.upper, words))


async def pages(urls: list[str], size: int = 0) -> list[bytes]:
    return [url.encode()[:size] for url in urls]


def all_pairs(words: list[str], numbers: list[int]) -> list[float]:
    return [len(word) / number for word, number in zip(words, numbers, strict=True)]


def all_of_three(a: list[int], b: list[str], c: list[float]) -> list[bytes]:
    return list(map(of_three, a, b, c))


def lazily_words() -> Iterator[str]:
    yield "a"


def lazily() -> Iterator[int]:
    yield 1


async def page(url: str, size: int = 0) -> bytes:
    return url.encode()[:size]


async def pair(one: str, other: int) -> float:
    return len(one) / other


class Store:
    async def load(self, path: Path) -> str:
        return str(path)

    def save(self, count: int, /) -> Path:
        return Path(str(count))

    @classmethod
    def opened(cls, path: Path) -> "Store":
        return cls() if path else Store()

    @staticmethod
    def shut(path: Path, *, hard: bool = False) -> bool:
        return hard or path.exists()

    @task(retries=1)
    def send(self, path: Path) -> bytes:
        return path.read_bytes()

    def __call__(self, path: Path) -> bytes:
        return path.read_bytes()


@task(retries=3, timeout=30.0, name="fetch")
def fetch(url: str, *, size: int = 0) -> bytes:
    return url.encode()[:size]


@task
def plain(url: str, *, size: int = 0) -> bytes:
    return url.encode()[:size]


@task()
def first(items: Iterable[T]) -> T:
    return next(iter(items))


# A process, its strategies and policies

Process("a")
Process("a", "sequential", 1)
Process("a", strategy="parallel", max_workers=None)
Process("a", "hybrid", on_error="stop")
Process("a", Sequential(), on_error="continue")
Process("a", Parallel(), on_error="return")
Process("a", Hybrid(), 2)
process = Process("a", Hybrid(first=2))

assert_type(process.name, str)
assert_type(process.max_workers, int)
assert_type(process.on_error, OnError)
assert_type(process.status, ProcessStatus)
assert_type(process.tasks, list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]])
for function, args, kwargs in process.tasks:
    function(*args, **kwargs)

# Names for the types in signatures, for functions of the user's own


def build(strategy: Strategy | StrategyName, executor: ExecutorLike = "threads") -> Process:
    return Process("a", strategy, executor=executor)


def calls_of(built: Process) -> list[Call]:
    return built.tasks


def picture_of(built: Process) -> Graph:
    return built.graph()


def ends_of(ended: Run) -> tuple[Outcomes, Timeline]:
    return ended.outcomes, ended.timeline()


build("parallel", ThreadPoolExecutor())
build(Hybrid(first=2), "processes")
assert_type(Hybrid(first=2).stages(3), tuple[Stage, ...])
last: EventName = "run_completed"
policy: OnError = "return"
process.on_error = policy
process.strategy = "parallel"
process.strategy = Hybrid(first=None)
process.max_workers = 4

# Tasks: whatever can be called, with whatever it takes

assert_type(process.add_task(words, "a b"), None)
process.add_step(words, text="a b")
process.add_task(odd_names, callable="a", name=1, self=1.0, timeout=b"")
process.add_step(odd_names, callable="a", name=1, self=1.0, timeout=b"")
process.task(odd_names, callable="a", name=1, self=1.0, timeout=b"")
process.add_task(table, {"a": 1})
process.add_task(table, {"a": 1}, title="b")
process.add_task(lambda: 1)
process.add_task(print, "a", 1, sep=", ")
process.add_task(partial(words, "a b"))
process.add_task(partial(table, title="a"), {"a": 1})
process.add_task(Store().save, 1)
process.add_task(Store.opened, Path())
process.add_task(Store.shut, Path(), hard=True)
process.add_task(Store(), Path())
process.add_task(Store)
process.add_task(fetch, "a", size=1)
process.add_task(task(timeout=1)(length), "a")
assert_type(plain("a", size=1), bytes)
assert_type(process.task(plain, "a"), bytes)
process.add_task(task(length), "a")
process.add_task(Process("inner"))
process.add_task(Process("inner").execute)

# Handles are their values

some_words = process.task(words, "a b")
assert_type(some_words, list[str])
assert_type(process.task(total, [process.task(length, "a"), 2]), int)
assert_type(process.task(total, (process.task(length, "a"), 2)), int)
assert_type(process.task(table, {"a": process.task(length, "a")}, title=process.task(str.upper, "b")), str)
assert_type(process.task(lambda: 1), int)
assert_type(process.task(partial(words, "a b")), list[str])
assert_type(process.task(partial(table, title="a"), {"a": 1}), str)
assert_type(process.task(Store().save, process.task(length, "a")), Path)
assert_type(process.task(Store.opened, Path()), Store)
assert_type(process.task(Store.shut, Path()), bool)
assert_type(process.task(Store(), process.task(Path, "a")), bytes)
assert_type(process.task(Store().send, Path()), bytes)
assert_type(process.task(Store), Store)
assert_type(process.task(fetch, process.task(str.upper, "a"), size=process.task(length, "a")), bytes)
assert_type(process.task(first, some_words), str)
assert_type(process.task(int, "1"), int)
assert_type(process.task(len, some_words), int)
assert_type(process.task(sorted, some_words), list[str])
assert_type(process.task(Process("inner")), list[Any])
assert_type(process.task(Process("inner").execute), list[Any])
assert_type(process.task(operator.itemgetter(0), some_words), Any)

# Maps: over lists, lazy iterables and handles, several at once

lengths = process.map(length, some_words)
assert_type(lengths, list[int])
assert_type(process.task(total, lengths), int)
assert_type(process.map(length, ["a", "b"]), list[int])
assert_type(process.map(str, lazily()), list[str])
assert_type(process.map(str.upper, some_words), list[str])
assert_type(process.map(first, [some_words, ["a"]]), list[str])
assert_type(process.map(int, {"1", "2"}), list[int])
assert_type(process.map(lambda n: n + 1, range(3)), list[int])
assert_type(process.map(Store().save, process.map(length, some_words)), list[Path])
assert_type(process.map(partial(table, title="a"), [{"a": 1}]), list[str])
assert_type(process.map(fetch, some_words), list[bytes])
assert_type(process.map(Store(), (Path(),)), list[bytes])
assert_type(process.map(of_two, lengths, some_words), list[float])
assert_type(process.map(of_three, lengths, some_words, [1.0]), list[bytes])
assert_type(process.map(of_four, lengths, some_words, [1.0], [b""]), list[bool])
assert_type(process.map(of_five, lengths, some_words, [1.0], [b""], [True]), list[complex])
assert_type(process.map(of_six, lengths, some_words, [1.0], [b""], [True], [1j]), list[Path])
assert_type(process.map(table, [[{"a": 1}]], constants={"title": "a"}), list[str])
assert_type(process.map(fetch, some_words, constants={"size": 3}), list[bytes])
assert_type(process.map(all_lengths, some_words, batch=10), list[int])
assert_type(process.map(all_lengths, lazily_words(), batch=10), list[int])
assert_type(process.map(pages, some_words, batch=10), list[bytes])
assert_type(process.map(all_pairs, some_words, lengths, batch=10), list[float])
assert_type(process.map(all_of_three, lengths, some_words, [1.0], batch=10), list[bytes])
assert_type(process.map(pages, some_words, constants={"size": 3}, batch=10), list[bytes])
assert_type(process.map(all_lengths, some_words, constants={"least": 3}, batch=10), list[int])
assert_type(process.map(sorted, lengths, batch=10), list[int])
process.map(length, process.map(upper_all, some_words, batch=10))

# Options leave a function as it is

assert_type(fetch("a", size=1), bytes)
assert_type(task(retries=tenacity.Retrying())(length)("a"), int)
task(retry_on=ConnectionError)(length)
task(retry_on=(ConnectionError, TimeoutError))(length)
task(retry_on=[OSError], timeout=None, name=None)(length)
assert_type(task(executor="processes")(length)("a"), int)
assert_type(task(executor=WorkerProcesses(2))(length)("a"), int)
again = task(retries=1)
assert_type(again(length)("a"), int)
assert_type(again(words)("a b"), list[str])

# Runs and outcomes

assert_type(process.execute(), list[Any])
assert_type(process(), list[Any])
assert_type(process.last_run, Run | None)
run = process.start()
assert_type(run, Run)
assert_type(run[some_words], list[str])
assert_type(run[lengths], list[int])
assert_type(run[process.task(lambda: 1)], int)
assert_type(run.id, str)
assert_type(run.process_name, str)
assert_type(run.started_at, datetime)
assert_type(run.status, RunStatus)
assert_type(run.duration, float)
assert_type(run.progress, Progress)
assert_type(run.progress.ended, int)
assert_type(run.result(), list[Any])
assert_type(run.result(timeout=1), list[Any])
assert_type(run.wait(1.0), bool)
assert_type(run.summary(limit=3), str)
run.cancel()
outcomes: Sequence[Outcome] = run.outcomes
assert_type(run.outcomes[0], Outcome)
assert_type(run.outcomes[1:], list[Outcome])
for outcome in run:
    assert_type(outcome, Outcome)
    assert_type(outcome.index, int)
    assert_type(outcome.name, str)
    assert_type(outcome.state, TaskState)
    assert_type(outcome.value, Any)
    assert_type(outcome.error, BaseException | None)
    assert_type(outcome.attempts, int)
    assert_type(outcome.start, float | None)
    assert_type(outcome.duration, float | None)
    assert_type(outcome.worker, str | None)
    assert_type(outcome.call_again(), Any)
assert_type(current_task(), CurrentTask)
assert_type(current_task().attempt, int)
assert_type(current_task().name, str)
assert_type(current_task().cancelled, bool)
assert_type(current_task().element, int | None)
assert_type(current_task().key, str)
assert_type(current_task().call(length, "a"), int)
assert_type(current_task().call(table, {"a": 1}, title="b"), str)
assert_type(current_task().call(task(retries=1)(fetch), "a", size=1), bytes)
assert_type(current_task().call(Process("inner")), list[Any])
assert_type(current_task().map(length, ["a"]), list[int])


# Streams


def written(rows: Iterable[int], path: str = "") -> int:
    return sum(rows) + len(path)


async def written_async(rows: AsyncIterable[int]) -> str:
    return str([row async for row in rows])


@task(keep=False)
def parsed(text: str) -> int:
    return len(text)


piped = process.map(parsed, process.map(str, [1, 2]))
assert_type(piped, list[int])
assert_type(process.task(written, stream(piped), path="a"), int)
assert_type(process.task(written_async, stream(piped)), str)
followed = process.start(streams=[piped])
assert_type(followed.stream(piped), Elements[int])
assert_type(next(iter(followed.stream(piped))), int)


async def taken() -> list[int]:
    return [length async for length in followed.stream(piped)]


assert_type([row for row in followed.stream(piped, ordered=False)], list[int])
with process.start() as entered:
    assert_type(entered, Run)


# Coroutines: the handle of one stands for what it gives when it is awaited

process.add_task(page, "a", size=1)
a_page = process.task(page, "a")
assert_type(a_page, bytes)
assert_type(run[a_page], bytes)
assert_type(process.task(Store().load, Path()), str)
assert_type(process.task(task(retries=1)(page), "a"), bytes)
assert_type(process.task(partial(page, "a")), bytes)
assert_type(process.map(page, ["a"]), list[bytes])
assert_type(process.map(pair, ["a"], [1]), list[float])
assert_type(process.task(words, process.task(Store().load, Path())), list[str])


async def within() -> None:
    assert_type(await current_task().call(page, "a", size=1), bytes)
    assert_type(await current_task().map(page, ["a"]), list[bytes])
    assert_type(await process.execute_async(), list[Any])
    assert_type(await run, list[Any])
    async for outcome in run:
        assert_type(outcome, Outcome)
