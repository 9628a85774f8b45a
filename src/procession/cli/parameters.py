"""Parameters of a function that builds a process, as options of the command line: from its signature."""

import argparse
import inspect
import types
from collections.abc import Callable, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from procession import Process
from procession.cli.parser import Parser, command_parser

_READ: Final[dict[object, Callable[[str], object]]] = {
    str: str,
    int: int,
    float: float,
    Path: Path,
    Decimal: Decimal,
    UUID: UUID,
    date: date.fromisoformat,
    datetime: datetime.fromisoformat,
    time: time.fromisoformat,
}
"""How a value of each type is read."""

_LISTS: Final[tuple[Any, ...]] = (list, tuple, set, frozenset, Sequence)
_COLLECTIONS: Final = (list, tuple, set, frozenset)
_TELLING: Final = (bool, int, float, Decimal, date, time, Enum)
"""Types of defaults that are kept with a run. A text may be a secret that the program has from elsewhere."""


class Arguments(NamedTuple):
    """The arguments of a call of a function, and the words of a command line that say the same."""

    args: list[object]
    kwargs: dict[str, object]
    words: list[str]


def read(builder: object, target: str, words: Sequence[str]) -> Arguments:
    """Return the arguments that the words of a command line give to a function. Exits if they are wrong.

    What is no function takes none.
    """
    parameters = _parameters(builder)
    parser = _parser(target, builder, parameters)
    parser.commands = {
        "run": command_parser().commands["run"],
        target: parser,
    }  # for what may be meant by a mistyped option
    given = parser.parse_args(words)
    read = Arguments([], {}, [])
    for name, parameter in parameters.items():
        value = getattr(given, name)
        if parameter.kind is parameter.POSITIONAL_ONLY:
            read.args.append(value)
        else:
            read.kwargs[name] = value
        if value is not parameter.default or isinstance(value, _TELLING):
            read.words.extend(_words(name, value))
    return read


def described(builder: object, target: str) -> str:
    """Return the help on the parameters of a function; an empty text if there are none."""
    parameters = _parameters(builder)
    return _parser(target, builder, parameters).format_help() if parameters else ""


def _parser(target: str, builder: object, parameters: dict[str, inspect.Parameter]) -> Parser:
    doc = (inspect.getdoc(builder) if parameters else None) or ""
    parser = Parser(
        prog=f"procession run {target}", description=doc.partition("\n\n")[0], add_help=False, allow_abbrev=False
    )
    group = parser.add_argument_group(f"parameters of {target}")
    try:
        hints = get_type_hints(builder) if parameters else {}
    except (NameError, TypeError, AttributeError):
        hints = {}
    for name, parameter in parameters.items():
        required = parameter.default is parameter.empty
        settings: dict[str, Any] = {"dest": name, "required": required}
        if not required:
            settings["default"] = parameter.default
            settings["help"] = f"default: {_text(parameter.default)}".replace("%", "%%")
        kind = hints.get(name, str if required or parameter.default is None else type(parameter.default))
        option = f"--{name.replace('_', '-')}"
        parser.actions.append(group.add_argument(option, **{**settings, **_settings(kind)}))
    return parser


def _parameters(builder: object) -> dict[str, inspect.Parameter]:
    if isinstance(builder, Process) or not callable(builder):
        return {}
    try:
        signature = inspect.signature(builder)
    except (TypeError, ValueError):
        return {}
    various = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: one for name, one in signature.parameters.items() if one.kind not in various}


def _settings(kind: Any) -> dict[str, Any]:
    """Return how an option reads a value of a type."""
    origin: Any
    origin, inner = get_origin(kind), [one for one in get_args(kind) if one is not type(None)]
    if origin in (Union, types.UnionType) and inner:
        return _settings(inner[0])
    if origin in _LISTS or kind in _LISTS:
        whole: Any = origin if isinstance(origin, type) and origin is not Sequence else kind
        return {**_settings(inner[0] if inner else str), "nargs": "*", "action": _Collected, "const": whole}
    if origin is Literal:
        return {"type": _of({str(value): value for value in inner}), "metavar": "{" + ",".join(map(str, inner)) + "}"}
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction, "help": None}  # which adds the default by itself, or not
    if _is_enum(kind):
        return {"type": _of(dict(kind.__members__)), "metavar": "{" + ",".join(kind.__members__) + "}"}
    read = _READ.get(kind)
    if read is None:
        return {"type": str, "metavar": "TEXT"}
    name: str = kind.__name__
    return {"type": _named(read, name), "metavar": name.upper()}


def _is_enum(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


class _Collected(argparse.Action):
    """Makes the values of an option the collection that a parameter takes."""

    def __call__(self, _parser: object, namespace: object, values: Any, _option: str | None = None) -> None:
        made = self.const if self.const in (tuple, set, frozenset) else list
        setattr(namespace, self.dest, made(values))


def _of(values: dict[str, Any]) -> Callable[[str], object]:
    def choice(text: str) -> object:
        try:
            return values[text]
        except KeyError:
            raise argparse.ArgumentTypeError(f"one of {', '.join(values)} is needed, not {text!r}") from None

    return choice


def _named(read: Callable[[str], object], name: str) -> Callable[[str], object]:
    def reader(text: str) -> object:
        try:
            return read(text)
        except (ValueError, ArithmeticError):
            raise argparse.ArgumentTypeError(f"a value of type {name} is needed, not {text!r}") from None

    return reader


def _words(name: str, value: Any) -> list[str]:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{option}" if value else f"--no-{option}"]
    if type(value) in _COLLECTIONS:
        return [f"--{option}", *map(_text, value)]
    return [f"--{option}={_text(value)}"]


def _text(value: object) -> str:
    if isinstance(value, Enum):
        return value.name
    return value.isoformat() if isinstance(value, date | time) else str(value)
