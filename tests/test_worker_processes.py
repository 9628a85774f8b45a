"""Tasks on worker processes: that they run there, what becomes of them when a worker dies, and what is left."""

import os
import signal
import time
from functools import partial

import psutil
import pytest

import errands
from errands import called, noted, same, throw
from marks import linux, posix
from procession import Process, RunCancelledError, TaskTimeoutError, WorkerDiedError, task
from procession._remote.backends import worker_pool, worker_process
from programs import wait_for


def test_tasks_run_in_other_processes(processes):
    """In no more than max_workers of them, and in more than one at a time when tasks wait for each other."""
    process = processes()
    for _ in range(50):
        process.add_task(errands.pid)
    pids = set(process.execute())
    assert os.getpid() not in pids
    assert len(pids) <= 2


def test_workers_are_there_when_tasks_wait_for_each_other(processes, tmp_path):
    """As many as max_workers allows, even if that is more than there are cores."""
    process = processes()
    process.max_workers = 5
    for _ in range(5):
        process.add_task(errands.together, str(tmp_path), 5)
    assert process.execute() == [5] * 5


@posix
@pytest.mark.parametrize("place", [0, 1, 57, 299])
def test_a_worker_that_is_killed_fails_only_the_task_it_was_killed_in(processes, tmp_path, place):
    """All others run once, although many of them travel together."""
    process = processes(on_error="return")
    for number in range(300):
        call = errands.note_and_die if number == place else errands.note_and_return
        process.add_task(call, str(tmp_path), str(number))
    results = process.execute()
    error = results.pop(place)
    assert isinstance(error, WorkerDiedError)
    assert str(error) == "the worker process that ran the task was ended by SIGKILL"
    assert f"in process 'workers', task {place} (note_and_die), attempt 1" in error.__notes__
    assert results == [str(number) for number in range(300) if number != place]
    assert [called(tmp_path, str(number)) for number in range(300)] == [1] * 300


@posix
@pytest.mark.parametrize("place", [3, 20, 57])
def test_what_lay_ready_at_a_worker_that_is_killed_goes_to_another(processes, tmp_path, place):
    """It was not begun, so it is called once, elsewhere."""
    process = processes(on_error="return")
    for number in range(60):
        call = errands.note_and_die if number == place else errands.note_and_sleep
        process.add_task(call, str(tmp_path), str(number))
    results = process.execute()
    assert isinstance(results.pop(place), WorkerDiedError)
    assert results == [str(number) for number in range(60) if number != place]
    assert [called(tmp_path, str(number)) for number in range(60)] == [1] * 60


def test_what_lies_ready_at_a_worker_is_dropped_on_cancel(processes, tmp_path):
    """It never starts, and the run ends."""
    process = processes()
    for number in range(200):
        process.add_task(errands.note_and_sleep, str(tmp_path), str(number))
    run = process.start()
    next(iter(run))
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    for number, outcome in enumerate(run.outcomes):
        assert outcome.state in ("completed", "cancelled")
        assert called(tmp_path, str(number)) == (outcome.state == "completed")


def test_a_task_that_exits_for_good_fails_and_the_run_goes_on(processes):
    """os._exit takes the worker with it, and another one comes."""
    process = processes(on_error="return")
    for code in range(3, 6):
        process.add_task(errands.die, code)
        process.add_task(same, code)
    results = process.execute()
    assert results[1::2] == [3, 4, 5]
    assert [str(error) for error in results[::2]] == [
        f"the worker process that ran the task ended with exit code {code}" for code in range(3, 6)
    ]


@posix
def test_a_task_whose_worker_died_is_retried_as_its_policy_says(processes, tmp_path):
    """And the attempts are counted."""
    process = processes()
    process.add_task(task(retries=2)(partial(errands.die_before, str(tmp_path))), 2)
    assert process.execute() == [3]
    assert process.last_run.outcomes[0].attempts == called(tmp_path) == 3


@posix
def test_a_worker_killed_while_it_sends_leaves_nothing_locked(processes):
    """Half a message arrives, and the run goes on."""
    process = processes(on_error="return")
    for number in range(3):
        process.add_task(errands.kill_me_half_sent)
        process.add_task(errands.big, 300_000)
    results = process.execute()
    assert [type(error) for error in results[::2]] == [WorkerDiedError] * 3
    assert [len(value) for value in results[1::2]] == [300_000] * 3


@posix
def test_a_worker_killed_at_any_moment_loses_no_call_and_makes_none_twice(processes, tmp_path):
    """Every call was made once; at most the one that ran at that moment has failed."""
    process = processes(on_error="return")
    for _ in range(5):
        process.add_task(errands.kill_me_between_results, str(tmp_path))
        for _ in range(300):
            process.add_task(noted, str(tmp_path))
    results = process.execute()
    failed = sum(isinstance(result, WorkerDiedError) for result in results)
    assert failed <= 5
    assert len(results) - failed <= called(tmp_path) <= len(results)


@posix
def test_a_timeout_ends_the_worker_and_a_retry_follows(processes, tmp_path):
    """The attempt is gone for good, so another one may be made."""
    path = tmp_path / "pid"
    process = processes(on_error="return")
    process.add_task(task(timeout=2.0, retries=1)(errands.say_pid_and_sleep), str(path))
    process.add_task(same, 1)
    error, one = process.execute()
    assert one == 1
    assert isinstance(error, TaskTimeoutError)
    assert "task 0 (say_pid_and_sleep) took longer than its timeout of 2 s" in str(error)
    assert process.last_run.outcomes[0].attempts == 2
    assert not psutil.pid_exists(int(path.read_text()))


