"""The command `procession`."""

import argparse
import atexit
import gc
import io
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn, TypeVar

from procession import Process, ProcessionError, Run, RunCancelledError, RunInUseError, RunSuspendedError
from procession._model.text import shown
from procession.cli.as_json import print_run_json, print_runs_json
from procession.cli.completion import print_completions, print_script
from procession.cli.demo import demo_target
from procession.cli.ending import tell_end, tell_error
from procession.cli.logs import logs_kept, logs_loaded, logs_shown
from procession.cli.nearest import meant
from procession.cli.parameters import described, read
from procession.cli.parser import BEGINNINGS, command_parser
from procession.cli.pictures import draw_graph, save_timeline
from procession.cli.recorded import (
    DEFAULT_JOURNAL,
    answer_run,
    cancel_run,
    command_of,
    open_journal,
    print_run,
    print_runs,
    prune_runs,
)
from procession.cli.rerun import chosen_by, say_again
from procession.cli.resumed import (
    IN_USE,
    INTERRUPTED,
    MANY,
    SUSPENDED,
    TERMINATED,
    Many,
    agreed,
    located,
    resume_all,
    resume_script,
)
from procession.cli.serve import serve_page
from procession.cli.target import TargetError, find, process_of
from procession.cli.terminal import OutputError, in_words_of_the_command_line, say, tell
from procession.observe.footer import release_terminal
from procession.observe.log import texts_logged

if TYPE_CHECKING:
    from procession.journal import Journal, RunInfo

T = TypeVar("T")

FAILED, USAGE, CANCELLED = 1, 2, 3


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: stop as for Ctrl-C."""


_BUILDING: Final = ("run", "graph")
"""The commands that take parameters of a function that builds a process."""

_OF_RECORDS: Final = frozenset({"runs", "show", "cancel", "answer", "prune"})
"""The commands that execute nothing."""

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM)
"""The signals that ask a run to stop."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    handlers = {number: signal.getsignal(number) for number in _STOPPING}
    try:
        return _called(arguments)
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:  # a run changes them, and that in the main thread
                signal.signal(number, handler)


def _called(arguments: Sequence[str] | None) -> int:
    """Run the command line. Once a run has ended, signals that ask to stop are ignored: its status is known."""
    parser = command_parser()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        tell(BEGINNINGS.rstrip())
        return USAGE
    if words[0] == "complete":
        return print_completions(parser, words[1:])
    if words[0] not in parser.commands and not words[0].startswith("-"):
        near = meant(words[0], parser.commands) or f"; there are {', '.join(parser.commands)}"
        tell(f"procession: there is no command {shown(words[0])!r}{near}")
        return USAGE
    target = next((word for word in words[1:] if ":" in word and not word.startswith("-")), None)
    if words[0] in _BUILDING and target is not None and not {"-h", "--help"}.isdisjoint(words):
        return _help(words[0], target)
    options, parameters = parser.parse_known_args(words)
    if parameters and options.command not in _BUILDING:
        parser.error(f"unrecognized arguments: {' '.join(parameters)}")
    options.parameters = parameters
    try:
        return _COMMANDS[options.command](options)
    except (ProcessionError, ImportError, ValueError) as error:
        # Of a journal: that it is not there, not ours, has no such run, or that its extra is not installed.
        tell(f"procession: {in_words_of_the_command_line(error)}")
        return IN_USE if isinstance(error, RunInUseError) else FAILED
    except (BrokenPipeError, OutputError):
        raise  # see `console`
    except Exception as error:
        tell_error(error)
        return FAILED


def _loaded(target: str, words: Sequence[str]) -> tuple[Process, list[str]] | int:
    """Return the process that is meant, and the parameters it has, as words of a command line.

    Where there is none, say why, and return the exit status. `words` are the parameters as the caller has said them.
    """
    found = _found(target, lambda: find(target))
    if isinstance(found, _Status):
        return found.status
    arguments = read(found, target, words)
    process = _found(target, lambda: process_of(found, target, arguments))
    return process.status if isinstance(process, _Status) else (process, arguments.words)


class _Status(NamedTuple):
    status: int


def _found(target: str, find_it: Callable[[], T]) -> T | _Status:
    try:
        return find_it()
    except TargetError as error:
        tell(f"procession: {error}")
        return _Status(USAGE)
    except (Exception, SystemExit) as error:
        tell_error(error)
        tell(f"procession: {target} could not be loaded")
        return _Status(FAILED)


def _help(command: str, target: str) -> int:
    """Print the help on a command, below that on the parameters of what it runs."""
    with logs_loaded(None):
        found = _found(target, lambda: find(target))
    if isinstance(found, _Status):
        return found.status
    about = described(found, target)
    say(f"{about}\n{command_parser().commands[command].format_help()}".strip())
    return 0


def _graph(options: argparse.Namespace) -> int:
    with logs_loaded(None):
        loaded = _loaded(options.target, options.parameters)
    return loaded if isinstance(loaded, int) else draw_graph(loaded[0], options.format, options.output)


