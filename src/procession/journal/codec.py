"""Values as bytes, and back."""

import json
import pickle
from typing import Literal, Protocol

from procession._model.text import described, shown
from procession.errors import ResultError

LIMIT = 500_000_000
"""Bytes of one value, at most: what every supported database takes in one piece."""


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
        """Return the value that `encode` was given."""
        ...


class PickleCodec:
    """Takes nearly every value. Whoever can write to the journal can run code in whoever reads it."""

    name = "pickle"

    def encode(self, value: object) -> bytes:
        """Return the value pickled, having seen that it can be unpickled.

        >>> PickleCodec().decode(PickleCodec().encode([1, "two"]))
        [1, 'two']
        """
        data = pickle.dumps(value, 5)
        # All that can go wrong on the way back is a class or function that is looked up and called. Every pickle of
        # protocol 4 or 5 that does so has this opcode; if the byte is there by chance, that costs a look and no more.
        if pickle.STACK_GLOBAL in data:
            pickle.loads(data)  # noqa: S301  # it was made in the line above
        return data

    def decode(self, data: bytes) -> object:
        """Return the value. The journal's file belongs to the user and nobody else can write to it: see `access`."""
        return pickle.loads(data)  # noqa: S301  # see above


class JsonCodec:
    """Takes what JSON has a word for, and nothing that would come back as something else."""

    name = "json"

    def encode(self, value: object) -> bytes:
        """Return the value as JSON, having seen that the same value comes back.

        >>> JsonCodec().encode({"pages": [1, 2]})
        b'{"pages":[1,2]}'
        >>> JsonCodec().encode((1, 2))
        Traceback (most recent call last):
        TypeError: it would come back as another value: a tuple as a list, say, or a number that is a key as a string
        """
        data = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
        if json.loads(data) != value:
            raise TypeError(
                "it would come back as another value: a tuple as a list, say, or a number that is a key as a string"
            )
        return data

    def decode(self, data: bytes) -> object:
        """Return the value."""
        return json.loads(data)


CodecName = Literal["pickle", "json"]


def codec_of(codec: CodecName | Codec) -> Codec:
    """Return the codec of a name, or the one given."""
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
    """Return a recorded value. `ResultError` says `where` there is one that cannot be read back."""
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
    return shown(f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins."))
