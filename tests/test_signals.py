"""Ctrl-C, fork and interpreter exit, in real interpreters; and that no thread is ever left."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from textwrap import dedent

import psutil
import pytest

from procession import Process, RunCancelledError, TaskTimeoutError, current_task, task

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and fork are POSIX's")
STRATEGIES = ["sequential", "parallel", "hybrid"]
POLICIES = ["stop", "continue", "return"]

PRELUDE = """
import atexit, os, signal, sys, threading, time
from procession import Process, TaskCancelled, WorkersUnavailableError, current_task, task

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in the background

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def once_main_waits_in(function):
    # Return when the main thread is held up in a function of this name.
    seen = []
    while len(seen) < 20 or len(set(seen[-20:])) > 1 or function not in seen[-1]:
        time.sleep(0.001)
        frame, stack = sys._current_frames()[threading.main_thread().ident], []
        while frame is not None:
            stack += [frame.f_code.co_name, frame.f_lasti]
            frame = frame.f_back
        seen.append(tuple(stack))

def ready():
    # A signal that comes while the main thread cleans up after another one may be lost to the interpreter.
    if threading.current_thread() is not threading.main_thread():
        once_main_waits_in("execute")
    say("ready")

def told():
    try:
        current_task().sleep(50)
    except TaskCancelled:
        say("told")
