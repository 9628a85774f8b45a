"""The command `procession`."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn, get_args

from procession import OnError, Process, __version__
from procession.cli.demo import demo_target
from procession.cli.progress import ProgressLine
from procession.cli.target import TargetError, load

FAILED, USAGE, INTERRUPTED, TERMINATED = 1, 2, 130, 143

_STRATEGIES = ("sequential", "parallel", "hybrid")

_EPILOG = """\
Progress, errors and the summary go to standard error; standard output belongs to the tasks.

exit status:
  0    the process completed
  1    a task failed, or the process could not be loaded
  2    the command line was wrong
  130  interrupted with Ctrl-C: what ran was let end (a second Ctrl-C leaves at once)
  143  terminated (SIGTERM): what ran was let end
"""


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: stop as for Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    options = _parser().parse_args(arguments)
    target: str = demo_target() if options.command == "demo" else options.target
    try:
        process = load(target)
    except TargetError as error:
        print(f"procession: {error}", file=sys.stderr)
        return USAGE
    except (Exception, SystemExit) as error:
        _print_error(error)
        print(f"procession: {target} could not be loaded", file=sys.stderr)
        return FAILED
    if options.strategy is not None:
        process.strategy = options.strategy
    if options.max_workers is not None:
        process.max_workers = options.max_workers
    if options.on_error is not None:
        process.on_error = options.on_error
    return _run(process)


def _run(process: Process) -> int:
    status = 0
    before = {number: signal.signal(number, _on_signal()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ProgressLine(process, sys.stderr):
            process.execute()
    except KeyboardInterrupt as error:
        status = TERMINATED if isinstance(error, _Terminated) else INTERRUPTED
    except BaseException as error:  # SystemExit too: a task that exits has not ended well
        _print_error(error)
        status = FAILED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if process.last_run is not None:
        print(process.last_run.summary(), file=sys.stderr)
    return status


def _on_signal() -> Callable[[int, FrameType | None], None]:
    came: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            raise KeyboardInterrupt if number == signal.SIGINT else _Terminated
        # Threads of the user's own would hold up an orderly exit.
        os._exit(INTERRUPTED if number == signal.SIGINT else TERMINATED)

    return handle


def _print_error(error: BaseException) -> None:
    """Print the traceback without the frames of this package, which say nothing of the user's code."""
    where = error.__traceback__
    while where is not None and where.tb_frame.f_globals.get("__name__", "").startswith(("procession.", "importlib")):
        where = where.tb_next
    lines = traceback.format_exception(type(error), error, where or error.__traceback__)
    # A message may come from anywhere, and terminals obey their escapes.
    text = "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in "".join(lines))
    print(text, end="", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
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
    run.add_argument(
        "target", metavar="FILE_OR_MODULE:NAME", help="where the process is; NAME may be a function that returns it"
    )
    demo = commands.add_parser(
        "demo",
        help="audit the source files of this Python's standard library",
        description="Run the main example: audit the source files of this Python's standard library.",
    )
    for command in run, demo:
        command.add_argument("--strategy", choices=_STRATEGIES, help="instead of the process's own")
        command.add_argument("--max-workers", type=_at_least_one, metavar="N", help="instead of the process's own")
        command.add_argument("--on-error", choices=get_args(OnError), help="instead of the process's own")
    return parser


def _at_least_one(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of at least 1 is needed, not {text!r}")
    return int(text)


def console() -> NoReturn:
    """Run the command line and leave with its exit status. What the `procession` command calls."""
    sys.exit(main())
