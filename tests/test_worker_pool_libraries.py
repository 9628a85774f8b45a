"""How many threads the libraries of a worker may start."""

import os

import pytest

import pool_jobs
from errands import same
from pool_fixtures import workers
from procession import Process, WorkerProcesses
from procession._model.where import usable_cores
from programs import program

__all__ = ["workers"]

NAMES = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"]


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def seen(executor, max_workers=2, strategy="parallel"):
    """Return how the variables are set in a worker."""
    process = Process("seen", strategy, max_workers, executor=executor)
    process.map(pool_jobs.variable, NAMES)
    return process.execute()[0]


def test_each_worker_has_its_share_of_the_cores(workers):
    """At least one; all of them where tasks run one after another; and nothing changes here."""
    cores = usable_cores()
    assert seen("processes", cores) == ["1"] * 4
    assert seen("processes", 10 * cores) == ["1"] * 4
    assert seen("processes", cores, "sequential") == [str(cores)] * 4
    assert seen(workers(1)) == [str(cores)] * 4
    assert [os.environ.get(name) for name in NAMES] == [None] * 4


def test_what_the_user_has_set_stays(workers, monkeypatch):
    """One library's variable holds for that library, the general one for all."""
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    assert seen("processes") == ["1", "1", "7", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert seen("processes") == ["5", None, "7", None]


def test_a_number_that_is_passed_holds_in_any_case(workers, monkeypatch):
    """It was said for this very executor."""
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert seen(workers(2, threads_each=3)) == ["3"] * 4


def test_the_variables_are_there_before_a_worker_imports_anything(tmp_path):
    """Libraries read them as they are loaded."""
    child = program(
        tmp_path,
        """
        import os
        found = os.environ.get("OPENBLAS_NUM_THREADS")
        from procession import Process, WorkerProcesses

        def first():
            return found

        if __name__ == "__main__":
            with WorkerProcesses(1, threads_each=3) as workers:
                print(found, workers.submit(first).result())
        """,
    )
    out, err = child.communicate(timeout=60)
    assert (out, err) == ("None 3\n", "")


def test_a_worker_has_its_name(workers):
    """The one that the outcome says."""
    executor = workers(1)
    process = Process("named", executor=executor)
    process.add_task(same, 1)
    process.execute()
    assert process.last_run.outcomes[0].worker.startswith("WorkerProcesses-1 (")


def test_a_share_of_nothing_is_refused():
    """As early as possible."""
    with pytest.raises(ValueError, match=r"threads_each=...\) takes a number of at least 1"):
        WorkerProcesses(1, threads_each=0)