"""


class Child:
    """An interpreter that runs a script, read line by line, and is killed if it hangs."""

    def __init__(self, script, *flags, **environment):
        self.complaints = tempfile.TemporaryFile("w+")
        self.popen = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", *flags, "-c", PRELUDE + dedent(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            text=True,
            env={**os.environ, **environment},
        )
        # The signal has it write down where each of its threads was.
        self.patience = threading.Timer(60, self.popen.send_signal, (signal.SIGABRT,))
        self.patience.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.patience.cancel()
        self.patience.join()
        self.popen.kill()
        self.popen.communicate()
        self.complaints.close()

    def expect(self, *words):
        for word in words:
            line = self.popen.stdout.readline().rstrip("\n")
            assert line == word, line or self.rest()

    def interrupt(self):
        os.kill(self.popen.pid, signal.SIGINT)

    def answer(self):
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def rest(self):
        """Wait for its end; return exit code, what it wrote since, and its complaints."""
        out = self.popen.stdout.read()
        code = self.popen.wait()
        self.complaints.seek(0)
        return code, out, self.complaints.read()


# Ctrl-C


@posix
@pytest.mark.parametrize("strategy", ["parallel", "hybrid"])
def test_ctrl_c_lets_what_runs_end_and_starts_nothing_new(strategy):
    """KeyboardInterrupt comes as soon as the tasks in flight have ended; the outcomes can be read."""
    with Child(f"""
        begun, ended, together = [], [], threading.Barrier(4, action=ready)
        lock, pending = threading.Lock(), [3]

        def work(number):
            begun.append(number)
            together.wait()
            if number == first:
                told()
                sys.stdin.readline()
                go.set()
            go.wait()
            ended.append(time.monotonic())
            return number

        go = threading.Event()
        process = Process("many", {strategy!r}, 4)
        first = 0
        if {strategy!r} == "hybrid":
            first = 4
            for number in range(4):
                process.add_task(int, number)
        for number in range(first, first + 4 if first else 1000):
            process.add_task(work, number)
        try:
            process.execute()
        except KeyboardInterrupt:
            late = time.monotonic() - max(ended)
            say("caught", sorted(begun) == list(range(first, first + 4)), len(ended), late < 10, process.status)
        run = process.last_run
        say(run.status, [outcome.value for outcome in run.outcomes[first : first + 4]])
        say({{outcome.state for outcome in run.outcomes[first + 4 :]}} or "none")
        say([thread.name for thread in threading.enumerate()])
        say(Process("another", "parallel").execute())
    """) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("told")
        child.answer()
        child.expect("caught True 4 True failed")
        if strategy == "hybrid":
            child.expect("cancelled [4, 5, 6, 7]", "none")
        else:
            child.expect("cancelled [0, 1, 2, 3]", "{'cancelled'}")
        assert child.rest() == (0, "['MainThread']\n[]\n", "")


@posix
@pytest.mark.parametrize("policy", POLICIES)
def test_ctrl_c_is_raised_as_itself_under_every_policy(policy):
    """And ends a program that does not catch it, without noise from workers."""
    with Child(f"""
        process = Process("policy", "parallel", 2, on_error={policy!r})
        all_here = threading.Barrier(2, action=ready)
        for _ in range(10):
            process.add_task(lambda: (all_here.wait(), current_task().sleep(50)))
        process.execute()
    """) as child:
        child.expect("ready")
        child.interrupt()
        code, out, err = child.rest()
        assert (code, out) == (-signal.SIGINT, "")
        assert err.count("Traceback") == 1
        assert err.rstrip().endswith("KeyboardInterrupt")


@posix
@pytest.mark.parametrize("strategy", ["parallel", "hybrid"])
def test_ctrl_c_twice_leaves_a_task_that_never_ends(strategy):
    """At once, and the interpreter exits; what had ended can still be read."""
    with Child(f"""
        process = Process("stuck", {strategy!r}, 3)
        all_here = threading.Barrier(2, action=ready)

        def stuck():
            all_here.wait()
            threading.Event().wait()

        def asked():
            all_here.wait()
            told()

        process.add_task(int, 7)
        if {strategy!r} == "hybrid":
            process.add_task(int, 8)
        process.add_task(stuck)
        process.add_task(asked)
        try:
            process.execute()
        except KeyboardInterrupt:
            say("caught", process.status, process.last_run.status, process.last_run.outcomes[0].value)
    """) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("told")
        child.interrupt()
        child.expect("caught failed cancelled 7")
        assert child.rest() == (0, "", "")


@posix
def test_ctrl_c_in_order_ends_the_task_itself():
    """It runs in the main thread, where the signal arrives; nothing after it starts."""
    with Child("""
        process = Process("order")
        process.add_task(int, 1)
        process.add_task(lambda: (say("ready"), threading.Event().wait()))
        process.add_task(say, "after")
        try:
            process.execute()
        except KeyboardInterrupt as error:
            say("caught", process.status, len(error.__notes__), "task 1" in error.__notes__[0])
        say(process.last_run.outcomes[0].value, process.last_run.outcomes[2].state)
    """) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("caught failed 1 True")
        code, out, err = child.rest()
        assert (code, err) == (0, "")
        assert out in ("1 skipped\n", "1 cancelled\n")


@posix
def test_ctrl_c_in_order_leaves_a_hung_task_with_a_timeout():
    """One is enough: its thread can be abandoned."""
    with Child(
        """
        process = Process("order")
        process.add_task(task(timeout=3600)(lambda: (ready(), threading.Event().wait())))
        process.add_task(say, "after")
        try:
            process.execute()
        except KeyboardInterrupt:
            say("caught", process.status)
        """,
        "-W",
        "ignore::RuntimeWarning",  # that the thread is another
    ) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("caught failed")
        assert child.rest() == (0, "", "")


@posix
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ctrl_c_cuts_the_wait_for_another_attempt_short(strategy):
    """The task is not tried again."""
    with Child(f"""
        import tenacity

        def fail():
            say("failed")
            raise OSError

        rules = tenacity.Retrying(wait=tenacity.wait_fixed(3600), before_sleep=lambda _: ready())
        process = Process("retries", {strategy!r})
        process.add_task(task(retries=rules)(fail))
        try:
            process.execute()
        except KeyboardInterrupt:
            say("caught", process.status)
    """) as child:
        child.expect("failed", "ready")
        child.interrupt()
        child.expect("caught failed")
        assert child.rest() == (0, "", "")


@posix
@pytest.mark.parametrize("outer", ["sequential", "parallel"])
def test_ctrl_c_reaches_a_nested_run(outer):
    """Its tasks are told; nothing new starts, inside or outside."""
    with Child(f"""
        inner = Process("inner", "parallel", 2)
        all_here = threading.Barrier(2, action=ready)
        for _ in range(2):
            inner.add_task(lambda: (all_here.wait(), told()))
        for _ in range(10):
            inner.add_task(say, "inner")
        outer = Process("outer", {outer!r}, 1)
        outer.add_task(inner)
        outer.add_task(say, "outer")
        try:
            outer.execute()
        except KeyboardInterrupt:
            say("caught", inner.status, inner.last_run.status, outer.status)
        say(len(threading.enumerate()))
    """) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("told", "told", "caught failed cancelled failed")
        assert child.rest() == (0, "1\n", "")


@posix
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ctrl_c_while_waiting_for_a_result_cancels_the_run(strategy):
    """It is raised when the tasks in flight have ended; the run is cancelled."""
    with Child(f"""
        process = Process("result", {strategy!r}, 1)

        def work():
            once_main_waits_in("result")
            say("ready")
            told()
            sys.stdin.readline()
            return 7

        process.add_task(work)
        for _ in range(3):
            process.add_task(say, "after")
        run = process.start()
        try:
            run.result()
        except KeyboardInterrupt:
            say("caught", process.status, run.status, run.outcomes[0].value)
    """) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("told")
        child.answer()
        child.expect("caught failed cancelled 7")
        assert child.rest() == (0, "", "")


@posix
@pytest.mark.parametrize(
    ("how", "where"), [("for _ in run: pass", "__iter__"), ("run.wait()", "wait"), ("run[handle]", "__getitem__")]
)
def test_ctrl_c_ends_any_other_wait_for_a_run(how, where):
    """Only the waiting: the run goes on."""
    with Child(f"""
        process = Process("waits", "parallel")
        release = threading.Event()

        def work():
            once_main_waits_in({where!r})
            say("ready")
            return release.wait()

        handle = process.task(work)
        run = process.start()
        try:
            {how}
        except KeyboardInterrupt:
            say("caught", run.status)
        release.set()
        say(run.result())
    """) as child:
        child.expect("ready")
        child.interrupt()
        child.expect("caught running")
        assert child.rest() == (0, "[True]\n", "")


@posix
def test_signal_handlers_are_the_callers():
    """Neither while a run goes on nor after it are they others than before."""
    for strategy in STRATEGIES:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        process = Process("handlers", strategy)
        for number in before:
            process.add_task(signal.getsignal, number)
        assert process.execute() == list(before.values())
        assert {number: signal.getsignal(number) for number in before} == before


# Fork and exit


@posix
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("inner", STRATEGIES)
def test_a_child_forked_in_a_task_can_run_a_process(strategy, inner):
    """Of its own, and the parent's run is not disturbed."""
    with Child(
        f"""
        def fork():
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    process = Process("child", {inner!r}, 4)
                    for number in range(20):
                        process.add_task(pow, number, 2)
                    code = 0 if process.execute() == [number * number for number in range(20)] else 2
                finally:
                    os._exit(code)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        process = Process("parent", {strategy!r}, 4)
        for _ in range(4):
            process.add_task(fork)
        say(process.execute())
        say(len(threading.enumerate()))
        """,
        "-W",
        "ignore::DeprecationWarning",
    ) as child:
        assert child.rest() == (0, "[0, 0, 0, 0]\n1\n", "")


