"""No room, few open files, few threads, little memory: a run says so, or comes out right; with room again it goes on."""

import json
import os
import random
import shutil
import subprocess
import sys

import pytest

from journals import execute, root
from marks import linux
from procession.journal import Journal
from procession.testing import recorded_calls
from stressed import KINDS, called, left_of, part_results, started

pytestmark = [linux, pytest.mark.timeout(170)]

PROGRAM = """
import json, os, resource, sys, threading
import stressed

kind, journal, limit, amount, options = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), json.loads(sys.argv[5])

def limited():
    held = []
    if limit == "files":
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        while len(os.listdir("/proc/self/fd")) < 64 - amount:
            held.append(os.open("/dev/null", os.O_RDONLY))
    elif limit == "size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (amount, resource.RLIM_INFINITY))
    elif limit == "threads":  # each takes much of what there is of addresses
        threading.stack_size(1 << 28)
        bound(amount << 28)
    elif limit == "processes":
        resource.setrlimit(resource.RLIMIT_NPROC, (amount, amount))
    elif limit == "memory":
        bound(amount << 20)
    return held

def bound(more):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))

if __name__ == "__main__":
    process = stressed.part(kind, "a", **options)
    before, held = threading.active_count(), limited()
    try:
        results = process.execute(**({} if journal == "-" else {"run_id": "a", "journal": journal}))
        said = "completed " + json.dumps(results)
    except Exception as error:
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        said = f"failed {type(error).__name__}: {error}".replace("\\n", " ")
    print(said, flush=True)
    print("threads left:", threading.active_count() - before, flush=True)
"""


class Limited:
    """Executes a part of `stressed` in a program of its own, under a limit or none."""

    def __init__(self, folder, comes_true):
        self.folder = folder
        self.comes_true = comes_true
        self.script = folder / "limited.py"
        self.script.write_text(PROGRAM)

    def run(self, kind, journal="-", limit="none", amount=0, options=None, before=()):
        """Return how it ended, and what it called. Whatever that is, it hangs at nothing and leaves nothing behind."""
        options = {"elements": 40} | (options or {})
        command = [self.script, kind, journal, limit, amount, json.dumps(options)]
        popen, calls = started(self.folder, *command, before=before)
        try:
            output = popen.communicate(timeout=50)[0]
        except subprocess.TimeoutExpired:
            os.killpg(popen.pid, 9)
            raise AssertionError(f"{kind}, {limit} {amount}: hangs: {popen.communicate()[0][-2000:]}") from None
        what = f"{kind}, {limit} {amount}, {'recorded' if journal != '-' else 'not recorded'}: {output[-2000:]}"
        said = next((line for line in output.splitlines() if line.startswith(("completed ", "failed "))), None)
        assert said is not None, what
        assert "threads left: 0" in output, what
        assert self.comes_true(lambda: not left_of(calls)), what
        assert [path.name for path in self.folder.iterdir() if path.name.startswith("procession-")] == [], what
        if said.startswith("completed "):
            assert json.loads(said.removeprefix("completed ")) == part_results(kind, **options), what
        return said, called(calls)

    def run_and_go_on(self, kind, journal, limit, amount, options=None, before=()):
        """Run it under a limit, then without one if it failed: what was recorded is not called again."""
        said, _ = self.run(kind, journal, limit, amount, options, before)
        if journal == "-" or said.startswith("completed "):
            return said
        recorded = set()
        if before:  # another user has run it: now it is ours
            folder = os.path.dirname(journal)
            for path in (folder, *(f"{folder}/{name}" for name in os.listdir(folder))):
                os.chown(path, 0, 0)
        if os.path.exists(journal) and os.path.getsize(journal):
            if execute(journal, "SELECT name FROM sqlite_master"):
                with Journal(journal) as opened:
                    recorded = recorded_calls(opened)
            assert execute(journal, "PRAGMA integrity_check") == [("ok",)]
        again, calls = self.run(kind, journal, options=options)
        assert again.startswith("completed "), f"{kind}, {limit} {amount}: {said}, and then: {again}"
        assert recorded.isdisjoint(calls), f"{kind}, {limit} {amount}: {said}"
        return said


@pytest.fixture
def limited(tmp_path, comes_true):
    return Limited(tmp_path, comes_true)


