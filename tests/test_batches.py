"""Calls that travel together: how many, in what time, and the file that says how far a worker has come."""

import os

from errands import same, throw
from marks import linux
from procession._remote.batch_size import BatchSize
from procession._remote.wire.batch import Batch, BatchOptions
from procession._remote.wire.crash_file import CrashFile
from procession._remote.worker.run_calls import run_batch


def test_a_batch_gives_back_what_it_has_no_time_for():
    """One call is always made; the others only as long as the budget lasts."""
    calls = [(index, -1, 1, None, same, (index,), {}) for index in range(5)]
    assert len(run_batch(Batch(calls, BatchOptions("process", "run", budget=0))).ended) == 1
    assert len(run_batch(Batch(calls, BatchOptions("process", "run", budget=60))).ended) == 5


def test_a_batch_that_stops_makes_no_call_after_one_that_failed():
    """What comes after it is given back."""
    calls = [(index, -1, 1, None, throw if index == 2 else same, (KeyError(),), {}) for index in range(5)]
    report = run_batch(Batch(calls, BatchOptions("process", "run", budget=60, stops=True)))
    assert [result.returned for result in report.ended] == [True, True, False]


def test_batches_grow_to_what_the_way_is_worth_and_shrink_towards_the_end():
    """From one call up to as many as travel well; long calls travel alone; nobody hoards the last ones."""
    batch_size = BatchSize()
    assert batch_size.size(100_000, 2) == 1
    sizes = []
    for _ in range(8):
        batch_size.learn(max(sizes, default=1), seconds=max(sizes, default=1) * 2e-6, way=5e-5, size=0)
        sizes.append(batch_size.size(100_000, 2))
    assert sizes == sorted(sizes)
    assert sizes[-1] == 2000
    assert batch_size.size(1000, 2) == 250
    assert batch_size.size(10, 2) == 5  # one for each, though more would be worth the way
    for _ in range(3):
        batch_size.learn(1, seconds=0.05, way=5e-5, size=0)
    assert batch_size.size(100_000, 2) == 1
    for _ in range(40):
        batch_size.learn(10, seconds=2e-5, way=5e-5, size=10 << 16)
        batch_size.size(100_000, 2)
    assert batch_size.size(100_000, 2) == 16  # a megabyte


@linux
def test_the_memory_of_a_worker_lies_in_no_folder(tmp_path, monkeypatch):
    """So nothing stays there when the program is killed, and none needs to have room."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "there is none"))
    ours = CrashFile.made()
    theirs = CrashFile(ours.path)
    ours.unlink()
    theirs.begin(1, 0)
    theirs.note(b"one")
    assert ours.read(1, 0) == [b"one"]
    theirs.close()
    ours.close()
    assert not os.path.exists(ours.path)


def test_of_a_chunk_that_was_recalled_no_other_call_begins(tmp_path):
    """The worker sees it after each call."""
    ours = CrashFile.made()
    theirs = CrashFile(ours.path)
    theirs.begin(2, 0)
    ours.recall(1)
    assert not theirs.is_recalled(2)
    ours.recall(2)
    assert theirs.is_recalled(2)
    assert ours.at == (2, 0)
    theirs.close()
    ours.close()


def test_the_trace_of_a_worker_counts_nothing_twice(tmp_path):
    """Only what was noted of this chunk, and of this part of its report, is read."""
    ours = CrashFile.made()
    theirs = CrashFile(ours.path)
    theirs.begin(1, 0)
    assert theirs.note(b"one")
    assert theirs.note(b"")
    assert ours.read(1, 0) == [b"one", b""]
    assert ours.read(1, 1) == ours.read(2, 0) == []
    assert not theirs.note(bytes(1 << 17))
    theirs.begin(1, 1)
    assert ours.read(1, 1) == []
    theirs.close()
    ours.close()
