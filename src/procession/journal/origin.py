"""How a run was begun, as its journal keeps it, and whether that was by this user.

`procession resume` executes the command line or the script that stands there, and a journal may come from another
user. So what `procession run` begins, or a script without arguments, is marked with a key that lies in the user's own
folder: without it nobody can write a command line that is taken for one of the user's.
"""

import hashlib
import hmac
import json
import os
import stat
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path, PurePath
from typing import Any, Final

from procession._model.secret import masked

_KEY_BYTES: Final = 32

_COMMAND: ContextVar[Sequence[str]] = ContextVar("procession_command", default=())


def origin_of(run_id: str) -> dict[str, Any]:
    """Return how a run that begins now was begun."""
    # Of another program only its name: its arguments may be secrets.
    command = _COMMAND.get()
    argv = [masked(word) for word in command or sys.argv[:1]]
    origin: dict[str, Any] = {"argv": argv, "folder": str(Path.cwd())}
    if not command and _is_script():
        origin["arguments"] = len(sys.argv) - 1
    if resumable(argv) is not None or script_of(origin) is not None:
        with suppress(OSError, RuntimeError):  # without a folder of the user's own, `resume` asks
            origin["mark"] = _mark(_key(), run_id, origin)
    return origin


@contextmanager
def begun_by(command: Sequence[str]) -> Generator[None]:
    """Record the runs that begin within the block as begun by `command` in the current folder."""
    token = _COMMAND.set(command)
    try:
        yield
    finally:
        _COMMAND.reset(token)


def is_own(run_id: str, origin: Mapping[str, Any]) -> bool:
    """Return whether it is certain that this user began the run with this command line, in this folder."""
    try:
        key = _read(_path())
    except (OSError, RuntimeError):
        return False
    return hmac.compare_digest(_mark(key, run_id, origin).encode(), str(origin.get("mark", "")).encode())


def resumable(argv: Sequence[str]) -> list[str] | None:
    """Return the arguments of the `procession run` that began a run; `None` if it was begun in another way."""
    program, *arguments = argv or [""]
    path = PurePath(program)
    ours = path.stem == "procession" or (path.stem == "__main__" and path.parent.name == "procession")
    return arguments if ours and arguments[:1] in (["run"], ["demo"]) else None


def script_of(origin: Mapping[str, Any]) -> str | None:
    """Return the script that began a run; `None` where it was none, or had arguments, which are not kept."""
    match origin:
        case {"arguments": 0, "argv": [script]}:
            return str(script)
        case _:
            return None


def _is_script() -> bool:
    """Return whether this program is a file that Python was told to run, and can be told to run again."""
    main = sys.modules.get("__main__")
    return getattr(main, "__spec__", None) is None and bool(sys.argv) and Path(sys.argv[0]).is_file()


def _mark(key: bytes, run_id: str, origin: Mapping[str, Any]) -> str:
    said = json.dumps([run_id, origin.get("argv"), origin.get("folder")])
    return hmac.new(key, said.encode(), hashlib.sha256).hexdigest()


def _path() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or os.environ.get("LOCALAPPDATA")
    return (Path(state) if state else Path.home() / ".local" / "state") / "procession" / "key"


def _key() -> bytes:
    """Return this user's key, made at the first use."""
    path = _path()
    with suppress(FileNotFoundError):
        return _read(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"key.{os.urandom(8).hex()}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(_KEY_BYTES))
        with suppress(FileExistsError):  # two may begin their first run at the same time
            os.link(draft, path)
    finally:
        draft.unlink()
    return _read(path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        key = file.read(_KEY_BYTES)
    if sys.platform != "win32" and (status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077):
        raise PermissionError(f"{path} is not this user's alone")
    if len(key) != _KEY_BYTES:
        raise OSError(f"{path} is cut short")
    return key
