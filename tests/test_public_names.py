"""What a user can rely on by name: the public names, what they say of themselves, and the contract's signatures."""

import ast
import importlib.resources
import inspect
import os
import pickle
import pydoc
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from inspect import Parameter

import pytest

import procession
from procession import Process, journal, pictures

NAMES = [
    "Call",
    "CurrentTask",
    "DaskClient",
    "DigestError",
    "Elements",
    "Event",
    "EventName",
    "ExecutorBrokenError",
    "ExecutorLike",
    "Graph",
    "Handle",
    "HandleError",
    "Hybrid",
    "JournalError",
    "Limit",
    "NestingError",
    "NotKept",
    "Observer",
    "OnError",
    "Outcome",
    "Outcomes",
    "Parallel",
    "PlanChangedError",
    "Process",
    "ProcessRunningError",
    "ProcessStatus",
    "ProcessionError",
    "Progress",
    "RemoteError",
    "ResultError",
    "RetryAfter",
    "Run",
    "RunCancelledError",
    "RunInUseError",
    "RunStatus",
    "RunSuspendedError",
    "RunTimeoutError",
    "RunUnknownError",
    "Sequential",
    "Stacks",
    "Stage",
    "Strategy",
    "StrategyName",
    "TaskCancelled",
    "TaskLogHandler",
    "TaskSkippedError",
    "TaskStack",
    "TaskState",
    "TaskSuspended",
    "TaskTimeoutError",
    "Timeline",
    "TransferError",
    "ValueUnavailableError",
    "WorkerDiedError",
    "WorkerProcesses",
    "WorkersUnavailableError",
    "current_task",
    "stream",
    "task",
    "unrecorded",
]
DESCRIBED = [name for name in NAMES if inspect.isroutine(found := getattr(procession, name)) or inspect.isclass(found)]
CLASSES = [name for name in DESCRIBED if inspect.isclass(getattr(procession, name))]

MODEL = importlib.resources.files("procession") / "_model"


def imported_by(statement):
    """Return the modules that a statement loads in a fresh interpreter which is measured by nobody."""
    code = f"import sys; before = set(sys.modules); {statement}; print(*sorted(set(sys.modules) - before))"
    environ = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def kinds(function):
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


# Names


def test_the_public_names_are_these():
    """No public name comes or goes unnoticed."""
    offered = [name for name in dir(procession) if not name.startswith("_")]
    assert [name for name in offered if not inspect.ismodule(getattr(procession, name))] == sorted(NAMES)