def cases(count, amounts, *, unrecorded=True):
    """Yield kinds of executors in turn, each with whether the run is recorded, and an amount."""
    for round_ in range(count):
        recorded = not unrecorded or round_ // len(KINDS) % 2 == 0
        yield round_, KINDS[round_ % len(KINDS)], recorded, random.Random(round_).choice(amounts)


@pytest.mark.parametrize(
    ("limit", "amounts"),
    [
        ("files", [0, 1, 2, 3, 5, 8, 12, 20, 40]),
        ("threads", [0, 1, 2, 3, 4, 6]),
        # Where there is just too little for a new thread to begin, `Thread.start` of CPython waits for it for ever.
        ("memory", [10, 48, 60, 120, 300, 600]),
    ],
)
def test_what_a_program_may_have_little_of_is_said_or_is_enough(limit, amounts, limited, rounds, tmp_path):
    """Open files, threads, memory: the run ends with right results or an error, and can be gone on with."""
    failed = 0
    options = {"hunger": 20} if limit == "memory" else None
    for round_, kind, recorded, amount in cases(rounds(len(KINDS)), amounts):
        journal = str(tmp_path / f"{round_}.db") if recorded else "-"
        failed += limited.run_and_go_on(kind, journal, limit, amount, options).startswith("failed ")
    assert failed  # or the limit was none


@root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="takes away from root what exempts it from this limit")
def test_few_processes_and_threads_of_a_user_are_said_or_are_enough(limited, rounds, tmp_path):
    """As many as a container or a shared machine allows."""
    may = "--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search"
    before = ["setpriv", "--reuid=54321", "--clear-groups", *may]
    if subprocess.run([*before, sys.executable, "-c", ""], capture_output=True).returncode:
        pytest.skip("may not become another user here")
    failed = 0
    for round_, kind, recorded, amount in cases(rounds(len(KINDS)), [1, 2, 3, 5, 9, 20]):
        folder = tmp_path / f"of another user {round_}"
        folder.mkdir()
        os.chown(folder, 54321, 54321)
        journal = str(folder / "runs.db") if recorded else "-"
        failed += limited.run_and_go_on(kind, journal, "processes", amount, before=before).startswith("failed ")
    assert failed


def test_a_journal_that_finds_no_room_fails_the_run_plainly_and_has_what_it_had(limited, rounds, tmp_path):
    """At any size of its files, on every kind of executor."""
    for round_, kind, _, amount in cases(
        rounds(len(KINDS)), [0, 20_000, 60_000, 210_000, 400_000, 700_000], unrecorded=False
    ):
        journal = str(tmp_path / f"{round_}.db")
        said = limited.run_and_go_on(kind, journal, "size", amount, {"size": 8000})
        assert said.startswith("failed JournalError") or (
            kind in ("worker processes", "a pipeline")
            and said.startswith("failed WorkersUnavailableError")
            and amount < 200_000
        ), f"{kind}, {amount}: {said}"


@root
def test_a_disk_that_fills_while_a_run_goes_on_fails_it_plainly_and_has_what_it_had(limited, rounds, tmp_path):
    """A real one, of any small size, which gets larger for the run to go on."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(*options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", disk]
        return subprocess.run(command, capture_output=True).returncode == 0

    for _, kind, _, size in cases(rounds(len(KINDS)), ["8k", "64k", "200k", "600k"], unrecorded=False):
        if not mount(f"size={size}", "mode=700"):
            pytest.skip("may not mount a small disk here")
        journal = str(disk / "runs.db")
        try:
            said, _ = limited.run(kind, journal, options={"size": 8000})
            assert said.startswith("failed JournalError"), f"{kind}, {size}: {said}"
            assert mount("remount", "size=64m")
            recorded = set()
            if os.path.exists(journal) and os.path.getsize(journal) and execute(journal, "SELECT * FROM sqlite_master"):
                with Journal(journal) as opened:
                    recorded = recorded_calls(opened)
            again, calls = limited.run(kind, journal, options={"size": 8000})
            assert again.startswith("completed "), f"{kind}, {size}: {said}, and then: {again}"
            assert recorded.isdisjoint(calls), f"{kind}, {size}"
            assert execute(journal, "PRAGMA integrity_check") == [("ok",)]
        finally:
            subprocess.run(["umount", "-l", disk], check=True)
