"""The command `procession`."""

import argparse
import io
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from procession import OnError, Process, ProcessionError, Run, RunCancelledError, RunInUseError, __version__
from procession._model.text import shown, shown_lines
from procession.cli.demo import demo_target
from procession.cli.logs import FORMATS as LOG_FORMATS
from procession.cli.logs import LEVELS, logs_kept, logs_loaded, logs_shown
from procession.cli.pictures import FORMATS, draw_graph, graph_path, save_timeline, timeline_path
from procession.cli.recorded import (
    DEFAULT_JOURNAL,
    cancel_run,
    command_of,
    open_journal,
    print_run,
    print_runs,
    prune_runs,
)
from procession.cli.resumed import agreed
from procession.cli.serve import serve_page
from procession.cli.target import TargetError, load
from procession.cli.terminal import say, tell
from procession.observe.footer import release_terminal

if TYPE_CHECKING:
    from procession.journal import Journal, RunInfo

FAILED, USAGE, CANCELLED, IN_USE, INTERRUPTED, TERMINATED = 1, 2, 3, 75, 130, 143

_STRATEGIES = ("sequential", "parallel", "hybrid")

_EPILOG = """\
Progress, logs, errors and the summary go to standard error; standard output belongs to the tasks.

exit status:
  0    the process completed, and no task of it failed
  1    a task failed, or the process could not be loaded, begun or recorded
  2    the command line was wrong
  3    the run was cancelled in another way than by a signal: `procession cancel`, the page, the program itself
  75   another process executes the run (EX_TEMPFAIL: try again later, or let it be)
  130  interrupted with Ctrl-C: what ran was let end (a second Ctrl-C leaves at once)
  143  terminated (SIGTERM): what ran was let end
"""


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: stop as for Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except (ProcessionError, ImportError, ValueError) as error:
        # Of a journal: that it is not there, not ours, has no such run, or that its extra is not installed.
        tell(f"procession: {error}")
        return IN_USE if isinstance(error, RunInUseError) else FAILED
    except BrokenPipeError:
        raise  # nobody reads any more: see `console`
    except Exception as error:
        _print_error(error)
        return FAILED


def _loaded(target: str) -> Process | int:
    """Return the process that is meant, or, having said why there is none, the exit status."""
    try:
        return load(target)
    except TargetError as error:
        tell(f"procession: {error}")
        return USAGE
    except (Exception, SystemExit) as error:
        _print_error(error)
        tell(f"procession: {target} could not be loaded")
        return FAILED


def _graph(options: argparse.Namespace) -> int:
    with logs_loaded(None):
        process = _loaded(options.target)
    return process if isinstance(process, int) else draw_graph(process, options.format, options.output)


def _execute(options: argparse.Namespace) -> int:
    where = options.journal
    if where is None and options.run_id is not None:
        where = DEFAULT_JOURNAL
    # Before the process is loaded, which may change the folder.
    with nullcontext() if where is None else open_journal(where) as journal:
        return _executed(options, journal)


def _executed(options: argparse.Namespace, journal: "Journal | None") -> int:
    if journal is None:
        return _loaded_and_run(options, None)
    from procession.journal.origin import begun_by

    with begun_by(command_of(options)):
        return _loaded_and_run(options, journal)


def _loaded_and_run(options: argparse.Namespace, journal: "Journal | None") -> int:
    with logs_loaded(options.log_format):
        process = _loaded(demo_target() if options.command == "demo" else options.target)
    if isinstance(process, int):
        return process
    if options.strategy is not None:
        process.strategy = options.strategy
    if options.max_workers is not None:
        process.max_workers = options.max_workers
    if options.on_error is not None:
        process.on_error = options.on_error
    kept = nullcontext() if journal is None else logs_kept()
    with logs_shown(options.log_format, options.log_level), kept:
        as_json = options.log_format == "json"
        status, run, results = _run(
            process, options.run_id, journal, allow_changes=options.allow_changes, as_json=as_json
        )
    if options.command == "demo" and results:
        say(str(results[-1]))
        if run is not None and not as_json:
            tell(f"\n{run.timeline()}")
    if options.timeline is not None and run is not None:
        status = save_timeline(run, options.timeline) or status
    return status