def _execute(options: argparse.Namespace) -> int:
    where = options.journal
    if where is None and options.run_id is not None:
        where = DEFAULT_JOURNAL
    # Before the process is loaded, which may change the folder.
    options.journal = where
    with nullcontext() if where is None else open_journal(where) as journal:
        return _executed(options, journal)


def _executed(options: argparse.Namespace, journal: "Journal | None") -> int:
    with _begun_by(options, journal, options.parameters):
        return _loaded_and_run(options, journal)


@contextmanager
def _begun_by(options: argparse.Namespace, journal: "Journal | None", parameters: Sequence[str]) -> Generator[None]:
    """Record runs that begin within the block as begun by a command line."""
    if journal is None:
        yield
        return
    from procession.journal.origin import begun_by

    with begun_by([*command_of(options), *parameters]):
        yield


def _loaded_and_run(options: argparse.Namespace, journal: "Journal | None") -> int:
    with logs_loaded(options.log_format):
        loaded = _loaded(demo_target() if options.command == "demo" else options.target, options.parameters)
    if isinstance(loaded, int):
        return loaded
    process, parameters = loaded
    with _begun_by(options, journal, parameters):
        return _configured_and_run(options, journal, process)


def _configured_and_run(options: argparse.Namespace, journal: "Journal | None", process: Process) -> int:
    if options.strategy is not None:
        process.strategy = options.strategy
    if options.max_workers is not None:
        process.max_workers = options.max_workers
    if options.on_error is not None:
        process.on_error = options.on_error
    kept = nullcontext() if journal is None else logs_kept()
    as_json = options.log_format == "json"
    with logs_shown(options.log_format, options.log_level), texts_logged(), kept:
        status, run, results = _run(
            process, options.run_id, journal, allow_changes=options.allow_changes, as_json=as_json
        )
        if run is not None and not as_json:
            tell_end(run, journal, options.journal)
    if options.command == "demo" and results:
        say(str(results[-1]))
        if run is not None and not as_json:
            tell(f"\n{run.timeline()}")
    if options.timeline is not None and run is not None:
        status = save_timeline(run, options.timeline) or status
    return status


def _resume(options: argparse.Namespace) -> int:
    """Execute a run again by the command line that began it, in the folder where that was."""
    which: Many | None = next((name for name in MANY if getattr(options, name)), None)
    if which is not None:
        given = {"--yes": options.yes, "--allow-changes": options.allow_changes}
        return resume_all(options.journal, which, [option for option, is_given in given.items() if is_given])
    with open_journal(options.journal, options.run) as journal:
        return _resumed(options, journal, journal.run(options.run))


def _rerun(options: argparse.Namespace) -> int:
    """Say which part of a run will be called again, forget its results, and resume the run."""
    chosen = chosen_by(options)
    if not chosen:
        tell("procession: name what is called again: --from TASK, --element TASK:N or --failed")
        return USAGE
    with open_journal(options.journal, options.run) as journal:
        if not say_again(journal, options.run, chosen, dry_run=options.dry_run) or options.dry_run:
            return 0
        forgotten: list[object] = []
        info = journal.run(options.run)
        status = _resumed(options, journal, info, lambda: forgotten.append(journal.rerun(info.id, **chosen)))
        if not forgotten:
            tell("procession: nothing was forgotten")
        return status


def _resumed(
    options: argparse.Namespace, journal: "Journal", info: "RunInfo", begin: Callable[[], object] | None = None
) -> int:
    """Go on with a run. `begin` is called before, when it is certain that it is executed, here or by its program."""
    from procession.journal.origin import resumable, script_of

    argv = info.origin.get("argv", [])
    command = resumable(argv)
    script = script_of(info.origin) if command is None else None
    reruns = begin is not None
    begin = begin or (lambda: None)
    if script is not None:
        return resume_script(info, script, journal, begin, allow_changes=options.allow_changes, yes=options.yes)
    if command is None:
        begin()
        began = shlex.join(argv)
        tell(f"procession: run {shown(info.id)} was not started by `procession run`, but by: {shown(began)}")
        tell(f"execute it again from there, with run_id={shown(info.id)!r}")
        return 0 if reruns else FAILED
    try:
        os.chdir(info.origin["folder"])
    except OSError as error:
        folder = shown(str(info.origin["folder"]))
        tell(f"procession: run {shown(info.id)} was begun in {folder!r}: {error.strerror}")
        return FAILED
    again = _parsed(command)
    if again is None:
        said = shown(shlex.join(command))
        tell(f"procession: run {shown(info.id)} was begun by what is no command line here: {said}")
        return FAILED
    again.run_id, again.allow_changes, again.journal = info.id, options.allow_changes, options.journal
    target = None if again.command == "demo" else again.target
    try:
        go_on = agreed(info, Path.cwd(), ["procession", *command], located(target, Path.cwd()), yes=options.yes)
    except TargetError as error:
        tell(f"procession: {error}")
        return USAGE
    if not go_on:
        return FAILED
    begin()
    # In the journal that is open: a relative address means another one here.
    return _executed(again, journal)


