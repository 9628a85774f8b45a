"""Large arguments and results on worker processes, for `executors.py`: an array that all calls take, results, frames.

NumPy is imported where it is used: other works are measured without it.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from tempfile import TemporaryDirectory
from typing import Any

from measuring import Work, at_most, most_bytes, not_behind, ratio_at_most
from pools import WORKERS, Job, Ran, meet, with_loky, with_mpire, with_procession, with_standard

_CALLS, _SHARED_MB, _RESULT_MB, _ROWS, _GROUPS = 40, 100, 10, 1_000_000, 8


def ready(folder: str) -> None:
    """Return when all workers are there and have imported what they need."""
    import pandas as pd  # type: ignore[import-untyped]  # noqa: F401

    meet(folder)


def read(array: Any) -> float:
    """Return the last number of an array: the call itself takes no time."""
    return float(array[-1])


def make(number: int) -> Any:
    """Return a large array."""
    import numpy as np

    return np.full(_RESULT_MB * 125_000, float(number))


def mean(frame: Any) -> float:
    """Return the mean of a column."""
    return float(frame["value"].mean())


@cache
def shared() -> Job:
    """Return calls that all take the same array."""
    import numpy as np

    return read, [np.random.default_rng(0).random(_SHARED_MB * 125_000)] * _CALLS


@cache
def groups() -> Job:
    """Return calls that take one group of a frame each."""
    import numpy as np
    import pandas as pd

    number = np.arange(_ROWS)
    frame = pd.DataFrame({"group": number % _GROUPS, "value": number * 0.5, "other": number * 2.0})
    return mean, [group for _, group in frame.groupby("group")]


def with_joblib(job: Job) -> Ran:
    """Call all in joblib's processes, from when they are there to when they have been ended."""
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    with TemporaryDirectory() as folder, Parallel(n_jobs=WORKERS) as parallel:
        Parallel(n_jobs=WORKERS, batch_size=1)(delayed(ready)(folder) for _ in range(WORKERS))
        start = time.perf_counter()
        results: list[Any] = parallel(delayed(job[0])(argument) for argument in job[1])
        get_reusable_executor().shutdown(wait=True)
    return results, time.perf_counter() - start


def timed(run: Callable[[Job], Ran], job: Job) -> float:
    """Return how long a contestant took, in seconds; its results must be those of a loop."""
    results, took = run(job)
    if len(results) != len(job[1]) or (job[0] is not make and list(results) != [job[0](one) for one in job[1]]):
        raise AssertionError("wrong results")
    return took


def peak(name: str) -> float:
    """Return by how much a program's memory grows at most, in sizes of the array that its calls share."""
    done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
    return float(done.stdout)


def works() -> list[Work]:
    """Return everything that is measured."""

    def each(job: Callable[[], Job], contestants: Sequence[str]) -> dict[str, Callable[[], float]]:
        def measured(run: Callable[[Job], Ran]) -> Callable[[], float]:
            return lambda: timed(run, job())

        return {name: measured(_CONTESTANTS[name]) for name in contestants}

    return [
        Work(
            f"{_CALLS} calls with the same array of {_SHARED_MB} MB",
            1,
            "ms",
            each(shared, list(_CONTESTANTS)),
            {"at most 1.2 times joblib": ratio_at_most(1.2, "joblib")},
            frozenset({"ProcessPoolExecutor", "loky", "mpire"}),
        ),
        Work(
            f"{_CALLS} results of {_RESULT_MB} MB",
            1,
            "ms",
            each(lambda: (make, range(_CALLS)), list(_CONTESTANTS)),
            {f"not behind {name}": not_behind(name) for name in list(_CONTESTANTS)[1:]},
        ),
        Work(
            f"a frame of {_ROWS:,} rows in {_GROUPS} groups, each to a call",
            1,
            "ms",
            each(groups, list(_CONTESTANTS)),
            {"not behind joblib": not_behind("joblib")},
        ),
        Work(
            f"most memory that {_CALLS} calls with the same array take in the program itself, above the array",
            1,
            "arrays",
            {name: partial(peak, name) for name in ("procession", "joblib")},
            {"at most 0.2 arrays": at_most(0.2)},
        ),
    ]


_CONTESTANTS: dict[str, Callable[[Job], Ran]] = {
    "procession": partial(with_procession, meet=ready),
    "joblib": with_joblib,
    "ProcessPoolExecutor": partial(with_standard, meet=ready),
    "loky": partial(with_loky, meet=ready),
    "mpire": partial(with_mpire, meet=ready),
}


if __name__ == "__main__":
    run = _CONTESTANTS[sys.argv[1]]
    run((read, [[0.0]]))
    job = shared()
    before = most_bytes()
    run(job)
    print((most_bytes() - before) / job[1][0].nbytes)  # type: ignore[attr-defined]