@posix
def test_a_forked_child_can_execute_the_process_again_when_the_parent_has():
    """No thread of the parent is needed in it."""
    with Child(
        """
        process = Process("both", "parallel", 4)
        for number in range(20):
            process.add_task(int, number)
        results = process.execute()
        pid = os.fork()
        if pid == 0:
            os._exit(0 if process.execute() == results else 1)
        say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), process.execute() == results)
        """,
        "-W",
        "ignore::DeprecationWarning",
    ) as child:
        assert child.rest() == (0, "0 True\n", "")


@pytest.mark.parametrize("first", [True, False])
def test_a_process_executed_at_exit_runs_in_order_or_says_plainly_why_not(first):
    """An interpreter that shuts down starts no threads, whether or not there was a run before."""
    with Child(f"""
        def late():
            process = Process("late")
            process.add_task(int, 7)
            say(process.execute())
            for strategy in "parallel", "hybrid":
                process = Process("too late", strategy)
                process.add_task(int, 7)
                try:
                    say(process.execute())
                except WorkersUnavailableError as error:
                    say("too late" in str(error), "shutting down" in str(error), process.status)

        atexit.register(late)
        process = Process("in time", "parallel")
        process.add_task(int, 7)
        if not {first}:
            process.execute()
    """) as child:
        assert child.rest() == (0, "[7]\nTrue True failed\nTrue True failed\n", "")


@pytest.mark.parametrize("strategy", ["sequential", "parallel"])
def test_a_started_run_finishes_what_it_has_begun_when_the_interpreter_exits(strategy):
    """The interpreter waits for it."""
    with Child(f"""
        begun = threading.Event()

        def work(number):
            begun.set()
            once_main_waits_in("_shutdown")
            say(number)

        process = Process("goes on", {strategy!r}, 1)
        for number in range(3):
            process.add_task(work, number)
        run = process.start()
        atexit.register(say, "at exit")
        begun.wait()
    """) as child:
        assert child.rest() == (0, "0\n1\n2\nat exit\n", "")


@pytest.mark.parametrize("mapped", [False, True])
def test_a_started_run_does_all_of_its_tasks_though_the_interpreter_starts_no_more_threads(mapped):
    """Its own thread does those at once, too: the program may end right after start()."""
    with Child(f"""
        from procession import Hybrid
        process = Process("goes on", Hybrid(first=1))
        process.add_task(once_main_waits_in, "_shutdown")
        if {mapped}:
            process.map(say, process.task(list, range(3)))
        else:
            for number in range(3):
                process.add_task(say, number)
        run = process.start()
    """) as child:
        status, out, complaints = child.rest()
        assert (status, sorted(out.split()), complaints) == (0, ["0", "1", "2"], "")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_daemon_thread_that_executes_does_not_keep_the_interpreter(strategy):
    """It exits without a crash, whatever the thread is at."""
    with Child(
        f"""
        def forever():
            ran = 0
            while True:
                process = Process("daemon", {strategy!r}, 2)
                for number in range(10):
                    process.add_task(int, number)
                try:
                    process.execute()
                except WorkersUnavailableError:
                    break
                ran += 1
                if ran == 3:
                    enough.set()

        enough = threading.Event()
        threading.Thread(target=forever, daemon=True).start()
        enough.wait()
    """,
        # Coverage saves when the interpreter exits, and the thread, never idle, would hold it up for many seconds.
        COVERAGE_PROCESS_CONFIG="",
    ) as child:
        assert child.rest() == (0, "", "")


