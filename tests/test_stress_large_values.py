"""Workers with large values that are killed at any instant, wear out and lack memory; and programs that are killed."""

import logging
import os
import random
import signal
import sys
import threading
from collections import Counter
from contextlib import suppress
from itertools import count

import psutil
import pytest

pytest.importorskip("numpy")
if sys.platform == "win32":
    pytest.skip("there is no such memory on Windows", allow_module_level=True)

import arrays
import pool_jobs
from errands import called
from marks import linux
from pool_fixtures import children, large_memory, named_memory, open_files, workers
from procession import Process, WorkerDiedError
from programs import program, wait_for

__all__ = ["workers"]

pytestmark = linux


def calls(chance, array):
    """Return calls that take an array, make one, hand it back or need more memory than there is; each with its value."""
    kinds = [
        (arrays.count_up, (array,), (2.0, 2.0)),
        (arrays.first, (array,), 1.0),
        (arrays.first_of_new, (7,), 7.0),
        (arrays.same, (array,), "an array"),
        (pool_jobs.return_memory, (200,), MemoryError),
    ]
    return chance.choices(kinds, [4, 2, 2, 4, 1], k=16)


def kill_some(chance, sheet, over):
    """Kill some workers that have made a call, at any instant, until told that it is over."""
    for _ in range(10):
        if over.wait(chance.uniform(0, 0.03)):
            return
        if found := [pid for pid in children() if called(sheet, pid)]:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(found), signal.SIGKILL)


def is_right(value, expected):
    if isinstance(expected, type):
        return isinstance(value, expected)
    if expected == "an array":
        return value.shape == (2 << 17,) and bool((value == 1).all())
    return value == expected


@pytest.mark.timeout(120)
def test_workers_that_are_killed_or_worn_out_or_lack_memory_lose_no_call_and_leave_nothing(
    rounds, workers, comes_true, tmp_path, monkeypatch
):
    """A call fails only where its worker was killed or had no memory, by that name; each other is made once."""
    monkeypatch.setattr(logging.getLogger("procession"), "disabled", True)  # pytest keeps all records
    before, array, died = open_files(), arrays.ones(), 0
    executor = workers(2, max_calls=7, initializer=arrays.leave_memory, initargs=(100,))
    for round_ in count():
        if round_ >= rounds(4) and (died or round_ >= 40):  # until a worker was killed in a call
            break
        chance, over, sheet = random.Random(round_), threading.Event(), tmp_path / str(round_)
        sheet.mkdir()
        process = Process("killed", "parallel", 2, executor=executor, on_error="return")
        made = calls(chance, array)
        for key, (function, args, _) in enumerate(made):
            process.add_task(arrays.noted_call, str(sheet), f" {key}", function, *args)
        killer = threading.Thread(target=kill_some, args=(chance, str(sheet), over))
        killer.start()
        try:
            run = process.start()
            assert run.wait(60), f"round {round_} hangs"
        finally:
            over.set()
            killer.join()
        for key, (value, (function, _, expected)) in enumerate(zip(run.result(0), made, strict=True)):
            times, what = called(sheet, f" {key}"), f"round {round_}: {key}, {function.__name__}: {str(value)[:200]}"
            if isinstance(value, WorkerDiedError):
                died += 1
                assert times <= 1, what
            else:
                assert times == 1, what
                assert is_right(value, expected), what
        value = process = run = None
        assert comes_true(lambda: (large_memory(), named_memory()) == ([], [])), f"round {round_}"
    assert died  # or nothing of this was put to the test
    executor.shutdown()
    assert comes_true(lambda: not Counter(open_files()) - Counter(before))
    assert (array == 1).all()


PROGRAM = """
    import arrays, sys
    from pathlib import Path
    from procession import Process

    if __name__ == "__main__":
        process = Process("killed", "parallel", 2, executor="processes", on_error="return")
        array = arrays.ones(8)
        parts = process.map(arrays.numbered, range(1000))
        for _ in range(200):
            process.task(arrays.count_up, array)
        process.map(arrays.same, parts)
        run = process.start()
        Path(sys.argv[1]).touch()
        run.wait()
"""


@pytest.mark.timeout(120)
def test_a_program_that_is_killed_leaves_nothing(rounds, tmp_path, monkeypatch):
    """Neither workers nor memory nor files, at whatever moment that is, also where one of its workers was killed."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    for round_ in range(rounds(4)):
        chance, begun = random.Random(round_), tmp_path / f"begun {round_}"
        with program(tmp_path, PROGRAM, str(begun)) as child:
            wait_for(begun)
            here = psutil.Process(child.pid)
            psutil.wait_procs(here.children(), timeout=0.02 * (round_ % 40))  # another moment each round
            family = here.children(recursive=True)
            if chance.random() < 0.5 and family:
                with suppress(psutil.NoSuchProcess):
                    chance.choice(family).kill()
                psutil.wait_procs([here], timeout=chance.uniform(0, 0.1))
                family += here.children(recursive=True)
            child.send_signal(signal.SIGKILL)
            child.communicate(timeout=30)
        _, alive = psutil.wait_procs(family, timeout=20)
        assert [process.cmdline() for process in alive if "resource_tracker" not in str(process.cmdline())] == []
        assert (named_memory(), list(temporary.iterdir())) == ([], []), f"round {round_}"
