"""A function that plainly cannot take a stream is refused as it is added; one that may be able to is not."""

import typing
from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Iterator, Sized
from dataclasses import dataclass
from enum import Enum
from functools import partial, singledispatch, wraps

import pytest

from procession import Process, stream, task


@dataclass
class Page:
    number: int


class Colour(Enum):
    RED = 1


class Readable(typing.Protocol):
    def read(self) -> str: ...


class Anything(typing.Any):
    """Stands for a class that type checkers know nothing of."""


T = typing.TypeVar("T")
Url = typing.NewType("Url", str)


def annotated(annotation, *, awaited=False):
    """Return a function whose parameter `rows` has an annotation."""

    def sink(rows):
        return list(rows)

    async def async_sink(rows):
        return [row async for row in rows]

    function = async_sink if awaited else sink
    function.__annotations__["rows"] = annotation
    return function


@pytest.fixture
def process():
    return Process("taken", "parallel")


@pytest.fixture
def rows(process):
    return process.map(str, range(3))


def without(): ...
def with_two(rows, path): ...
async def with_path(*, path): ...


class Writer:
    def write(self): ...


@pytest.mark.parametrize(
    ("function", "missed"),
    [
        (without, "too many positional arguments"),
        (with_two, "missing a required argument: 'path'"),
        (with_path, "too many positional arguments"),
        (Writer().write, "too many positional arguments"),
        (partial(with_two, "a", "b"), "too many positional arguments"),
        (task(retries=1)(without), "too many positional arguments"),
    ],
)
def test_a_function_without_a_parameter_for_a_stream_is_refused(function, missed, process, rows):
    """With the process, the task and what Python would say of the call."""
    with pytest.raises(TypeError, match=rf"process 'taken', task 1 \(.*\): it cannot be called .*: {missed}"):
        process.add_task(function, stream(rows))
    with pytest.raises(TypeError, match="got an unexpected keyword argument 'lines'"):
        process.task(with_path, lines=stream(rows), path="a")
    assert len(process.tasks) == 1


NEVER = [
    *(int, float, bool, str, bytes, None, Page, Colour, Sized, Callable[[], int], type[int], int | None),
    *(typing.Optional[Page], typing.Annotated[int, "rows"], typing.Union[str, int, None]),
    *("int", "Page | None", "typing.Optional[str]"),
]


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("annotation", NEVER)
def test_a_parameter_that_is_no_iterable_is_refused(annotation, awaited, process, rows):
    """By its name, and with what would be right."""
    message = r"process 'taken', task 1 \(.*\): its parameter 'rows' is annotated with .* <stream of .*process\.map"
    for function in annotated(annotation, awaited=awaited), task(retries=1)(annotated(annotation, awaited=awaited)):
        with pytest.raises(TypeError, match=message):
            process.task(function, stream(rows))
    with pytest.raises(TypeError, match=message):
        process.task(partial(annotated(annotation, awaited=awaited)), rows=stream(rows))


@pytest.mark.parametrize("annotation", [AsyncIterator[str], "typing.AsyncIterable", typing.AsyncGenerator[str, None]])
def test_a_function_that_asks_for_async_for_is_refused_if_it_is_none_of_coroutines(annotation, process, rows):
    """It gets an iterator; the same annotation is right for a coroutine function."""
    with pytest.raises(TypeError, match=r"gets an iterator for .* annotate it with Iterable\[...\]"):
        process.task(annotated(annotation), stream(rows))
    process.task(annotated(annotation, awaited=True), stream(rows))
    assert process.execute()[1] == ["0", "1", "2"]


@pytest.mark.parametrize("annotation", [Iterable[str], "typing.Iterator[str]", list[str], typing.Generator | None])
def test_a_coroutine_function_that_asks_for_a_plain_iterable_is_called(annotation, process, rows):
    """It may well iterate by `async for`; the annotation alone is wrong."""
    process.task(annotated(annotation, awaited=True), stream(rows))
    process.task(annotated(annotation), stream(rows))
    assert process.execute()[1:] == [["0", "1", "2"]] * 2


def test_a_coroutine_function_that_iterates_by_for_is_told_what_it_needs(process, rows):
    """As it is called: its code cannot be told from one that does not."""

    async def wrong(rows: Iterable[str]) -> list[str]:
        return [row for row in rows]  # noqa: C416

    process.task(wrong, stream(rows))
    with pytest.raises(TypeError, match=r"by `async for`"):
        process.execute()


OPEN = [
    *(typing.Any, object, T, Url, Anything, Hashable, Readable, "Unknown", "the rows to write", 5, "1 +", "1 / 0"),
    *(typing.Any | None, int | typing.Any, T | None, typing.Annotated[typing.Any, 1], typing.Literal["a"]),
    "int | Unknown",
]


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("annotation", OPEN)
def test_whatever_leaves_it_open_is_taken(annotation, awaited, process, rows):
    """Nothing is guessed."""
    process.task(annotated(annotation, awaited=awaited), stream(rows))
    assert process.execute()[1] == ["0", "1", "2"]


def number_of(text: str) -> int:
    return int(text)


@wraps(number_of)
def numbers_of(text):
    return [number_of(each) for each in text]


@wraps(without)
def with_any(*args):
    return [int(each) for each in args[0]]


@singledispatch
def by_type(rows: int):
    raise NotImplementedError


@by_type.register(Iterator)
def _(rows):
    return [int(each) for each in rows]


def in_many(*rows: int):
    return [int(each) for each in rows[0]]


def in_more(**rows: int):
    return [int(each) for each in rows["lines"]]


class Sink:
    __signature__ = "set by somebody"

    def __call__(self, rows):
        return [int(each) for each in rows]


@pytest.mark.parametrize("function", [numbers_of, with_any, by_type, in_many, task(retries=1)(numbers_of), Sink()])
def test_what_a_decorator_makes_of_a_function_is_taken(function, process, rows):
    """Annotations and parameters of the function inside say nothing of what is called."""
    process.task(function, stream(rows))
    assert process.execute()[1] == [0, 1, 2]


def test_keyword_arguments_of_any_name_are_taken(process, rows):
    """Their annotation is that of each value, and may be meant for others."""
    process.task(in_more, lines=stream(rows))
    assert process.execute()[1] == [0, 1, 2]
