"""From `FILE_OR_MODULE:NAME` to the process that is meant."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from procession import Process


class TargetError(Exception):
    """What was named is not there, or is no process."""


def load(target: str) -> Process:
    """Return the process that a target names: the attribute NAME of a file or module, or what it returns if called.

    The file's folder, or the current one for a module, goes first on `sys.path`, as when Python runs either.
    Raises `TargetError` where nothing of that name is there, and whatever the user's code raises.
    """
    place, name = split(target)
    module = _from_file(Path(place)) if is_file(place) else _from_name(place)
    found: object = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise TargetError(f"{place} has no {name!r}; {_known(module)}") from None
    if callable(found) and not isinstance(found, Process):
        found = found()
    if not isinstance(found, Process):
        raise TargetError(
            f"{target} is a {type(found).__name__}, and neither a Process nor a function that returns one"
        )
    return found


def split(target: str) -> tuple[str, str]:
    """Return the file or module, and the name in it, that a target names; `TargetError` if it names none."""
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise TargetError(f"{target!r} is not FILE_OR_MODULE:NAME, such as pipeline.py:process")
    return place, name


def is_file(place: str) -> bool:
    """Return whether a target is in a file, and not in a module, as seen from the current folder."""
    return place.endswith(".py") or os.sep in place or Path(place).is_file()


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TargetError(f"there is no file {path}")
    name = path.stem
    if name in sys.modules:
        raise TargetError(f"{path} cannot be loaded as module {name!r}, for another one has that name; rename the file")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path} is no Python file")
    sys.path.insert(0, str(path.resolve().parent))
    # Known under its name, so that what it defines can be pickled, and it may import itself.
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _from_name(name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise TargetError(f"there is no module {name!r}, and no file of that name") from None
        raise


def _known(module: ModuleType) -> str:
    names = sorted(name for name, value in vars(module).items() if isinstance(value, Process))
    return f"processes in it: {', '.join(names)}" if names else "there is no Process in it"
