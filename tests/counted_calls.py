"""Functions that note each call, and fail while told to, and a process of ten of them."""

from pathlib import Path

import pytest

from procession import Process

STRATEGIES = ["sequential", "parallel", "hybrid"]
CALLS: list[object] = []
BROKEN: set[object] = set()


@pytest.fixture(autouse=True)
def _nothing_called():
    CALLS.clear()
    BROKEN.clear()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.db"


def work(number):
    """Note the call, and fail while told to."""
    CALLS.append(number)
    if number in BROKEN:
        raise ValueError(f"{number} is broken")
    return number * 10


def plus(*numbers):
    CALLS.append(("plus", numbers))
    return sum(numbers)


def same(value):
    return value


def calls():
    made, CALLS[:] = sorted(CALLS, key=repr), []
    return made


def ten(strategy="sequential", workers=4, **options):
    process = Process("ten", strategy, workers, **options)
    for number in range(10):
        process.add_task(work, number)
    return process


HOLD: list[object] = []


def _open_files():
    folder = Path("/proc/self/fd")
    return len(list(folder.iterdir())) if folder.exists() else 0
