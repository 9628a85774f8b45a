"""On clusters the journal is out of reach: calls that tasks make are refused in a recorded run, and else just made."""

import pytest

from cluster_jobs import ask, chain, double, make_do
from clusters import dask_here
from procession import Process
from procession.journal import Journal

pytestmark = [
    pytest.mark.filterwarnings("default"),  # the cluster has warnings of its own
    pytest.mark.timeout(120),
]


@pytest.fixture(scope="module")
def dask():
    pytest.importorskip("distributed", reason='pip install "procession[dask]"')
    with dask_here(workers=1) as client:
        yield client


@pytest.fixture(params=["dask", "ray"])
def cluster(request):
    """What to give as `executor`."""
    return request.getfixturevalue(request.param)


def on(cluster, function, *, over=None):
    process = Process("elsewhere", "parallel", 2, executor=cluster)
    if over is None:
        process.add_task(function, 3)
    else:
        process.map(function, over)
    return process


def messages(error):
    """Return what was raised, by all elements of a map."""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else [error]
    return [str(one) for one in inner if type(one) is RuntimeError]


def test_without_a_journal_calls_are_just_made(cluster):
    """By tasks and elements."""
    assert on(cluster, chain).execute() == [[6, 6, 8]]
    assert on(cluster, chain, over=[1, 2]).execute() == [[[2, 2, 4], [4, 4, 6]]]


@pytest.mark.parametrize("over", [None, [3]], ids=["a task", "an element"])
@pytest.mark.parametrize("function", [chain, ask, make_do])
def test_in_a_recorded_run_calls_and_waits_are_refused_plainly(cluster, function, over, where):
    """The error names the process and the task, and says where such tasks run; nothing of the call is recorded."""
    process = on(cluster, function, over=over)
    with pytest.raises((RuntimeError, ExceptionGroup)) as caught:
        process.execute(run_id="a", journal=where)
    [said] = messages(caught.value)
    name = function.__name__ if over is None else f"map of {function.__name__}"
    assert said.startswith(f"process 'elsewhere', task 0 ({name}): a call cannot be recorded, nor can the task wait")
    assert 'Tasks that make recorded calls or wait run with executor="threads" or "processes"' in said
    with Journal(where) as journal:
        assert journal.calls("a", 0) == []
        assert journal.run("a").status == "failed"


def test_other_tasks_of_a_recorded_run_on_a_cluster_are_not_concerned(cluster, where):
    """And the task that was refused runs where it may, under the same run id."""
    process = on(cluster, double)
    process.add_task(chain, 5)
    with pytest.raises(RuntimeError, match="cannot be recorded"):
        process.execute(run_id="a", journal=where)
    here = Process("elsewhere", "parallel", 2)
    here.add_task(double, 3)
    here.add_task(chain, 5)
    assert here.execute(run_id="a", journal=where) == [6, [10, 10, 12]]
    with Journal(where) as journal:
        assert len(journal.calls("a", 1)) == 3
