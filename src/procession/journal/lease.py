"""Leases: which program executes a run, and whether that program is still there.

One runner at a time has the lease; a thread renews it while the run goes on. On the system of its holder, it is free
for others when that process, or its thread that renews it, is no more, and not before: one that was stopped, or whose
threads wait for each other, is late and lives. From elsewhere nobody can see that; there the lease is free when it has
run out, and a runner that was only late, or whose clock is another, may find that it was taken over. Each commit looks
whether that has happened, so that never two of them record.
"""

import json
import os
import platform
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Self

DURATION_S = 30.0
"""How long a lease holds that is not renewed."""

RENEWAL_S = 5.0

_held: set[str] = set()
"""The tokens of the leases that this process holds: a run that it has let go of without a word is nobody's."""
_held_lock = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child must not inherit it held
    os.register_at_fork(
        before=_held_lock.acquire, after_in_parent=_held_lock.release, after_in_child=_held_lock.release
    )


@dataclass(frozen=True)
class Holder:
    """A process that executes a run. `system` tells apart what processes have their numbers from."""

    host: str
    system: str
    pid: int
    started: float
    """On Linux in ticks since the system started, which no change of the clock moves; elsewhere in seconds UTC."""
    thread: int | None = None
    """On Linux the one that renews the lease: it lives until that is given back, or there is no way to say so."""

    @classmethod
    def here(cls, thread: int | None = None) -> Self:
        """Return this process, with the number of its thread that renews the lease."""
        thread = thread if platform.system() == "Linux" else None
        return cls(platform.node(), _system(), os.getpid(), _own_start(os.getpid()), thread)

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the holder that `text` describes; `ValueError` if it describes none."""
        try:
            holder = cls(**json.loads(text))
        except (TypeError, RecursionError) as error:
            raise ValueError("not a process") from error
        numbers = type(holder.pid) is int and 0 < holder.pid < 2**31 and type(holder.started) in (int, float)
        if not numbers or not all(
            isinstance(name, str) and name.isprintable() for name in (holder.host, holder.system)
        ):
            raise ValueError("not a process")
        return holder

    @classmethod
    def unknown(cls) -> Self:
        """Return a holder that stands for an unknown process."""
        return cls("?", "?", 0, 0.0)

    @property
    def text(self) -> str:
        """As the journal keeps it."""
        return json.dumps(vars(self))

    @property
    def place(self) -> str:
        """How the texts of all holders on the same system begin."""
        return self.text.partition(', "pid":')[0]

    def lives(self, token: str) -> bool | None:
        """Return whether the holder of this token's lease still executes its run; `None` if it is unknown."""
        if (self.host, self.system) != (platform.node(), _system()):
            return None
        if self.pid == os.getpid() and self.started == _own_start(self.pid):
            with _held_lock:
                return token in _held
        try:
            if started(self.pid) != self.started:
                return False
        except PermissionError:
            return None
        return self.thread is None or Path(f"/proc/{self.pid}/task/{self.thread}").exists()


def is_held(holder: Holder | None, token: str | None, until: float, now: float) -> bool:
    """Return whether a lease still is its holder's: it lives or, where that cannot be seen, the time is not up."""
    if holder is None or token is None:
        return False
    lives = holder.lives(token)
    return until > now if lives is None else lives


def take() -> str:
    """Return a new token, and note that this process has its lease."""
    token = os.urandom(16).hex()
    with _held_lock:
        _held.add(token)
    return token


def drop(token: str) -> None:
    """Forget the lease: this process no longer holds it."""
    with _held_lock:
        _held.discard(token)


def started(pid: int) -> float | None:
    """Return when a process of this system began, `None` if there is none of this number. A zombie is none.

    Raises `PermissionError` for one that is hidden.
    """
    if platform.system() == "Linux":
        return _started_linux(pid)
    return started_elsewhere(pid)


def started_elsewhere(pid: int) -> float | None:
    """Return when a process began, on systems that have no /proc: see `started`."""
    import psutil  # of no use on Linux, where its answer moves with the clock

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
    except psutil.AccessDenied as error:
        raise PermissionError(f"process {pid} is another user's") from error


def moment(seconds: float | None) -> str:
    """Return a time for people."""
    return "?" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _started_linux(pid: int) -> float | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        raise PermissionError(f"process {pid} is hidden from this user") from None
    # The name, in parentheses, may hold anything. After it: the state, and 19 fields later the start.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else float(fields[19])


@lru_cache(1)
def _own_start(pid: int) -> float:
    """Return when this process began. A forked child asks for another one."""
    return started(pid) or 0.0


def _system() -> str:
    """Name what process numbers are valid in: on Linux one boot of one kernel, and the namespace in it."""
    return _system_of(os.getpid())


@lru_cache(1)
def _system_of(_pid: int) -> str:
    if platform.system() != "Linux":
        return ""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
