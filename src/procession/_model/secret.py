"""Secrets in what is shown, logged or recorded."""

import re
from typing import Final

_PASSWORD: Final = re.compile(r"(://[^:/?#@]*:).*@", re.DOTALL)
_PARAMETER: Final = re.compile(r"([?&;])([^?&;=]*)=([^&;]*)")
_HARMLESS: Final = frozenset(
    ("host", "hostaddr", "port", "dbname", "database", "user", "options", "sslmode", "application_name", "mode")
)
"""Parameters that are shown. What another says may be nobody's business."""


def masked(text: str) -> str:
    """Return `text` without the secrets of a URL in it: a password, and parameters that may be one.

    What stands between the user's name and the last @ is taken for the password, whatever is in it.

    >>> masked("postgresql://user:pass@word@host/name?sslmode=require&sslpassword=secret")
    'postgresql://user:***@host/name?sslmode=require&sslpassword=***'
    """
    return _PARAMETER.sub(_without_value, _PASSWORD.sub(r"\1***@", text)) if "://" in text else text


def _without_value(parameter: re.Match[str]) -> str:
    start, name, value = parameter.groups()
    return f"{start}{name}={value if name.lower() in _HARMLESS else '***'}"
