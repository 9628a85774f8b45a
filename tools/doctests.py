"""For the documentation: examples in docstrings are shown as code, also where they have no section of their own."""

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(
    r"^(?P<indent> *)>>> .*\n(?:(?P=indent)\S.*\n|(?P=indent) +\S.*\n|\n(?=(?P=indent)>>> ))*", re.MULTILINE
)


class Doctests(Extension):
    """Puts a fence around the examples in each docstring."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of what was read."""
        if obj.docstring is not None:
            obj.docstring.value = _EXAMPLE.sub(r"\g<indent>```pycon\n\g<0>\g<indent>```\n", f"{obj.docstring.value}\n")
