"""Workers as they start: how signals are kept from them, and that it is said plainly when they cannot."""

import multiprocessing
import os
import subprocess
import sys

import pytest

import errands
from errands import called, same
from marks import linux, posix
from procession import Process, WorkersUnavailableError
from procession._remote.worker.process_main import WorkerSetup, serve


def test_a_worker_that_can_not_start_is_told_plainly(processes, monkeypatch):
    """The system's reason is in the message."""
    from procession._remote.backends import worker_process as module

    def refuse(*_, **__):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(module._SPAWN, "Process", refuse)
    process = processes()
    process.add_task(same, 1)
    with pytest.raises(WorkersUnavailableError, match="no worker process could be started: BlockingIOError"):
        process.execute()
    monkeypatch.undo()
    assert process.execute() == [1]


def test_a_worker_imports_nothing_that_only_runs_need():
    """Its start is most of what a short run on workers takes, and most of that is imports."""
    needless = ("asyncio", "inspect", "logging", "traceback", "procession._engine.run_state", "procession._run")
    code = "import sys, procession._remote.worker.process_main; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert "procession._remote.worker.process_main" in modules.split()
    assert not set(needless) & set(modules.split())


@posix
def test_workers_that_are_killed_as_they_start_do_not_end_a_run_whose_others_work(tmp_path, monkeypatch):
    """Others start in their place, or those that are there do the work."""
    from procession._remote.backends import worker_process as module

    monkeypatch.setattr(module, "serve", errands.serve_after)
    monkeypatch.setenv("STARTS", str(tmp_path))
    monkeypatch.setenv("STILLBORN", "2")
    process = Process("decimated", "parallel", 2, executor="processes")
    process.map(same, range(10))
    assert process.execute() == [list(range(10))]


@posix
def test_workers_none_of_which_starts_are_told_plainly(tmp_path, monkeypatch):
    """After a few of them."""
    from procession._remote.backends import worker_process as module

    monkeypatch.setattr(module, "serve", errands.serve_after)
    monkeypatch.setenv("STARTS", str(tmp_path))
    monkeypatch.setenv("STILLBORN", "1000")
    process = Process("stillborn", "parallel", 2, executor="processes")
    process.map(same, range(10))
    with pytest.raises(
        WorkersUnavailableError, match="ended by SIGKILL before it could take a task; .*too little memory"
    ):
        process.execute()
    assert called(tmp_path) <= 5


@posix
def test_signals_are_kept_from_each_worker_until_it_handles_them(tmp_path, monkeypatch):
    """From the first one of an interpreter, too, with which a helper of the standard library starts."""
    from multiprocessing import resource_tracker

    from procession._remote.backends import worker_process as module

    monkeypatch.setattr(module, "serve", errands.serve_and_say)
    monkeypatch.setenv("STARTS", str(tmp_path))
    resource_tracker._resource_tracker._stop()
    process = Process("spared", "parallel", 1, executor="processes")
    process.add_task(same, 1)
    assert process.execute() == [1]
    assert (called(tmp_path, "kept"), called(tmp_path, "not kept")) == (1, 0)


@pytest.mark.parametrize("gone", [True, False])
def test_a_worker_whose_program_is_just_ending_ends_without_a_word(capfd, tmp_path, gone):
    """It finds its files closed, though the process that has started it is not gone yet. Else that is told."""
    spawn = multiprocessing.get_context("spawn")
    (ours, work), (others, word) = spawn.Pipe(), spawn.Pipe()
    worker = spawn.Process(target=serve, args=(work, word, str(tmp_path / "gone"), os.getpid(), WorkerSetup()))
    worker.start()
    for end in (work, word, *([ours, others] if gone else [])):
        end.close()
    worker.join(60)
    assert worker.exitcode == (0 if gone else 1)
    assert ("FileNotFoundError" in capfd.readouterr().err) is not gone
    for end in (ours, others):
        end.close()


@pytest.mark.parametrize("full", [False, True])
def test_a_folder_for_temporary_files_that_takes_none_is_named(processes, monkeypatch, tmp_path, full):
    """With what a worker needs there; and nothing of it is left."""

    def no_room(descriptor, *_, **__):
        os.close(descriptor)
        raise OSError(28, "No space left on device")

    folder = tmp_path if full else tmp_path / "gone"
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    monkeypatch.setattr(
        "procession._remote.wire.crash_file._memory", lambda: None
    )  # as where a file cannot be in memory only
    if full:
        monkeypatch.setattr("procession._remote.wire.crash_file.os.fdopen", no_room)
    process = processes()
    process.add_task(same, 1)
    with pytest.raises(WorkersUnavailableError, match="takes a temporary file of .*TMPDIR names") as caught:
        process.execute()
    assert str(folder) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@linux
def test_a_limit_on_the_size_of_files_that_leaves_a_worker_no_room_is_named():
    """With what it is that takes the room, as it is in no folder."""
    script = """
import resource
from procession import Process, WorkersUnavailableError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
process = Process("limited", "parallel", 2, executor="processes")
process.map(abs, [-1, -2])
try:
    process.execute()
except WorkersUnavailableError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    assert "File too large; a worker takes a file of" in done.stdout
    assert "in memory, to which limits of files apply (ulimit -f)" in done.stdout
