"""No worker is idle beside a call that is ready, on worker processes and on executors of others; no clock is read.

Each test ends only if as many calls as can be are in flight together: see `barriers`.
"""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context

import pytest

from barriers import SCENARIOS, SHAPES, Shut, add_shape, attend, comes_to, depths, hall, left_by_failures
from clusters import dask_here, ray_here
from procession import Process

BUNDLED = {"after_quick_ones", "among_quick_ones", "mapped_after_quick_ones"}
"""Where calls that wait for each other come after many that take no time."""

GIVEN = {
    "threads of others": lambda: ThreadPoolExecutor(8),
    "processes of others": lambda: ProcessPoolExecutor(8, mp_context=get_context("spawn")),
}


CLUSTERS = {"dask": lambda: dask_here(1, threads=8), "ray": lambda: ray_here(8)}
"""Ray has a worker process for each call in flight, so it takes the smaller part of the tests."""


@pytest.fixture(scope="module", params=["processes", *GIVEN, *CLUSTERS])
def process_of(request):
    """Make a process for so many workers, on each executor."""
    if request.param == "processes":
        yield partial(Process, "met", "parallel", executor="processes")
        return
    if request.param in CLUSTERS:
        pytest.importorskip({"dask": "distributed", "ray": "ray"}[request.param])
    with (GIVEN | CLUSTERS)[request.param]() as executor:
        yield partial(Process, "met", "parallel", executor=executor)


@pytest.fixture(autouse=True)
def _told_apart(request):
    scenario = request.node.callspec.params.get("scenario")
    if request.node.callspec.params["process_of"] in CLUSTERS and scenario in BUNDLED:
        pytest.skip("quick calls travel together to a cluster, and with a slow one among them until that has ended")


@pytest.mark.parametrize(
    ("shape", "seed"),
    [
        ("fan-in", None),
        ("fan-out", None),
        ("diamonds", None),
        ("plain tasks beside a chain", None),
        ("chains", 1),
        ("layers", 1),
        ("generated 0", 1),
    ],
)
def test_what_can_be_in_flight_together_is(process_of, shape, seed):
    """As many as the graph allows at each moment, also while others go on."""
    with hall() as at:
        assert add_shape(process_of, SHAPES[shape], at, attend, seed=seed).execute() == depths(SHAPES[shape])


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_whatever_is_ready_is_called(process_of, scenario):
    """Tasks, elements of maps, retries, what runs in processes inside, beside each other and after many quick ones."""
    with hall() as at:
        process, results = SCENARIOS[scenario](at, attend, process_of)
        assert comes_to(process.execute()) == results


def test_what_is_left_of_a_run_is_called_at_once(process_of, tmp_path):
    """When it goes on, beside what is recorded."""
    with hall() as at:
        process, results = left_by_failures(at, attend, partial(process_of, journal=tmp_path / "runs.db"))
        with pytest.raises(ExceptionGroup) as failed:
            process.execute(run_id="run")
        assert failed.value.subgroup(Shut)
        at.shut.clear()
        assert process.execute(run_id="run") == results
