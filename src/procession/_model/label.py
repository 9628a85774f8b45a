"""Name templates of tasks, such as "fetch {url}", and the labels that they give for the arguments of a call."""

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from procession._model.columns import shortened
from procession._model.text import shown, sketch

if TYPE_CHECKING:
    from inspect import Signature

LABEL_LIMIT: Final = 200
"""Characters of a label, at most."""

_Text = TypeVar("_Text", str, bytes)

_CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset})


def is_template(name: str | None) -> bool:
    """Return whether the name of a task is a template: whether it has braces."""
    return name is not None and ("{" in name or "}" in name)


def check_template(name: str) -> None:
    """Raise `ValueError` for a template with more in its braces than the name of a parameter."""
    _parts_of(name)


def check_parameters(name: str, function: Callable[..., Any]) -> None:
    """Raise `ValueError` for a template with a name in its braces that no parameter of the function has."""
    fields = [field for _, field in _parts_of(name) if field is not None]
    try:
        known = parameters_of(signature_of(function))
    except (TypeError, ValueError):  # of some functions written in C, nobody knows
        known = ()
    for field in fields:
        if field not in known:
            has = f"it takes {', '.join(known)}" if known else "none of its parameters has a name that is known"
            raise ValueError(f"task(name={sketch(name)}): the function takes no parameter {field!r}: {has}")


def parameters_of(signature: "Signature") -> tuple[str, ...]:
    """Return the names of the parameters that take one value each."""
    return tuple(
        name for name, one in signature.parameters.items() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    )


def signature_of(function: Callable[..., Any]) -> "Signature":
    """Return the signature of a callable. Raises `TypeError` or `ValueError` where it is not known."""
    from inspect import signature  # takes long to import, and few names are templates

    try:
        if sys.version_info >= (3, 14):  # where annotations are evaluated when they are asked for
            from annotationlib import Format

            return signature(function, annotation_format=Format.STRING)
        return signature(function)
    except NameError as error:  # in code of the user that says what the signature is
        raise ValueError(f"its signature cannot be told: {error}") from error


def label_of(name: str, signature: "Signature", args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str | None:
    """Return the label that a template gives for a call, on one line; `None` for arguments that the call refuses.

    >>> def fetch(url, retry=False): ...
    >>> label_of("fetch {url} {retry}", signature_of(fetch), ("a.org",), {})
    'fetch a.org False'
    """
    try:
        given = signature.bind(*args, **kwargs)
    except TypeError:
        return None
    given.apply_defaults()
    parts = (f"{literal}{'' if field is None else _said(given.arguments[field])}" for literal, field in _parts_of(name))
    return shortened("".join(parts), LABEL_LIMIT)


def _said(value: object) -> str:
    """Return a value as text. Only so much of it is made text as may be shown."""
    try:
        if isinstance(value, str):
            return _ends(value)
        if isinstance(value, bytes):
            return repr(_ends(value))
        if isinstance(value, bytearray):
            return repr(_ends(bytes(value)))
        if type(value) in _CONTAINERS:
            import reprlib  # as above

            return reprlib.repr(value)
        return _ends(str(value))
    except Exception:
        return sketch(value)


def _ends(value: _Text) -> _Text:
    """Return what can be seen of a long value in a label: its beginning and its end."""
    return value if len(value) <= 2 * LABEL_LIMIT else value[:LABEL_LIMIT] + value[-LABEL_LIMIT:]


def _parts_of(name: str) -> list[tuple[str, str | None]]:
    """Return the parts of a template: text, and the name of the parameter that follows it, or `None` at the end."""
    from string import Formatter  # as above

    where = f"task(name={sketch(name)})"
    try:
        parts = list(Formatter().parse(name))
    except ValueError as error:
        raise ValueError(
            f"{where}: a name with braces is a template, and here {error}; write {{{{ and }}}} for braces themselves"
        ) from None
    for _, field, spec, conversion in parts:
        if field is not None and (not field.isidentifier() or spec or conversion):
            whole = f"{field}{'!' if conversion else ''}{conversion or ''}{':' if spec else ''}{spec or ''}"
            raise ValueError(
                f"{where}: in the braces of a template stands the name of a parameter and nothing else, as in "
                f"'fetch {{url}}'; got {shown(f'{{{whole}}}', 100)!r}. Write {{{{ and }}}} for braces themselves"
            )
    return [(literal, field) for literal, field, _, _ in parts]