def test_type_checkers_know_the_public_names():
    """What the source lists as public is what can be imported."""
    tree = ast.parse(inspect.getsource(procession))
    lists = [node.value for node in ast.walk(tree) if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"]
    assert [ast.literal_eval(one) for one in lists] == [sorted(NAMES)]


def help_on(thing):
    return pydoc.plain(pydoc.render_doc(thing)).splitlines()


def test_help_on_the_package_is_a_page():
    """It says what the package is and where to begin, and does not write out every class."""
    text = help_on(procession)
    assert len(text) < 70
    assert "help(procession.Process)" in "".join(text)


def test_help_on_a_handle_says_what_it_is():
    """It does not list the operators that a handle refuses, which are none that it has."""
    text = help_on(procession.Handle)
    assert len(text) < 50
    assert not {"__add__", "__bool__", "__iter__"} & set(dir(procession.Handle))


def test_help_on_a_process_speaks_of_names_that_a_user_can_import():
    """Its signatures name `Strategy` and `Observer`, and not the private modules that these are in."""
    text = help_on(procession.Process)
    assert not [line for line in text[2:] if "procession._" in line]


@pytest.mark.parametrize("name", DESCRIBED)
def test_help_says_something_of_every_public_name(name):
    """Each class and function has a docstring of its own that opens with one whole sentence."""
    sentence = inspect.cleandoc(getattr(procession, name).__doc__).split("\n\n")[0]
    assert sentence[0].isupper()
    assert sentence[-1] in ".:"


@pytest.mark.parametrize("name", CLASSES)
def test_help_says_something_of_every_public_method(name):
    """Each public method and property that a class brings has a docstring."""
    described = getattr(procession, name)
    silent = [
        attribute
        for attribute, value in vars(described).items()
        if not attribute.startswith("_")
        and (inspect.isroutine(value) or isinstance(value, property))
        and not inspect.getdoc(value)
    ]
    assert silent == []


def test_names_for_types_are_described_in_the_source():
    """A name for some words or types has no docstring that `help` shows; editors show the string below it."""
    described = set()
    for path in MODEL.iterdir():
        if path.name.endswith(".py"):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            nested = [statement.body for statement in body if isinstance(statement, ast.If)]
            for part in body, *nested:
                described |= {
                    named.targets[0].id
                    for named, text in zip(part, part[1:], strict=False)
                    if isinstance(named, ast.Assign)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                }
    assert set(NAMES) - set(DESCRIBED) <= described


def test_types_in_the_signatures_of_journals_and_timelines_can_be_imported():
    """They stand beside the classes that have them in their signatures."""
    assert {"Codec", "CodecName", "Durability", "Status"} <= set(journal.__all__)
    assert {"Busy", "Lane", "Span", "SpeedUp"} <= set(pictures.__all__)
    for module in journal, pictures:
        assert all(hasattr(module, name) for name in module.__all__)


# The package


def test_the_import_takes_in_the_standard_library_only():
    """`import procession` loads no third-party module, so that it is light and cannot break with one."""
    loaded = {name.partition(".")[0] for name in imported_by("import procession")}
    assert "procession" in loaded
    assert loaded - sys.stdlib_module_names - {"procession"} == set()


def test_the_import_leaves_to_the_first_run_what_only_runs_need():
    """A program that runs nothing does not wait for logging, pools or event loops; every name is there all the same."""
    loaded = imported_by(f"import procession; assert {set(NAMES)} <= set(dir(procession))")
    assert {"asyncio", "concurrent.futures", "datetime", "logging", "queue"}.isdisjoint(loaded)


def test_names_that_come_late_are_as_good_as_the_others():
    """The same object wherever it is asked for, found by pickle; a name that is none is an `AttributeError`."""
    late = procession.ExecutorBrokenError
    assert late is procession.errors.ExecutorBrokenError is pickle.loads(pickle.dumps(late))
    assert issubclass(late, procession.ProcessionError)
    assert issubclass(late, BrokenExecutor)
    assert set(procession.errors.__all__) <= set(dir(procession.errors))
    for module in procession, procession.errors:
        with pytest.raises(AttributeError, match=rf"{module.__name__}.*nothing"):
            _ = module.nothing


def test_type_checkers_are_told_that_the_package_is_typed():
    """`py.typed` lies in the package."""
    assert (importlib.resources.files("procession") / "py.typed").is_file()


# The contract's signatures


def test_a_process_takes_three_positions_and_any_option_by_keyword():
    """`Process(name, strategy="sequential", max_workers=None)`; further options are keyword-only and optional."""
    contract, further = kinds(Process)[:3], kinds(Process)[3:]
    assert contract == [
        ("name", Parameter.POSITIONAL_OR_KEYWORD, Parameter.empty),
        ("strategy", Parameter.POSITIONAL_OR_KEYWORD, "sequential"),
        ("max_workers", Parameter.POSITIONAL_OR_KEYWORD, None),
    ]
    assert all(kind is Parameter.KEYWORD_ONLY and default is not Parameter.empty for _, kind, default in further)


@pytest.mark.parametrize("method", [Process.add_task, Process.add_step, Process.task], ids=lambda m: m.__qualname__)
def test_every_keyword_is_left_to_the_task(method):
    """`add_task(callable, *args, **kwargs)`: what comes before `*args` has no name that a keyword could hit."""
    assert kinds(method) == [
        ("self", Parameter.POSITIONAL_ONLY, Parameter.empty),
        ("callable", Parameter.POSITIONAL_ONLY, Parameter.empty),
        ("args", Parameter.VAR_POSITIONAL, Parameter.empty),
        ("kwargs", Parameter.VAR_KEYWORD, Parameter.empty),
    ]


def test_add_step_is_add_task():
    """One is the alias of the other."""
    assert Process.add_step is Process.add_task


@pytest.mark.parametrize("method", [Process.execute, Process.__call__], ids=lambda m: m.__qualname__)
def test_executing_needs_no_argument(method):
    """`execute()`, and a process called as a task: whatever they take beside is keyword-only and optional."""
    itself, *further = kinds(method)
    assert itself[0] == "self"
    assert all(kind is Parameter.KEYWORD_ONLY and default is not Parameter.empty for _, kind, default in further)


def test_the_attributes_of_a_process_are_slots():
    """`name`, `strategy`, `tasks`, `status` and `max_workers` are there, and a misspelt one is refused."""
    process = Process("slots")
    assert {"name", "strategy", "tasks", "status", "max_workers"} <= set(Process.__slots__)
    assert not hasattr(process, "__dict__")
    with pytest.raises(AttributeError):
        process.max_worker = 4
