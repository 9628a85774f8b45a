"""Values as bytes, and back."""

import json
import pickle
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from procession._model.pickled import LIMIT, pickled
from procession._model.text import described, shown
from procession.errors import ResultError

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAPPINGS: Final = frozenset({dict})
_CONTAINERS: Final = frozenset({list, dict})
_KEYS: Final = frozenset[type[Any]]({str})
_PLAIN: Final = frozenset[type[Any]]({list, dict, str, int, float, bool, type(None)})
"""The types that JSON gives back."""
_GIVEN_BACK: Final[tuple[tuple[type[Any], str], ...]] = (
    (dict, "dict"),
    (list, "list"),
    (tuple, "list"),
    (str, "str"),
    (int, "int"),
    (float, "float"),
)
"""What JSON writes subclasses of these as."""


class Codec(Protocol):
    """Turns values into bytes and back. A run that was recorded with one is read with one of the same `name`."""

    @property
    def name(self) -> str:
        """What the journal remembers it by."""
        ...

    def encode(self, value: object, /) -> bytes:
        """Return the value as bytes. What it raises fails the task whose value it is."""
        ...

    def decode(self, data: bytes, /) -> object:
        """Return the value that `encode` made these bytes of."""
        ...


class PickleCodec:
    """Takes nearly every value. A program that can write to the journal can run code in each program that reads it."""

    name = "pickle"

    def encode(self, value: object) -> bytes:
        """Return the value pickled, having seen that it can be unpickled.

        >>> PickleCodec().decode(PickleCodec().encode([1, "two"]))
        [1, 'two']
        """
        return pickled(value)

    def decode(self, data: bytes) -> object:
        """Return the value. Only the user can write to the journal's file: see `access`."""
        return pickle.loads(data)  # noqa: S301  # see above


class JsonCodec:
    """Takes what JSON has a word for, and nothing that would come back as something else."""

    name = "json"

    def encode(self, value: object) -> bytes:
        """Return the value as JSON, having seen that the same value of the same type comes back, at every depth.

        >>> JsonCodec().encode({"pages": [1, 2]})
        b'{"pages":[1,2]}'
        >>> JsonCodec().encode((1, 2))
        Traceback (most recent call last):
        TypeError: it is, or holds, a tuple, which would come back as a list
        """
        data = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
        _check_types(value)
        if json.loads(data) != value:  # the text of a number that it cannot read, say
            raise ValueError("it would come back as another value")
        return data

    def decode(self, data: bytes) -> object:
        """Return the value."""
        return json.loads(data)


def _check_types(value: Any) -> None:
    """Raise `TypeError` if JSON would give back a part of the value as another type, such as an enum's member."""
    waiting: list[Any] = [[value]]
    while waiting:
        parts: Any = waiting.pop()
        if type(parts) in _MAPPINGS:
            _check_kinds(parts, _KEYS, "a key of type ")
            parts = parts.values()
        _check_kinds(parts, _PLAIN, "a ")
        waiting += [part for part in parts if type(part) in _CONTAINERS]


def _check_kinds(parts: "Iterable[object]", plain: frozenset[type[Any]], what: str) -> None:
    for kind in set[type[Any]](map(type, parts)) - plain:
        found: type[Any] = kind
        came = "str" if plain is _KEYS else next(word for base, word in _GIVEN_BACK if issubclass(kind, base))
        raise TypeError(f"it is, or holds, {what}{_named(found)}, which would come back as a {came}")


CodecName = Literal["pickle", "json"]
"""The name of a codec: `"pickle"` writes almost any value, `"json"` what is text, numbers, lists and dicts."""


def codec_of(codec: CodecName | Codec) -> Codec:
    """Return the codec of a name; a codec object is returned as it is."""
    if isinstance(codec, str):
        if codec == "pickle":
            return PickleCodec()
        if codec == "json":
            return JsonCodec()
        raise ValueError(f"unknown codec {codec!r}; known are 'pickle', 'json' and objects that encode and decode")
    return codec


def encoded(codec: Codec, value: object) -> bytes:
    """Return a value as bytes. `ResultError` says why it cannot be recorded and what to do."""
    try:
        data = codec.encode(value)
    except Exception as error:
        raise ResultError(
            f"a value of type {_type(value)} cannot be recorded in the journal with codec {codec.name!r}: "
            f"{described(error)}. Return something that can be, or give the journal another codec"
        ) from error
    if len(data) > LIMIT:
        raise ResultError(
            f"a value of type {_type(value)} takes {len(data):,} bytes, and a journal records at most {LIMIT:,}. "
            "Write it to a file and return the path"
        )
    return data


def decoded(codec: Codec, data: bytes, where: str) -> object:
    """Return a recorded value. Raises `ResultError`, with `where` in its message, if it cannot be read back."""
    try:
        return codec.decode(data)
    except Exception as error:
        raise ResultError(
            f"{where}: the recorded value cannot be read back with codec {codec.name!r}: {described(error)}. "
            "Put back what it needs (the class, the function, the codec's key), or go on with allow_changes=True, which"
            " calls again the task whose value it is and what follows from it"
        ) from error


def writable(text: str) -> str:
    r"""Return text with what databases refuse escaped: NUL, and halves of characters.

    >>> writable("file\udcff\0")
    'file\\udcff\\x00'
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")


def _type(value: object) -> str:
    return _named(type(value))


def _named(kind: type[Any]) -> str:
    return shown(f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."))
