"""How a call ended: made where the call was made, and the same for everybody who goes on from it.

worker                                              coordinator
Result ──encode_result──▶ bytes ─────────────────▶ result_of ──▶ Result

In a recorded run, the worker makes the bytes of the value that the journal keeps, and they travel inside of those of
the result: the coordinator records them as they are, and reads them once, for the tasks that take the value.
"""

import pickle
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from procession._engine.tracebacks import stripped
from procession._model.log import Log
from procession._model.pickled import LIMIT
from procession._model.text import described, sketch
from procession._remote.wire.packed import Packed, unpack
from procession._remote.wire.recipe import Recipe, recipe_of
from procession._remote.wire.serialize import dumps_home, unsendable
from procession.errors import RemoteError, TransferError

_TEXT_LIMIT = 20_000
_ADDRESS = re.compile("0x[0-9a-fA-F]+")
_Data = TypeVar("_Data", bytes, bytes | Packed)

Encode = Callable[[object], bytes]
"""What makes the bytes of a value that a journal keeps, such that `pickle.loads` reads them."""


class Result(NamedTuple):
    """How one attempt of a call ended."""

    returned: bool
    value: Any
    """The value that it returned, or the exception that it raised."""
    start: float
    """When it began: a reading of the worker's clock, in seconds; in the coordinator, of the coordinator's."""
    end: float
    worker: str
    attempt: int = 1
    log: Log | None = None
    """What it has logged in another process."""
    encoded: bytes | None = None
    """The value as a journal keeps it, where the worker has made these bytes."""

    @property
    def error(self) -> BaseException | None:
        """The exception that it raised."""
        return None if self.returned else self.value


Fields = tuple[bool, Any, float, float, int, Log | None, bytes | None]
"""A result as it travels: all but the worker, which is that of the whole report."""

result_from: Callable[[tuple[Any, ...]], Result] = partial(tuple.__new__, Result)  # pyright: ignore[reportUnknownMemberType]
"""Makes a result of all its fields, in a third of the time that `Result(...)` takes: for what every call passes."""


def encode_result(result: Result, encode: Encode | None) -> bytes:
    """Return a result as bytes. A value that cannot be pickled makes it a failure that says so."""
    return pack_result(result, encode, _dumps, bytes)


def _dumps(value: object) -> bytes:
    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)


def pack_result(
    result: Result, encode: Encode | None, dump: Callable[[object], _Data], packed: Callable[[bytes], _Data]
) -> _Data:
    """Return a result as `dump` makes it, or as `packed` does of what is pickled already."""
    returned, value, start, end, _, attempt, log, _ = result
    if returned:
        encoded = None if encode is None else _recorded(value, encode)
        sent = (True, value if encoded is None else None, start, end, attempt, log, encoded)
        try:
            return dump(sent)
        except Exception:  # noqa: S110  # it goes by value, if it can
            pass
        try:
            return packed(dumps_home(sent))
        except MemoryError:
            value = MemoryError(
                f"there was no memory left to send the result, an object of type {type(value).__name__}"
            )
        except Exception as error:
            value = TransferError(unsendable(f"the result, {sketch(value)},", error))
    return dump((False, _carried(value), start, end, attempt, log, None))


def failure_of(error: BaseException) -> bytes:
    """Return an exception as bytes, with its traceback as text."""
    return pickle.dumps(_carried(error), pickle.HIGHEST_PROTOCOL)


def error_of(data: bytes | memoryview) -> BaseException:
    """Return the exception that these bytes of `failure_of` stand for."""
    return _arrived(pickle.loads(data))  # noqa: S301  # from a worker of ours


def _recorded(value: object, encode: Encode) -> bytes | None:
    """Return a value as the journal keeps it; `None` if that is for the coordinator to do."""
    try:
        data = encode(value)
    except Exception:
        return None  # it may travel by value all the same, and the coordinator says why it cannot be recorded
    # The main module has this name in worker processes only: what is recorded can be read in any process.
    return None if b"__mp_main__" in data or len(data) > LIMIT else data


def result_of(data: Result | bytes | Packed, worker: str, shift: float = 0.0) -> Result:
    """Return a result, as bytes or not, its times moved by `shift` seconds.

    A value that cannot be unpickled makes it a failure that says so.
    """
    if isinstance(data, Result):
        return data._replace(start=data.start + shift, end=data.end + shift) if shift else data
    returned, value, start, end, attempt, log, encoded = fields_of(data, shift)
    return result_from((returned, value, start + shift, end + shift, worker, attempt, log, encoded))


