"""Objects that recorded runs leave out of what they compare."""

import gc
import threading
from functools import partial

import pytest

from procession import DigestError, Process, unrecorded
from procession._model.unrecorded import _MARKED


class Client:
    def __init__(self):
        self.lock = threading.Lock()
        self.calls = []

    def get(self, path):
        self.calls.append(path)
        return path


def get(client, path):
    return client.get(path)


def executed(client, where, *paths, run_id="a", wrap=lambda client: client):
    process = Process("pages", "parallel", 2)
    for path in paths:
        process.add_task(get, wrap(client), path)
    results = process.execute(run_id=run_id, journal=where)
    return results, sorted(client.calls)


@pytest.fixture
def where(tmp_path):
    return tmp_path / "runs.db"


def test_an_object_that_cannot_be_compared_names_the_way_out(where):
    """In the error that refuses it."""
    with pytest.raises(DigestError, match=r"argument 1 .*pass a client, connection or lock .* as unrecorded\(\.\.\.\)"):
        executed(Client(), where, "x")


def test_a_run_goes_on_with_another_object(where):
    """Nothing is called twice, and tasks get the object itself, which they may change."""
    assert executed(unrecorded(Client()), where, "x", "y") == (["x", "y"], ["x", "y"])
    assert executed(unrecorded(Client()), where, "x", "y") == (["x", "y"], [])


def test_it_may_lie_within_other_arguments(tmp_path):
    """And in what a function closes over."""
    client = unrecorded(Client())
    for number in range(2):
        process = Process("within")
        process.add_task(partial(get, client), "x")
        process.add_task(lambda clients, path: clients["a"].get(path), {"a": client}, "y")
        process.add_task(lambda path: client.get(path), "z")
        assert process.execute(run_id="a", journal=tmp_path / "runs.db") == ["x", "y", "z"], number
    assert client.calls == ["x", "y", "z"]


def test_the_other_arguments_count_as_ever(where):
    """A changed one is refused."""
    executed(unrecorded(Client()), where, "x")
    with pytest.raises(ValueError, match="argument 2"):
        executed(unrecorded(Client()), where, "y")


def test_a_mark_goes_with_its_object():
    """So that no other object that has its place in memory later is taken for it."""
    gc.collect()
    before = len(_MARKED)
    client = unrecorded(Client())
    assert unrecorded(client) is client
    assert len(_MARKED) == before + 1
    del client
    gc.collect()
    assert len(_MARKED) == before


@pytest.mark.parametrize("value", ["text", 7, None, [1], {"a": 1}, {1}, (1,)])
def test_data_is_refused(value):
    """By it a task is known."""
    with pytest.raises(TypeError, match=r"unrecorded\(\.\.\.\) takes an object such as a client"):
        unrecorded(value)
