"""Programs and workers that are killed at any instant, over and over."""

import json
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import errands
import stressed
from marks import linux, posix
from procession import (
    Process,
    RunUnknownError,
    TaskSkippedError,
    TaskTimeoutError,
    WorkerDiedError,
    WorkersUnavailableError,
    task,
)
from procession.journal import Journal
from procession.testing import recorded_calls
from stressed import ASKING, EVERYTHING, PATIENT, RETRIED, called, left_of, let_go_on, started, wait_for_calls

MOST_CALLS = 110


def recorded_in(journal):
    """Return the calls that are recorded as completed: none, if the program was killed before it had made a journal."""
    if "://" not in journal and not Path(journal).exists():
        return set()
    with Journal(journal) as opened:
        try:
            return recorded_calls(opened) | made_within(opened)
        except Exception as error:
            if "there is no journal" in str(error):
                return set()
            raise


def made_within(opened):
    """Return the calls that the tasks that wait have recorded themselves."""
    with suppress(RunUnknownError):
        made = [one for task in (PATIENT, ASKING) for one in opened.calls("a", task)]
        return {("a/calls", one.task, one.call if one.element is None else one.element) for one in made}
    return set()


def call_again(chance, journal):
    """Forget a part of a run, if there is anything of it; and give it some of its answers."""
    with Journal(journal) as opened, suppress(RunUnknownError):
        opened.rerun("a", tasks=[chance.choice([0, 1, RETRIED, PATIENT, ASKING])])
    if chance.random() < 0.5:
        with suppress(RunUnknownError):
            let_go_on(journal)


def intact(journal):
    if "://" in journal:
        return True
    connection = sqlite3.connect(journal)
    try:
        return connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        connection.close()


@linux
@pytest.mark.timeout(170)
def test_a_program_of_everything_that_is_killed_at_any_instant_loses_nothing_recorded(
    where, tmp_path, rounds, comes_true, request
):
    """Alone or with its whole group: no recorded call is made again, no worker is left, and the results come out right.

    Now and then, a part of the run is forgotten between two kills, and is all that may be called again. One round is one kill. Where a program is killed so often that it never gets through, it is let go at last.
    """
    chance, kills, runs = random.Random(7), 0, 0
    script, total = stressed.__file__, rounds(3)
    while kills < total:
        journal = (
            where
            if not runs
            else request.getfixturevalue("postgres").new_database()
            if "://" in where
            else f"{where}.{runs}"
        )
        runs, recorded, results = runs + 1, set(), tmp_path / "results"
        while True:
            popen, calls = started(tmp_path, script, journal, results)
            if kills < total:
                wait_for_calls(popen, calls, chance.randrange(MOST_CALLS))
                time.sleep(chance.uniform(0, 0.004))
                if popen.poll() is None:
                    kills += 1
                    (os.kill if chance.random() < 0.7 else os.killpg)(popen.pid, signal.SIGKILL)
            output = popen.communicate(timeout=100)[0]
            assert popen.returncode in (0, -signal.SIGKILL), output
            assert comes_true(lambda calls=calls: not left_of(calls)), f"after kill {kills}"
            made = Counter(called(calls))
            assert recorded.isdisjoint(made), f"after kill {kills}: recorded calls were made again"
            assert [one for one, times in made.items() if times > 1 and one != ("a", RETRIED, -1)] == [], (
                f"after kill {kills}"
            )
            now = recorded_in(journal)
            assert recorded <= now, f"after kill {kills}: records were lost"
            assert intact(journal) or not now
            recorded = now
            if popen.returncode == 0:
                break
            if recorded and chance.random() < 0.4:
                call_again(chance, journal)
                recorded = recorded_in(journal)
        assert json.loads(results.read_text()) == EVERYTHING, f"after kill {kills}"
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith("procession-")] == []


STORM = "STORM_WORKERS"


def work(number, pause=0.0):
    Path(os.environ[STORM], str(os.getpid())).touch()
    time.sleep(pause)
    return number * number


