"""Signals to the command at any instant: how it ends, and that the run goes on."""

import os
import random
import shutil
import signal
import time

import pytest

import stressed
from marks import linux
from stressed import TARGETS, called, left_of, started, wait_for_calls


@linux
@pytest.mark.timeout(170)
def test_a_command_that_gets_signals_at_any_instant_ends_with_its_status_and_can_be_gone_on_with(
    tmp_path, rounds, comes_true
):
    """SIGINT or SIGTERM, once or twice, to it or to the whole group: no traceback, nothing left, and no call twice."""
    shutil.copy(stressed.__file__, tmp_path / "stressed.py")
    for round_ in range(rounds(8)):
        chance = random.Random(round_)
        target, number = TARGETS[round_ % len(TARGETS)], chance.choice([signal.SIGINT, signal.SIGTERM])
        send, twice, count = chance.choice([os.kill, os.killpg]), chance.random() < 0.3, chance.randrange(0, 34)
        told = f"round {round_}: {target}, {number.name} {'twice ' if twice else ''}by {send.__name__} at call {count}"
        journal = tmp_path / f"{round_}.db"
        command = ["-m", "procession", "run", f"stressed.py:{target}", "--run-id", "a", "--journal", journal]
        popen, calls = started(tmp_path, *command)
        wait_for_calls(popen, calls, max(count, 1))
        time.sleep(chance.uniform(0, 0.01))
        for _ in range(1 + twice):
            if popen.poll() is None:
                send(popen.pid, number)
                time.sleep(chance.uniform(0, 0.03))
        output = popen.communicate(timeout=30)[0]
        assert popen.returncode in (0, 128 + number), f"{told}: {output}"
        assert "Traceback" not in output, f"{told}: {output}"
        assert comes_true(lambda calls=calls: not left_of(calls)), told
        called(calls)
        popen, calls = started(tmp_path, *command)
        assert (popen.communicate(timeout=60)[1], popen.returncode) == (None, 0), told
        called(calls)
        popen, calls = started(tmp_path, *command)
        assert (popen.wait(60), called(calls)) == (0, []), told
        popen.communicate()
