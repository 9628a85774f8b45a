"""Rows as a data frame of pandas or polars."""

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Final

from procession._model.text import in_a_line

_LIBRARIES: Final = ("pandas", "polars")


def frame_of(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows as a data frame of the library that the program uses, pandas or polars, else the one installed.

    Errors stand there as text. Raises `ImportError` if there is none.
    """
    told = [{**row, "error": None if row["error"] is None else in_a_line(row["error"])} for row in rows]
    for name in sorted(_LIBRARIES, key=lambda name: name not in sys.modules):
        try:
            library: Any = import_module(name)
        except ModuleNotFoundError:
            continue
        return library.DataFrame(told, **({"strict": False, "infer_schema_length": None} if name == "polars" else {}))
    raise ImportError("a data frame takes pandas or polars (pip install pandas); to_dicts() takes neither")
