"""Arguments, results and exceptions on their way to worker processes and back."""

import os
from functools import partial

import pytest

import errands
from errands import called, same, throw
from procession import RemoteError, TransferError, task
from procession._remote.wire import serialize
from procession.journal import Journal
from programs import program


def test_exceptions_arrive_as_themselves(processes):
    """With the traceback from the worker as a note, whatever their constructors take."""
    process = processes(on_error="return")
    process.add_task(throw, KeyError("no"))
    process.add_task(errands.raise_new, errands.TwoArguments, 404, "gone")
    process.add_task(errands.raise_new, errands.Reworded, "such thing")
    process.add_task(errands.raise_new, errands.WithLock, "locked")
    process.add_task(throw, ExceptionGroup("both", [ValueError(1), OSError(2, "no")]))
    key, two, reworded, locked, group = process.execute()
    assert repr(key) == "KeyError('no')"
    assert "errands.py" in key.__notes__[0] and key.__notes__[0].rstrip().endswith("KeyError: 'no'")
    assert "_remote" not in key.__notes__[0]
    assert (type(two), str(two), two.code, two.reason) == (errands.TwoArguments, "404: gone", 404, "gone")
    assert (type(reworded), str(reworded)) == (errands.Reworded, "there is no such thing")
    assert (type(locked), str(locked), locked.code) == (errands.WithLock, "locked", 7)
    assert repr(group.exceptions) == "(ValueError(1), FileNotFoundError(2, 'no'))"


def test_an_exception_that_can_not_travel_arrives_readable(processes):
    """Its type and message are told, and its traceback is the note."""
    process = processes()
    process.add_task(errands.throw_untransportable)
    with pytest.raises(RemoteError, match="Untransportable: not in a box") as caught:
        process.execute()
    assert "in throw_untransportable" in caught.value.__notes__[0]


def test_exceptions_keep_their_type_whatever_they_carry(processes):
    """For `except`, `except*` and `retry_on` go by it: what is in the way is stood for, and what is built in is kept."""
    process = processes(on_error="return")
    process.add_task(errands.raise_new, errands.Refused, errands.Request("u"))
    process.add_task(errands.raise_new, ValueError, "cannot use", errands.Request("u"))
    process.add_task(errands.raise_new, errands.ApiError, "u", 503)
    process.add_task(errands.raise_new, errands.NotThere, "/x")
    process.add_task(errands.raise_new, errands.Checked, code=4)
    process.add_task(errands.raise_new, errands.Refused, {"a set", "of words", "in any", "order"})
    process.add_task(partial(errands.raise_new, ImportError, "no module", name="them", path="/them"))
    refused, value, api, not_there, checked, words, imported = process.execute()
    assert (type(refused), refused.args[0].url) == (errands.Refused, "u")
    assert (type(value), value.args[0], value.args[1].url) == (ValueError, "cannot use", "u")
    assert (type(api), api.errno, str(api), api.url) == (errands.ApiError, 503, "[Errno 503] bad answer from u", "u")
    assert (type(not_there), not_there.filename) == (errands.NotThere, "/x")
    assert (type(checked), str(checked)) == (errands.Checked, "code 4")
    assert (type(words), len(words.args[0])) == (errands.Refused, 4)
    assert (type(imported), imported.name, imported.path) == (ImportError, "them", "/them")


def test_a_part_of_an_exception_that_can_not_travel_is_stood_for(processes):
    """The message reads as it did, and the type counts for retries."""
    process = processes(on_error="return")
    process.add_task(task(retries=1, retry_on=ValueError)(errands.throw_with_lock))
    (error,) = process.execute()
    assert type(error) is ValueError
    assert str(error).startswith("('cannot use', <unlocked _thread.lock object at 0x")
    assert process.last_run.outcomes[0].attempts == 2


def test_the_exceptions_of_a_group_arrive_as_themselves(processes):
    """At any depth, so that `except*` finds them."""
    process = processes()
    process.add_task(errands.throw_group)
    with pytest.raises(ExceptionGroup) as caught:
        process.execute()
    reworded, deeper = caught.value.exceptions
    assert (type(reworded), str(reworded)) == (errands.Reworded, "there is no such thing")
    assert (type(deeper.exceptions[0]), deeper.exceptions[0].filename) == (errands.NotThere, "/x")


def test_a_result_that_can_not_be_read_back_fails_its_task(processes):
    """And no other one."""
    process = processes(on_error="return")
    process.add_task(errands.make, errands.Unreadable)
    process.add_task(same, 1)
    error, one = process.execute()
    assert one == 1
    assert isinstance(error, TransferError)
    assert "not be unpickled again: OSError: this cannot be read" in str(error)


def test_an_argument_that_can_not_be_read_in_the_worker_fails_its_task(processes):
    """The others that travelled with it run."""
    process = processes(on_error="return")
    for number in range(20):
        process.add_task(same, number if number != 10 else errands.Unreadable())
    results = process.execute()
    error = results.pop(10)
    assert isinstance(error, TransferError)
    assert "not be unpickled in the worker: OSError: this cannot be read" in str(error)
    assert results == [number for number in range(20) if number != 10]


def test_without_cloudpickle_a_lambda_is_told_what_to_install(processes, monkeypatch):
    """The extra is named; everything else works."""
    monkeypatch.setattr(serialize, "by_value", lambda: None)
    process = processes(on_error="return")
    process.add_task(lambda: 1)
    process.add_task(same, 1)
    error, one = process.execute()
    assert one == 1
    assert "the callable, an object of type function, cannot be pickled" in str(error)
    assert 'pip install "procession[processes]"' in str(error)


def test_large_arguments_and_results_travel(processes):
    """More than any pipe holds, in both directions at once."""
    process = processes()
    for _ in range(4):
        process.add_task(same, b"x" * 3_000_000)
    assert [len(value) for value in process.execute()] == [3_000_000] * 4


def test_a_value_that_is_recorded_is_pickled_once_where_it_was_made(processes, tmp_path):
    """The journal keeps the very bytes that the worker process has made, for tasks and elements alike."""
    process = processes()
    process.add_task(errands.Witness, str(tmp_path))
    process.map(errands.Witness, [str(tmp_path)] * 2)
    with Journal(":memory:") as journal:
        process.execute(run_id="once", journal=journal)
        assert called(tmp_path, f"pickled in {os.getpid()}") == 0
        assert sum(called(tmp_path, name.name.removeprefix("calls")) for name in tmp_path.iterdir()) == 3
        (one, two) = process.execute(run_id="once", journal=journal)
    assert {type(value) for value in (one, *two)} == {errands.Witness}


def test_what_workers_have_recorded_of_the_main_module_can_be_read_elsewhere(tmp_path):
    """In worker processes that module has another name, which no other process knows."""
    text = """
    import sys
    from procession import Process
    from procession.journal import Journal

    class Pair:
        def __init__(self, number):
            self.number = number

    if __name__ == "__main__":
        sys.modules.pop("__mp_main__", None)
        process = Process("program", "parallel", 2, executor=sys.argv[1] if sys.argv[1:] else "processes")
        process.map(Pair, [1, 2])
        with Journal("journal.db") as journal:
            (pairs,) = process.execute(run_id="read", journal=journal)
        print([pair.number for pair in pairs])
    """
    with program(tmp_path, text) as child:
        first = child.communicate(timeout=50)
    with program(tmp_path, text, "threads") as child:
        second = child.communicate(timeout=50)
    assert (first, second) == (("[1, 2]\n", ""), ("[1, 2]\n", ""))
