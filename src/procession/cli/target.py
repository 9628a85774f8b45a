"""From `FILE_OR_MODULE:NAME` to the process that is meant."""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from procession import Process
from procession.cli.nearest import meant
from procession.cli.parameters import Arguments


class TargetError(Exception):
    """What was named is not there, or is no process."""


def find(target: str) -> object:
    """Return the object that a target names: the attribute NAME of a file or module.

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
            raise TargetError(f"{place} has no {name!r}{_instead(module, name)}") from None
    return found


def process_of(found: object, target: str, arguments: Arguments) -> Process:
    """Return the process that was found, or that the function returns which was. `TargetError` if there is none."""
    if callable(found) and not isinstance(found, Process):
        found = found(*arguments.args, **arguments.kwargs)
    if not isinstance(found, Process):
        raise TargetError(
            f"{target} is of type {type(found).__name__}, and neither a Process nor a function that returns one"
        )
    return found


def split(target: str) -> tuple[str, str]:
    """Return the file or module, and the name in it, that a target names; `TargetError` if it names none."""
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        example = target if target.endswith(".py") else "pipeline.py"
        raise TargetError(f"{target!r} is not FILE_OR_MODULE:NAME, such as {example}:process")
    return place, name


def is_file(place: str) -> bool:
    """Return whether a target is in a file, and not in a module, as seen from the current folder."""
    return place.endswith(".py") or os.sep in place or Path(place).is_file()


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = meant(path.name, [other.name for other in path.absolute().parent.glob("*.py")])
        raise TargetError(f"there is no file {path}{near}")
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
            near = meant(name, [*(path.stem for path in Path.cwd().glob("*.py"))])
            raise TargetError(f"there is no module {name!r}, and no file of that name{near}") from None
        raise


def _instead(module: ModuleType, name: str) -> str:
    """Return the end of a sentence that says what else a module has: a name that is near, and its processes."""
    own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    processes = sorted(key for key, value in vars(module).items() if isinstance(value, Process))
    near = meant(name, own)
    if processes:
        return f"{near or ';'} processes in it: {', '.join(processes)}"
    return near or "; there is no Process in it"
