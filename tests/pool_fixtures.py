"""Executors for tests, of which nothing is left afterwards, and what could be: processes, open files, memory."""

import os
import threading
from multiprocessing import resource_tracker
from pathlib import Path

import psutil
import pytest

from procession import WorkerProcesses


def children():
    """Return the worker processes there are; one that has ended does not count."""
    found = []
    for child in psutil.Process().children():
        try:
            if child.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in " ".join(child.cmdline()):
                found.append(child.pid)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            pass
    return set(found)


def open_files():
    resource_tracker.ensure_running()  # which the standard library keeps
    return sorted(os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())


def named_memory():
    return [name for name in os.listdir("/dev/shm") if "procession" in name]


def mappings():
    with open("/proc/self/maps") as maps:
        return sum("memfd:procession" in line for line in maps)


def large_memory():
    """Return the sizes of what this process has mapped, or has open, of large values."""
    mapped = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "memfd:procession" in line:
            start, end = (int(address, 16) for address in line.split()[0].split("-"))
            mapped.append(end - start)
    opened = [entry.stat().st_size for entry in os.scandir("/proc/self/fd") if "memfd:procession" in os.readlink(entry)]
    return [size for size in mapped + opened if size > 1_000_000]


@pytest.fixture
def workers():
    """Makes executors that are shut down in the end; then no process and no thread of them is left."""
    made, before, threads = [], children(), set(threading.enumerate())

    def make(*args, **kwargs):
        made.append(WorkerProcesses(*args, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.shutdown()
    assert children() <= before
    assert set(threading.enumerate()) <= threads
