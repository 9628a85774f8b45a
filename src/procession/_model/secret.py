"""Secrets are taken out of URLs before these are shown, logged or recorded."""

import re
from typing import Final

_PASSWORD: Final = re.compile(r"(://[^:/?#@]*:).*@", re.DOTALL)
_PARAMETER: Final = re.compile(r"([?&;])([^?&;=]*)=([^&;]*)")
_HARMLESS: Final = frozenset(
    ("host", "hostaddr", "port", "dbname", "database", "user", "options", "sslmode", "application_name", "mode")
)
"""Parameters of a URL whose values are shown. The value of any other parameter may be a secret."""


def masked(text: str) -> str:
    """Return `text` with `***` in place of the password and of possibly secret parameters of a URL in it.

    Everything between the user's name and the last @ counts as the password, since a password may contain an @.

    >>> masked("postgresql://user:pass@word@host/name?sslmode=require&sslpassword=secret")
    'postgresql://user:***@host/name?sslmode=require&sslpassword=***'
    """
    return _PARAMETER.sub(_without_value, _PASSWORD.sub(r"\1***@", text)) if "://" in text else text


def _without_value(parameter: re.Match[str]) -> str:
    start, name, value = parameter.groups()
    return f"{start}{name}={value if name.lower() in _HARMLESS else '***'}"
