"""What tests of the journal share: a plan, its records, interpreters beside this one, and time that has passed."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from textwrap import dedent

import psycopg
import pytest

from procession._model.record import WHOLE, Record
from procession._plan.fingerprint import fingerprint_of
from procession.journal import lease

posix = pytest.mark.skipif(os.name != "posix", reason="file modes and signals are POSIX's")
root = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="needs to be root to act as another user")

SIX = fingerprint_of("six", [(len, ("a",), {})] * 6)

PRELUDE = """
import os, signal, sys, threading, time
from procession import JournalError, Progress, RunInUseError
from procession._model.progress import Snapshot
from procession._model.record import WHOLE, Record
from procession._plan.fingerprint import fingerprint_of
from procession.journal import Journal
where, words = sys.argv[1], sys.argv[2:]
SIX = fingerprint_of("six", [(len, ("a",), {})] * 6)

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def done(recorder, task, value, element=WHOLE):
    data = recorder.encode(value)
    return Record(task, element, "completed", "builtins:len", b"", data, None, 1, 1e9, 0.5, "worker")
"""


class Child:
    """An interpreter that runs a script, read line by line, and is killed if it hangs."""

    def __init__(self, script, *arguments, **options):
        command = [sys.executable, "-c", PRELUDE + dedent(script), *map(str, arguments)]
        self.popen = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
        children.append(self)
        self._watchdog = threading.Timer(50, self.popen.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def line(self):
        return self.popen.stdout.readline().strip()

    def end(self):
        """Let it go on if it waits for a line, and return the rest of what it says."""
        out, err = self.popen.communicate("\n")
        self._watchdog.cancel()
        assert self.popen.returncode == 0, err
        return out.split("\n")[:-1]

    def kill(self):
        self._watchdog.cancel()
        self.popen.kill()
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            stream.close()
        self.popen.wait()


children = []


def done(recorder, task, value, element=WHOLE):
    return Record(task, element, "completed", "builtins:len", b"", recorder.encode(value), None, 1, 1e9, 0.5, "worker")


def failed(task, text="ValueError: no", element=WHOLE):
    return Record(task, element, "failed", "builtins:len", b"", None, text, 3, 1e9, 0.5, "worker")


def values(recorder):
    return {task: recorded.value for task, recorded in recorder.recorded.items()}


def execute(where, sql, *parameters):
    """Do something to the database from outside."""
    if "://" in where:
        with psycopg.connect(where) as connection:
            cursor = connection.execute(sql.replace("?", "%s"), parameters)
            return cursor.fetchall() if cursor.description else None
    connection = sqlite3.connect(where)
    try:
        with connection:
            return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


HOLD = """
journal = Journal(where)
recorder = journal.begin("run", SIX)
recorder.commit([done(recorder, 0, "kept")])
say(os.getpid())
sys.stdin.readline()
recorder.close("completed")
journal.close()
"""


def expire(where, seconds=31.0, host="elsewhere"):
    """Let so much time pass for all leases, whose holders are processes of this host or, unless told so, of another."""
    for (holder,) in execute(where, "SELECT DISTINCT holder FROM procession_runs WHERE holder IS NOT NULL"):
        moved = replace(lease.Holder.read(holder), host=host).text
        execute(where, "UPDATE procession_runs SET holder = ? WHERE holder = ?", moved, holder)
    execute(where, "UPDATE procession_runs SET held_until = held_until - ?", seconds)


def wait_for(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


class Keyed:
    """A codec that reads nothing that was written with another key."""

    name = "keyed"

    def __init__(self, key):
        self.key = key

    def encode(self, value):
        return f"{self.key} {json.dumps(value)}".encode()

    def decode(self, data):
        key, _, value = data.decode().partition(" ")
        if key != self.key:
            raise ValueError("another key")
        return json.loads(value)