def test_a_run_leaves_the_streams_of_the_program_alone():
    """It writes nothing of its own, however it ends."""
    with Child("""
        for strategy in "sequential", "parallel", "hybrid":
            process = Process("quiet", strategy)
            process.add_task(int, "no number")
            try:
                process.execute()
            except ValueError:
                pass
    """) as child:
        assert child.rest() == (0, "", "")


def test_a_run_leaves_warnings_to_the_program():
    """Its filters are as before, and what a task warns of comes out as everywhere."""
    for strategy in STRATEGIES:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            before = warnings.filters[:]
            process = Process("warns", strategy)
            for number in range(4):
                process.add_task(warnings.warn, f"task {number}")
            process.execute()
            assert warnings.filters == before
        assert sorted(str(warning.message) for warning in caught) == [f"task {number}" for number in range(4)]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="how Linux lists open files")
@pytest.mark.parametrize("end", ["well", "failed", "hung", "nested", "mapped"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_open_file_and_no_child_process_is_left_after_execute(strategy, end, comes_true):
    """Whatever happened in it."""

    def opened():
        return {*os.listdir("/proc/self/fd"), *psutil.Process().children()}

    release = threading.Event()
    process = Process("files", strategy, 3, on_error="return")
    for _ in range(4):
        process.add_task(int)
    if end == "failed":
        process.add_task(fail)
    elif end == "hung":
        process.add_task(task(timeout=0.01)(release.wait))
    elif end == "nested":
        process.add_task(nested)
    elif end == "mapped":
        process.map(int, (str(number) for number in range(100)))
    process.execute()
    before = opened()
    for _ in range(3):
        if end != "mapped":
            process.execute()
    release.set()
    assert comes_true(lambda: opened() <= before)


# Threads


def fail(error=KeyError):
    raise error("no")


def nested():
    inner = Process("inner", "parallel", 2)
    inner.add_task(int)
    inner.add_task(fail)
    inner.execute()


def cancelling(process):
    process.last_run.cancel()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "end",
    ["nothing", "well", "failed", "exited", "interrupted", "cancelled", "retried", "nested", "mapped", "map failed"],
)
def test_no_thread_is_left_after_execute(strategy, policy, end):
    """Whatever happened in it."""
    before = set(threading.enumerate())
    process = Process("threads", strategy, 3, on_error=policy)
    if end != "nothing":
        for _ in range(10):
            process.add_task(int)
    if end == "failed":
        process.add_task(fail)
    elif end == "exited":
        process.add_task(fail, SystemExit)
    elif end == "interrupted":
        process.add_task(fail, KeyboardInterrupt)
    elif end == "cancelled":
        process.add_task(cancelling, process)
    elif end == "retried":
        process.add_task(task(retries=1, timeout=50)(fail))
    elif end == "nested":
        process.add_task(nested)
    elif end.startswith("map"):
        process.map((lambda _: fail()) if "failed" in end else int, ["1"] * 100)
    if end not in ("nothing", "well"):
        process.add_task(int)
    try:
        process.execute()
    except (KeyError, SystemExit, KeyboardInterrupt, RunCancelledError, ExceptionGroup):
        pass
    assert set(threading.enumerate()) <= before  # one of an earlier test may have ended
    assert process.status in ("completed", "failed")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_thread_of_a_timed_attempt_is_left_after_execute(strategy):
    """However the threads take turns: the one that made the attempt has gone, and not just almost."""
    before, interval = set(threading.enumerate()), sys.getswitchinterval()
    process = Process("timed", strategy, 2)
    for _ in range(2):
        process.add_task(task(timeout=50)(int))
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(100):
            process.execute()
            assert set(threading.enumerate()) <= before
    finally:
        sys.setswitchinterval(interval)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_a_hung_task_with_a_timeout_leaves_its_thread_until_it_ends(strategy):
    """As threads cannot be stopped."""
    before, release = set(threading.enumerate()), threading.Event()
    process = Process("hung", strategy, 2)
    process.add_task(task(timeout=0.05)(release.wait), 50)
    with pytest.raises(TaskTimeoutError):
        process.execute()
    (left,) = set(threading.enumerate()) - before
    assert left.daemon
    release.set()
    left.join(20)
    assert set(threading.enumerate()) <= before