def definition(chance, options):
    """Return a process of calls short and long, large results, maps and timeouts, and what each may come to."""
    process, expected = Process("stormed", chance.choice(["parallel", "parallel", "hybrid"]), **options), []
    for number in range(chance.randint(5, 20)):
        kind = chance.random()
        if kind < 0.65:
            process.add_task(work, number, chance.choice([0, 0.002, 0.02, 0.1]))
            expected.append(number * number)
        elif kind < 0.8:
            size = chance.choice([10, 200_000, 2_000_000])
            process.add_task(errands.big, size)
            expected.append(errands.big(size))
        elif kind < 0.9 and process.strategy == "parallel":
            process.add_task(task(timeout=0.2)(work), number, 20)
            expected.append(TaskTimeoutError)
        else:
            process.map(work, range(6))
            expected.append([place * place for place in range(6)])
    return process, expected


def storm(chance, folder, over, sent):
    """Send signals to worker processes until told that it is over: mostly to those that have made a call."""
    while not over.wait(chance.uniform(0.005, 0.1)):
        workers = [child for child in psutil.Process().children() if is_worker(child)]
        if chance.random() < 0.9:
            workers = [worker for worker in workers if (folder / str(worker.pid)).exists()]
        how = chance.choice([signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP, signal.SIGTERM])
        if not workers or sent[signal.SIGKILL] + sent[signal.SIGSEGV] > 6:
            continue
        worker = chance.choice(workers)
        try:
            worker.send_signal(how)
            sent[how] += 1
            if how == signal.SIGSTOP:
                over.wait(chance.uniform(0.01, 0.2))
                worker.send_signal(signal.SIGCONT)
        except psutil.Error:
            continue


def is_worker(child):
    try:
        return "spawn_main" in " ".join(child.cmdline())
    except psutil.Error:
        return False


def right(value, expected):
    """Return whether a result is as it should be, or tells that its worker was killed."""
    if isinstance(value, list) and isinstance(expected, list):
        return len(value) == len(expected) and all(map(right, value, expected))
    if isinstance(value, WorkerDiedError):
        return True
    if isinstance(expected, type):
        return type(value) is expected
    return type(value) is type(expected) and value == expected


@posix
@pytest.mark.timeout(120)
def test_workers_in_a_storm_of_signals_give_right_results_or_say_that_they_were_killed(
    rounds, comes_true, tmp_path, monkeypatch
):
    """SIGKILL, SIGSEGV, SIGTERM, SIGSTOP: the run ends, nothing is left of it, and no result is a wrong one."""
    before, here = set(psutil.Process().children(recursive=True)), psutil.Process()
    monkeypatch.setenv(STORM, str(tmp_path))
    deaths = 0
    for round_ in range(rounds(6)):
        chance, over, sent = random.Random(round_), threading.Event(), Counter()
        options = {"max_workers": chance.randint(1, 3), "executor": "processes", "on_error": "return"}
        process, expected = definition(chance, options)

        def may_be_skipped(value, hybrid=process.strategy == "hybrid"):
            """Return whether a task may not have been called, since one before it, in order, was killed."""
            return hybrid and isinstance(value, TaskSkippedError)

        storming = threading.Thread(target=storm, args=(chance, tmp_path, over, sent))
        storming.start()
        try:
            run = process.start()
            ended = run.wait(60)
        finally:
            over.set()
            storming.join()
        assert ended, f"round {round_} hangs"
        try:
            results = run.result(0)
        except WorkersUnavailableError as error:  # several were killed before they could take a task
            assert "killed" in str(error) or "was ended by" in str(error)
            assert sum(sent.values()) - sent[signal.SIGSTOP] > 1
            results = []
        failed = [
            (place, value, expected[place])
            for place, value in enumerate(results)
            if not right(value, expected[place]) and not may_have_been_killed(value) and not may_be_skipped(value)
        ]
        assert failed == [], f"round {round_}: {dict(sent)}"
        deaths += sum(isinstance(value, BaseException) and may_have_been_killed(value) for value in results)
        if not sum(sent.values()) - sent[signal.SIGSTOP]:
            assert not any(may_have_been_killed(value) for value in results), f"round {round_}: {dict(sent)}"
        assert comes_true(
            lambda: [one for one in here.children(recursive=True) if one not in before and is_worker(one)] == []
        ), f"round {round_}"
    assert deaths  # or nothing of this was put to the test


def may_have_been_killed(value):
    """Return whether a task failed as its worker was killed; a map, if some of its elements did."""
    if isinstance(value, BaseExceptionGroup):
        return all(map(may_have_been_killed, value.exceptions))
    if isinstance(value, list):
        return any(isinstance(one, WorkerDiedError) for one in value)
    return isinstance(value, WorkerDiedError)