def _parsed(command: Sequence[str]) -> argparse.Namespace | None:
    """Return the options of a recorded command line, `None` if it cannot be parsed."""
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            options, parameters = command_parser().parse_known_args(command)
    except SystemExit:
        return None
    options.parameters = parameters
    return None if parameters and not parameters[0].startswith("--") else options


def _run(
    process: Process, run_id: str | None, journal: "Journal | None", *, allow_changes: bool, as_json: bool
) -> tuple[int, Run | None, list[Any]]:
    """Execute a process; return the exit status, the run, if it could be begun, and its results."""
    results: list[Any] = []
    earlier = process.last_run  # of a file that executes it as it is loaded
    status = 0
    handler = _on_signal()
    for number in _STOPPING:
        signal.signal(number, handler)
    try:
        try:
            results = process.execute(run_id=run_id, journal=journal, allow_changes=allow_changes, progress=not as_json)
        finally:
            _ignore_signals()
    except KeyboardInterrupt as error:
        status = TERMINATED if isinstance(error, _Terminated) else INTERRUPTED
    except BaseException as error:  # SystemExit too: a task that exits has not succeeded
        said = _is_said(error, began=process.last_run is not earlier)
        if said and isinstance(error, RunCancelledError):  # which log and summary say
            status = CANCELLED
        else:
            _tell(error, said=said, as_json=as_json)
            overlaps = isinstance(error, RunInUseError) and process.last_run is earlier
            waits = isinstance(error, RunSuspendedError) and said
            status = IN_USE if overlaps else SUSPENDED if waits else FAILED
    run = process.last_run
    if run is None or run is earlier:
        return status, None, results
    # With on_error="return", what failed stands among the results.
    return status or (FAILED if run.progress.failed else 0), run, results


def _is_said(error: BaseException, *, began: bool) -> bool:
    """Return whether the text of an error says it all: it is about the run, and was not raised by a task.

    What a task has raised has a note that names it.
    """
    kinds = (ProcessionError,) if began else (ProcessionError, ImportError, ValueError)
    return isinstance(error, kinds) and not getattr(error, "__notes__", None)


def _tell(error: BaseException, *, said: bool, as_json: bool) -> None:
    log = logging.getLogger("procession.cli")
    if as_json and said:
        log.error("execute_raised", extra={"error_type": type(error).__name__, "error": str(error)})
    elif as_json:
        log.error("execute_raised", exc_info=_without_ours(error))
    elif said:
        tell(f"procession: {shown(in_words_of_the_command_line(error), 1000)}")
    else:
        tell_error(error)


def _on_signal() -> Callable[[int, FrameType | None], None]:
    came: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            raise KeyboardInterrupt if number == signal.SIGINT else _Terminated
        # Threads of the user's own would hold up an orderly exit.
        release_terminal(sys.stderr)
        os._exit(INTERRUPTED if number == signal.SIGINT else TERMINATED)

    return handle


def _without_ours(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """Return an error with its traceback without the frames of this package, which say nothing of the user's code."""
    where = error.__traceback__
    while where is not None and where.tb_frame.f_globals.get("__name__", "").startswith(("procession.", "importlib")):
        where = where.tb_next
    return type(error), error, where or error.__traceback__


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _execute,
    "demo": _execute,
    "graph": _graph,
    "resume": _resume,
    "rerun": _rerun,
    "runs": lambda options: (print_runs_json if options.json else print_runs)(options.journal, options.limit),
    "show": lambda options: (print_run_json if options.json else print_run)(
        options.journal, options.run, options.limit, failed=options.failed
    ),
    "cancel": lambda options: cancel_run(options.journal, options.run),
    "answer": lambda options: answer_run(
        options.journal, options.run, options.name, options.value, task=options.task, element=options.element
    ),
    "prune": lambda options: prune_runs(options.journal, options.runs, options.older_than),
    "completion": lambda options: print_script(options.shell),
    "ui": lambda options: serve_page(options.journal, options.host, options.port),
}


def console() -> NoReturn:
    """Run the command line and leave with its exit status. What the `procession` command calls."""
    atexit.register(_ignore_signals)  # first of all, and so called last
    try:
        status = _called(None)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:  # of standard output: the reader of the pipe has had enough, as `head` has, or the disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what the interpreter writes out as it ends
        status = FAILED
    except KeyboardInterrupt:  # before there was a run
        status = INTERRUPTED

    if not _OF_RECORDS.isdisjoint(sys.argv[1:2]):
        gc.freeze()  # to look through all that was imported for garbage would be a fifth of the whole time

    def end_at_once(*_: object) -> None:
        os._exit(status)

    for number in _STOPPING:
        # The status is known. But threads and exit handlers of the user's own may hold up an orderly exit.
        signal.signal(number, end_at_once)
    sys.exit(status)


def _ignore_signals() -> None:
    """Let no signal change the exit status any more."""
    for number in _STOPPING:
        signal.signal(number, signal.SIG_IGN)
