"""What tests have called in workers: a module of its own that imports little, as every worker imports it."""

import asyncio
import atexit
import os
import signal
import struct
import sys
import threading
import time
from pathlib import Path

from procession import Process, TaskCancelled, current_task
from procession._remote.worker.process_main import serve


def same(value):
    return value


def add(*numbers):
    return sum(numbers)


def append_to(numbers, number):
    """Change an argument, and return how long it has become."""
    numbers.append(number)
    return len(numbers)


class Basket:
    """Counts the calls of its own method."""

    def __init__(self):
        self.count = 0

    def put(self):
        self.count += 1
        return self.count


def throw(error):
    raise error


def noted(sheet, key=""):
    """Add a mark to a file; return how many there are now."""
    file = os.open(os.path.join(sheet, f"calls{key}"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    try:
        os.write(file, b".")
        return os.fstat(file).st_size
    finally:
        os.close(file)


def note_slowly(sheet):
    """Add a mark after a while."""
    time.sleep(0.02)
    noted(sheet)


def called(sheet, key=""):
    try:
        return os.stat(os.path.join(sheet, f"calls{key}")).st_size
    except FileNotFoundError:
        return 0


def note_and_return(sheet, key):
    noted(sheet, key)
    return key


def note_and_sleep(sheet, key):
    noted(sheet, key)
    time.sleep(0.01)
    return key


def fail_before(sheet, times):
    """Fail so many times, then return the number of the call."""
    number = noted(sheet)
    if number <= times:
        raise KeyError(number)
    return number


def die(code=3):
    os._exit(code)


def kill_me():
    os.kill(os.getpid(), signal.SIGKILL)


def die_before(sheet, times):
    number = noted(sheet)
    if number <= times:
        kill_me()
    return number


def note_and_die(sheet, key):
    noted(sheet, key)
    kill_me()


def kill_me_half_sent():
    """Be killed while a report is being sent: its head is there, and part of the rest."""
    frame = sys._getframe()
    while "work" not in frame.f_locals:  # the pipe, in the worker's loop
        frame = frame.f_back
    os.write(frame.f_locals["work"].fileno(), struct.pack("!i", 100_000) + b"r" * 100)
    kill_me()


def kill_me_between_results(sheet):
    """Be killed by a thread some time in the next results."""
    threading.Thread(target=lambda: (time.sleep(0.002), kill_me()), daemon=True).start()
    return noted(sheet)


class Witness:
    """A value that notes in which process it is pickled."""

    def __init__(self, sheet):
        self.sheet = sheet

    def __reduce__(self):
        noted(self.sheet, f"pickled in {os.getpid()}")
        return Witness, (self.sheet,)


def big(size):
    return b"x" * size


def serve_after(*args):
    """Be a worker process, but for the first ones that start: they are killed."""
    if noted(os.environ["STARTS"]) <= int(os.environ["STILLBORN"]):
        kill_me()
    serve(*args)


def serve_and_say(*args):
    """Be a worker process that has written down which signals were kept from it as it began."""
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    noted(os.environ["STARTS"], "kept" if kept >= {signal.SIGINT, signal.SIGTERM} else "not kept")
    serve(*args)


def terminate_me():
    os.kill(os.getpid(), signal.SIGTERM)
    return "went on"


def terminate_a_child():
    """Return by which signal a child was ended that was sent SIGTERM."""
    up, said = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(said, b"up")
        time.sleep(60)
        os._exit(0)
    os.read(up, 2)
    os.kill(child, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def pid():
    return os.getpid()


def say_pid_and_sleep(path, seconds=60):
    """Write down the worker's id, whole or not at all, and sleep on without listening to anybody."""
    with open(f"{path}.part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.part", path)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.05)


def listen(path):
    """Write down the worker's id and sleep until asked to stop."""
    with open(f"{path}.part", "w") as file:
        file.write(str(os.getpid()))
    os.rename(f"{path}.part", path)
    try:
        current_task().sleep(60)
    except TaskCancelled:
        noted(os.path.dirname(path), "told")
        raise


def execute(function, *args):
    """Call it by a process of its own, in threads."""
    process = Process("inner", "parallel", 1)
    process.add_task(function, *args)
    return process.execute()


def who(_=None):
    task = current_task()
    return task.name, task.index, task.attempt, task.process_name, task.cancelled


def die_after_a_child_has_returned():
    child = os.fork()
    if child == 0:
        return "the child's"
    os.waitpid(child, 0)
    os._exit(3)


def fork_and_return():
    """The child returns, too, into whatever called this."""
    child = os.fork()
    return "child" if child == 0 else child


def leave_a_child(path):
    """A daemon that outlives the worker, with everything that it inherits open."""
    child = os.fork()
    if child == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    with open(path, "w") as file:
        file.write(str(child))
    kill_me()


def close_stdin():
    sys.stdin.close()
    os.close(0)
    return "closed"


def leave_to_do(how, folder):
    """Have something done when the worker's main thread is over."""

    def do():
        threading.main_thread().join()
        Path(folder, how).touch()

    if how == "thread":
        threading.Thread(target=do).start()
    else:
        atexit.register(Path(folder, how).touch)


def leave_a_thread():
    threading.Thread(target=time.sleep, args=(60,)).start()
    return "left"


def together(folder, count):
    """Return when so many of these run at the same time."""
    noted(folder, "together")
    deadline = time.monotonic() + 30
    while called(folder, "together") < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return count


async def later(value):
    await asyncio.sleep(0)
    return value


class TwoArguments(Exception):
    """Its constructor takes other arguments than `args` says."""

    def __init__(self, code, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


class Reworded(Exception):
    """Made of its own message it would have another."""

    def __init__(self, thing):
        super().__init__(f"there is no {thing}")


class WithLock(Exception):
    def __init__(self, message):
        super().__init__(message)
        self.lock = threading.Lock()
        self.code = 7


def throw_untransportable():
    class Untransportable(Exception):
        lock = threading.Lock()

    raise Untransportable("not in a box")


class Request:
    """Has no text of its own, as most classes."""

    def __init__(self, url):
        self.url = url


class Refused(Exception):
    pass


class ApiError(ConnectionError):
    def __init__(self, url, status):
        super().__init__(status, f"bad answer from {url}")
        self.url = url


class NotThere(ValueError, FileNotFoundError):
    def __init__(self, path):
        super().__init__(2, "not there", path)


class Checked(Exception):
    """Its class makes it in its own way, and its text takes an attribute."""

    def __new__(cls, *, code):
        return super().__new__(cls, "checked")

    def __init__(self, *, code):
        super().__init__()
        self.code = code

    def __str__(self):
        return f"code {self.code}"


def throw_with_lock():
    raise ValueError("cannot use", threading.Lock())


def throw_group():
    raise ExceptionGroup("both", [Reworded("such thing"), ExceptionGroup("deeper", [NotThere("/x")])])


class Unreadable:
    """Can be pickled, and not unpickled."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise OSError("this cannot be read")


def make(kind):
    return kind()


def raise_new(kind, *args, **kwargs):
    raise kind(*args, **kwargs)


def lock():
    return threading.Lock()


def nest(depth, executor):
    """Run a process in a task of a process in a task ..."""
    from procession import Process

    if depth == 0:
        return 0
    process = Process(f"depth {depth}", "parallel", 2, executor=executor)
    process.add_task(nest, depth - 1, executor)
    return process.execute()[0] + 1