def fields_of(data: Result | bytes | Packed, shift: float) -> Fields:
    """Return a result as it travels, for those who need no `Result`: to make one takes as long as to read it.

    Its times are those of the worker, to be moved by `shift` seconds.
    """
    if isinstance(data, Result):
        return (*data[:4], *data[5:])
    try:
        fields: Fields = pickle.loads(data) if type(data) is bytes else unpack(data)  # noqa: S301
    except Exception as error:
        now = time.perf_counter() - shift  # when it ended cannot be read, either
        return False, _unreadable(error), now, now, 1, None, None
    returned, value, start, end, attempt, log, encoded = fields
    if encoded is not None:
        try:
            value = pickle.loads(encoded)  # noqa: S301
        except Exception as error:
            returned, value, encoded = False, _unreadable(error), None
    elif not returned:
        value = _arrived(value)
    else:
        return fields
    return returned, value, start, end, attempt, log, encoded


def _unreadable(error: Exception) -> TransferError:
    return TransferError(f"the result could be pickled, but not be unpickled again: {described(error)}")


# Exceptions


class _Carried(NamedTuple):
    """An exception on its way."""

    data: bytes | None
    """The exception, or the recipe for it, pickled."""
    told: str
    """Its type and message."""
    text: str
    """Its traceback, and those of its causes."""


def _carried(error: BaseException) -> _Carried:
    import traceback  # takes long to import, and most calls raise nothing

    try:
        text = "".join(traceback.format_exception(type(error), error, stripped(error.__traceback__)))
    except Exception as failure:
        text = f"<no traceback: {type(failure).__name__}>"
    if len(text) > _TEXT_LIMIT:
        text = f"{text[: _TEXT_LIMIT // 2]}\n…\n{text[-_TEXT_LIMIT // 2 :]}"
    return _Carried(_packed(error), described(error), "" if isinstance(error, TransferError) else text)


def _packed(error: BaseException) -> bytes | None:
    """Return an exception, or the recipe for it, pickled; `None` where not even its type can be sent."""
    if isinstance(error, BaseExceptionGroup):
        return _checked(cast("BaseException", error), _group_recipe)
    # A constructor that makes its message of other arguments would make another message of that one.
    return _checked(error, lambda error: error, worded=True) or _checked(error, _recipe)


def _checked(error: BaseException, prepared: Callable[[Any], object], *, worded: bool = False) -> bytes | None:
    """Return a recipe that copies an exception of the same type, and, if asked for, with the same message."""
    try:
        data = dumps_home(prepared(error))
        copy = _made(data)
        return data if type(copy) is type(error) and (not worded or _same_text(copy, error)) else None
    except Exception:
        return None


def _recipe(error: BaseException) -> Recipe:
    return recipe_of(error, _can_be_sent)


def _same_text(copy: object, error: BaseException) -> bool:
    """Return whether two exceptions say the same, but for the addresses of objects without a text of their own."""
    try:
        said = str(error)
    except Exception:
        return True  # so whatever the copy says is no worse
    return _ADDRESS.sub("", str(copy)) == _ADDRESS.sub("", said)


def _group_recipe(group: "BaseExceptionGroup[BaseException]") -> Recipe:
    carried = [_Carried(_packed(error), described(error), "") for error in group.exceptions]
    return _recipe(group)._replace(args=(group.message, carried))


def _can_be_sent(value: object) -> bool:
    try:
        pickle.loads(dumps_home(value))  # noqa: S301
    except Exception:
        return False
    return True


def _made(data: bytes) -> object:
    value: object = pickle.loads(data)  # noqa: S301
    if not isinstance(value, Recipe):
        return value
    if issubclass(value.type, BaseExceptionGroup):
        message, carried = value.args
        value = value._replace(args=(message, [_arrived(one) for one in carried]))
    return value.made()


def _arrived(carried: _Carried) -> BaseException:
    try:
        error = None if carried.data is None else _made(carried.data)
    except Exception:
        error = None
    if not isinstance(error, BaseException):
        error = RemoteError(carried.told)
    if carried.text:
        error.add_note(f"where it was raised, in the worker:\n{carried.text.rstrip()}")
    return error