def _resume(options: argparse.Namespace) -> int:
    """Execute a run again by the command line that began it, in the folder where that was."""
    with open_journal(options.journal) as journal:
        info = journal.run(options.run)
        return _resumed(options, journal, info)


def _resumed(options: argparse.Namespace, journal: "Journal", info: "RunInfo") -> int:
    from procession.journal.origin import resumable

    argv = info.origin.get("argv", [])
    command = resumable(argv)
    if command is None:
        began = shlex.join(argv)
        tell(f"procession: run {shown(info.id)} was not begun by `procession run`, but by: {shown(began)}")
        tell(f"execute it again from there, with run_id={shown(info.id)!r}")
        return FAILED
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
    again.run_id, again.allow_changes = info.id, options.allow_changes
    target = None if again.command == "demo" else again.target
    try:
        go_on = agreed(info, Path.cwd(), command, target, yes=options.yes)
    except TargetError as error:
        tell(f"procession: {error}")
        return USAGE
    # In the journal that is open: a relative address means another one here.
    return _executed(again, journal) if go_on else FAILED


def _parsed(command: Sequence[str]) -> argparse.Namespace | None:
    """Return the options of a recorded command line, `None` if it cannot be parsed."""
    said = io.StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            return _parser().parse_args(command)
    except SystemExit:
        return None