@posix
def test_what_a_forked_child_returns_is_not_taken_for_what_the_task_did(processes):
    """A worker that dies later than its child has ended has died in its task."""
    process = processes(on_error="return")
    process.add_task(errands.die_after_a_child_has_returned)
    process.add_task(same, 1)
    died, after = process.execute()
    assert isinstance(died, WorkerDiedError)
    assert after == 1


@posix
def test_a_task_may_fork_close_stdin_and_leave_threads_behind(processes, monkeypatch):
    """What it does to its worker stays there. A thread that does not end is cut off in the end, and that is said."""
    monkeypatch.setattr(worker_pool, "CLOSING_S", 0.1)
    process = processes()
    process.add_task(errands.close_stdin)
    process.add_task(errands.fork_and_return)
    process.add_task(errands.leave_a_thread)
    process.add_task(same, 4)
    with pytest.warns(RuntimeWarning, match=r"'workers': procession-workers-\d .*cut off.*a thread.*wait for what"):
        closed, child, left, four = process.execute()
    assert (closed, left, four) == ("closed", "left", 4)
    assert isinstance(child, int)


def test_what_tasks_have_left_in_a_worker_is_let_end(processes, tmp_path):
    """A handler at exit, and a thread, do what they have to before the run is over."""
    process = processes()
    for how in "handler", "thread":
        process.add_task(errands.leave_to_do, how, str(tmp_path))
    process.execute()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["handler", "thread"]


@linux
def test_a_worker_that_dies_is_noticed_though_its_child_holds_its_pipes(processes, tmp_path):
    """A daemon that a task has started keeps nobody waiting."""
    path = tmp_path / "child"
    process = processes(on_error="return")
    process.add_task(errands.leave_a_child, str(path))
    process.add_task(same, 1)
    try:
        error, one = process.execute()
    finally:
        os.kill(int(path.read_text()), signal.SIGKILL)
    assert one == 1
    assert isinstance(error, WorkerDiedError)


@posix
def test_cancel_asks_tasks_in_workers_and_ends_those_that_do_not_listen(processes, tmp_path):
    """Both are cancelled, and the run ends."""
    process = processes()
    process.add_task(errands.listen, str(tmp_path / "listens"))
    process.add_task(errands.say_pid_and_sleep, str(tmp_path / "deaf"))
    process.add_task(same, 1)
    run = process.start()
    wait_for(tmp_path / "listens")
    wait_for(tmp_path / "deaf")
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert [outcome.state for outcome in run.outcomes] == ["cancelled"] * 3
    assert called(tmp_path, "told") == 1


def test_cancel_reaches_runs_that_tasks_in_workers_have_started(processes, tmp_path):
    """Their tasks are asked to stop, too."""
    process = processes()
    process.add_task(errands.execute, errands.listen, str(tmp_path / "listens"))
    run = process.start()
    wait_for(tmp_path / "listens")
    run.cancel()
    with pytest.raises(RunCancelledError):
        run.result(20)
    assert called(tmp_path, "told") == 1


@linux
def test_after_a_run_there_are_no_more_files_and_processes_than_before(processes, comes_true):
    """Nothing is left open, on success and on failure."""

    def execute(call, *args):
        process = processes(on_error="return")
        process.add_task(call, *args)
        process.add_task(same, 2)
        process.execute()

    def open_files():
        return len(os.listdir("/proc/self/fd"))

    execute(same, 1)  # the first one starts the standard library's resource tracker
    before = open_files()
    execute(same, 1)
    execute(throw, KeyError())
    execute(errands.die)
    execute(task(timeout=0.05)(time.sleep), 20)
    assert comes_true(lambda: open_files() <= before)


@posix
def test_sigterm_lets_what_runs_in_workers_end(processes):
    """As it may go to the whole group; children that tasks fork end by it."""
    process = processes()
    process.add_task(errands.terminate_me)
    process.add_task(errands.terminate_a_child)
    assert process.execute() == ["went on", -signal.SIGTERM]


@posix
def test_workers_whose_exit_codes_somebody_else_takes_are_let_go(processes, comes_true):
    """Be it the system, where the program ignores SIGCHLD."""
    process = processes()
    process.add_task(same, 1)
    process.add_task(errands.kill_me)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(WorkerDiedError):
            process.execute()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert comes_true(
        lambda: not [child for child in psutil.Process().children() if "spawn_main" in str(child.cmdline())]
    )


@posix
def test_pipes_that_others_have_made_not_to_wait_are_waited_on(processes, monkeypatch):
    """gevent makes all sockets so, those of `multiprocessing` too."""
    make = worker_process._SPAWN.Pipe

    def pipe(duplex=True):
        ends = make(duplex)
        for end in ends:
            os.set_blocking(end.fileno(), False)
        return ends

    monkeypatch.setattr(worker_process._SPAWN, "Pipe", pipe)
    process = processes()
    for number in range(20):
        process.add_task(errands.big, number * 10_000)
    assert [len(value) for value in process.execute()] == [number * 10_000 for number in range(20)]


def test_a_run_on_workers_that_failed_goes_on_where_it_was(tmp_path):
    """What succeeded is not called again."""
    process = Process("recorded", "hybrid", 2, executor="processes")
    sheet = str(tmp_path)
    process.add_task(errands.note_and_return, sheet, "first")
    numbers = process.map(partial(errands.note_and_return, sheet), list("abc"))
    process.add_task(errands.fail_before, sheet, 1)
    process.add_task("".join, numbers)
    with pytest.raises(KeyError):
        process.execute(run_id="one", journal=str(tmp_path / "runs.db"))
    assert process.execute(run_id="one", journal=str(tmp_path / "runs.db")) == ["first", ["a", "b", "c"], 2, "abc"]
    assert [called(tmp_path, key) for key in ("first", "a", "b", "c", "")] == [1, 1, 1, 1, 2]
