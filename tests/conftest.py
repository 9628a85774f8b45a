"""What several test files need."""

import gc
import signal
import sys
import threading
import time
from contextlib import suppress
from functools import partial

import psutil
import pytest
from hypothesis import settings

from clusters import ray_here
from postgres import Server, Unavailable
from procession import Process


def pytest_addoption(parser):
    parser.addoption("--rounds", type=int, help="how many rounds each stress test goes, in place of a few")


def pytest_configure(config):
    """Have Ctrl-C do what it does in a terminal, where a shell has what it runs in the background ignore it.

    And have the same examples generated each time, but for who asks for more rounds.
    """
    settings.register_profile("suite", derandomize=not config.getoption("--rounds"), deadline=None)
    settings.load_profile("suite")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """Let stress tests take the time that they need, where they are told how long to go on."""
    if config.getoption("--rounds"):
        for item in items:
            if "rounds" in item.fixturenames:
                item.add_marker(pytest.mark.timeout(0), append=False)


@pytest.fixture
def rounds(request):
    """Return how many rounds a stress test goes: as many as it is called with, or as `--rounds` says."""
    return lambda few: request.config.getoption("--rounds") or few


@pytest.fixture
def restless():
    """Have threads interrupt each other all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def pytest_collection_finish():
    """Have what all the tests have imported looked through once, and not by each `gc.collect()` of a test."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish():
    """Have all of it found again by what others look for at the end."""
    gc.unfreeze()


END = pytest.StashKey[threading.Timer]()


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item, settings):
    """Have the processes that a test has started end with its time.

    They hold the pipe at whose end it is seen that a worker of xdist is gone, and the whole run would wait for them.
    """
    end = item.stash[END] = threading.Timer(settings.timeout - 2, kill_children)
    end.daemon = True
    end.start()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_cancel_timer(item):
    """A test has ended in its time, or a file could not even be collected, for which there was no timer."""
    end = item.stash.get(END, None)
    if end is not None:
        end.cancel()
        end.join()
    return (yield)


def kill_children():
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if "resource_tracker" not in str(process.cmdline()):  # which the tests after this one need
                process.kill()


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory):
    """Have what is kept for the user lie in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _patient_runs():
    """Have runs wait for observers, and for workers that were told to stop, though the machine holds them up.

    Tests of what a run does about those who are late say themselves when that is.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("procession.observe.feed.PATIENCE_S", 20.0)
        patch.setattr("procession._remote.coordinator._GRACE_S", 4.0)
        patch.setattr("procession._remote.submissions._GRACE_S", 4.0)
        yield


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server of the tests' own."""
    try:
        server = Server().__enter__()
    except Unavailable as error:
        pytest.skip(str(error))
    yield server
    server.__exit__()


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request, tmp_path):
    """An empty place for a journal, of each kind that lasts."""
    if request.param == "sqlite":
        return str(tmp_path / "runs.db")
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture(scope="module")
def ray():
    """What to give as `executor`, while Ray runs, if it is installed."""
    pytest.importorskip("ray", reason='Ray is not here: pip install "procession[ray]"')
    with ray_here() as executor:
        yield executor


@pytest.fixture
def comes_true():
    """Return whether something is so, now or soon: what earlier tests have left may still be on its way out."""

    def comes_true(condition):
        until = time.monotonic() + 30
        while not condition():
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True

    return comes_true


@pytest.fixture
def nothing_is_left():
    """No thread stays behind."""
    before = set(threading.enumerate())
    yield
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(20)  # the one that drives a run which was started may just be leaving
    assert not any(thread.is_alive() for thread in left)


@pytest.fixture
def processes():
    """Makes a process on worker processes; afterwards nothing of it is left."""
    here = psutil.Process()
    before = {child.pid for child in here.children(recursive=True)}
    threads = set(threading.enumerate())
    yield partial(Process, "workers", "parallel", 2, executor="processes")
    # What was there before, as a database server of other tests, may have more children by now.
    left = [child for child in here.children(recursive=True) if not before & {child.pid, child.ppid()}]
    # The standard library keeps one helper for all that was ever spawned, for as long as the interpreter lives.
    assert [child.cmdline() for child in left if "resource_tracker" not in " ".join(child.cmdline())] == []
    assert set(threading.enumerate()) <= threads


@pytest.fixture
def no_children():
    """Leave no child behind, not even by a test that failed."""
    from journals import children

    yield
    while children:
        children.pop().kill()