def _run(
    process: Process, run_id: str | None, journal: "Journal | None", *, allow_changes: bool, as_json: bool
) -> tuple[int, Run | None, list[Any]]:
    """Execute a process; return the exit status, the run, if it could be begun, and its results."""
    results: list[Any] = []
    earlier = process.last_run  # of a file that executes it as it is loaded
    status = 0
    before = {number: signal.signal(number, _on_signal()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        results = process.execute(run_id=run_id, journal=journal, allow_changes=allow_changes, progress=not as_json)
    except KeyboardInterrupt as error:
        status = TERMINATED if isinstance(error, _Terminated) else INTERRUPTED
    except BaseException as error:  # SystemExit too: a task that exits has not ended well
        said = _is_said(error, began=process.last_run is not earlier)
        if said and isinstance(error, RunCancelledError):  # which log and summary say
            status = CANCELLED
        else:
            _tell(error, said=said, as_json=as_json)
            overlaps = isinstance(error, RunInUseError) and process.last_run is earlier
            status = IN_USE if overlaps else FAILED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    run = process.last_run
    if run is None or run is earlier:
        return status, None, results
    if not as_json:
        tell(run.summary())
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
        tell(f"procession: {shown(str(error), 1000)}")
    else:
        _print_error(error)


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


def _print_error(error: BaseException) -> None:
    """Print the traceback."""
    tell("".join(traceback.format_exception(*_without_ours(error))).rstrip())


class _Parser(argparse.ArgumentParser):
    """Says what was wrong with a command line, which somebody else may have made."""

    def error(self, message: str) -> NoReturn:
        """Say so, and leave."""
        super().error(shown_lines(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="procession",
        description="Run a process: in order, all at once, or one half in order and the other at once.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"procession {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = commands.add_parser(
        "run",
        help="run a process of a file or module",
        description="Run a process and show how it went.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    graph = commands.add_parser(
        "graph",
        help="draw the tasks of a process and what waits for what",
        description="Draw the tasks of a process and what waits for what, without running any.",
    )
    graph.add_argument("--format", choices=FORMATS, help="what the file's ending says; mermaid for standard output")
    graph.add_argument(
        "-o",
        "--output",
        type=graph_path,
        metavar="FILE",
        help="where to: a picture (.svg) or Mermaid text (.mmd, .mermaid, .md, .txt); standard output if not given",
    )
    for command in run, graph:
        command.add_argument(
            "target", metavar="FILE_OR_MODULE:NAME", help="where the process is; NAME may be a function that returns it"
        )
    demo = commands.add_parser(
        "demo",
        help="audit the source files of this Python's standard library",
        description="Run the main example: audit the source files of this Python's standard library.",
    )
    for command in run, demo:
        command.add_argument(
            "--run-id", metavar="ID", help="record the run under this id, or go on with the run it is of"
        )
        _add_journal(command, None, f"the journal to record it in (with --run-id: {DEFAULT_JOURNAL})")
        _add_allow_changes(command)
        command.add_argument("--strategy", choices=_STRATEGIES, help="instead of the process's own")
        command.add_argument("--max-workers", type=_at_least_one, metavar="N", help="instead of the process's own")
        command.add_argument("--on-error", choices=get_args(OnError), help="instead of the process's own")
        command.add_argument(
            "--log-format", choices=LOG_FORMATS, help="json: JSON lines, and nothing else on standard error"
        )
        command.add_argument("--log-level", choices=LEVELS, help="from which level on (default: warning; json: info)")
        command.add_argument(
            "--timeline", type=timeline_path, metavar="FILE", help="draw the run: a picture (.svg) or a trace (.json)"
        )
    resume = commands.add_parser(
        "resume",
        help="go on with a run that `procession run` began",
        description="Execute a run again by the command line that began it: what ended well is not called again.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    resume.add_argument("run", metavar="RUN", help="the run's id")
    resume.add_argument(
        "--yes", action="store_true", help="run what the journal says without asking, though you may not have begun it"
    )
    _add_allow_changes(resume)
    runs = commands.add_parser("runs", help="list the runs of a journal", description="List runs, the newest first.")
    runs.add_argument("--limit", type=_at_least_one, default=20, metavar="N", help="how many (default: 20)")
    show = commands.add_parser("show", help="show one run of a journal", description="Show a run and its tasks.")
    show.add_argument("run", metavar="RUN", help="the run's id; of one nested in it: RUN/TASK")
    show.add_argument(
        "--failed", action="store_true", help="only what failed, elements of maps too, with tracebacks and logs"
    )
    show.add_argument("--limit", type=_at_least_one, default=50, metavar="N", help="how many tasks (default: 50)")
    cancel = commands.add_parser(
        "cancel", help="ask a run to stop", description="Ask whoever executes a run to cancel it."
    )
    cancel.add_argument("run", metavar="RUN", help="the run's id")
    prune = commands.add_parser(
        "prune", help="delete runs from a journal", description="Delete runs, each with all that is nested in it."
    )
    prune.add_argument("runs", metavar="RUN", nargs="*", help="ids of runs")
    prune.add_argument("--older-than", type=_at_least_one, metavar="DAYS", help="all that ended so many days ago")
    ui = commands.add_parser(
        "ui",
        help="show the runs of a journal in the browser",
        description="Serve a page that shows runs as they go on, to whoever has the address that it prints.",
    )
    ui.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    ui.add_argument("--port", type=int, default=8765, help="the port to listen on; 0: any (default: 8765)")
    for command in resume, runs, show, cancel, prune, ui:
        _add_journal(command, DEFAULT_JOURNAL, f"the journal (default: {DEFAULT_JOURNAL})")
    return parser


def _add_journal(command: argparse.ArgumentParser, default: str | None, text: str) -> None:
    command.add_argument("--journal", metavar="PATH_OR_URL", default=default, help=text)


def _add_allow_changes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-changes", action="store_true", help="go on though the process has changed; unchanged tasks keep theirs"
    )


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "run": _execute,
    "demo": _execute,
    "graph": _graph,
    "resume": _resume,
    "runs": lambda options: print_runs(options.journal, options.limit),
    "show": lambda options: print_run(options.journal, options.run, options.limit, failed=options.failed),
    "cancel": lambda options: cancel_run(options.journal, options.run),
    "prune": lambda options: prune_runs(options.journal, options.runs, options.older_than),
    "ui": lambda options: serve_page(options.journal, options.host, options.port),
}


def _at_least_one(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of at least 1 is needed, not {text!r}")
    return int(text)


def console() -> NoReturn:
    """Run the command line and leave with its exit status. What the `procession` command calls."""
    try:
        status = main()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read has had enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what the interpreter writes out as it ends
        status = FAILED
    sys.exit(status)
