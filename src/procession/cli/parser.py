"""The command line's commands and their options."""

import argparse
from collections.abc import Callable
from typing import Any, Final, NoReturn, get_args

from procession import OnError, __version__
from procession._model.text import shown_lines
from procession.cli.logs import FORMATS as LOG_FORMATS
from procession.cli.logs import LEVELS
from procession.cli.nearest import meant
from procession.cli.pictures import FORMATS, graph_path, timeline_path
from procession.cli.recorded import DEFAULT_JOURNAL
from procession.cli.rerun import element_of, task_of

SHELLS: Final = ("bash", "zsh", "fish")
_STRATEGIES: Final = ("sequential", "parallel", "hybrid")

BEGINNINGS: Final = """\
procession run FILE_OR_MODULE:NAME    run a process of a file or module
procession runs                       list the runs of a journal
procession show RUN                   show one of them
procession demo                       see what it looks like
procession --help                     see all commands
"""

_EPILOG = """\
Progress, logs, errors and the summary go to standard error; standard output belongs to the tasks.

exit status:
  0    the process completed, and no task of it failed
  1    a task failed, or the process could not be loaded, started or recorded
  2    the command line was wrong
  3    the run was cancelled in another way than by a signal: `procession cancel`, the page, the program itself
  4    the run is suspended: tasks of it wait for an answer or until a time, and all others have ended
  75   another process executes the run (EX_TEMPFAIL: try again later, or let it be)
  130  interrupted with Ctrl-C: running tasks finish (a second Ctrl-C leaves at once)
  143  terminated (SIGTERM): running tasks finish
"""


class Parser(argparse.ArgumentParser):
    """Prints what was wrong with a command line; its text may come from elsewhere.

    Attributes:
        actions: The arguments and options that were added.
        commands: The parser of each command.

    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.actions: list[argparse.Action] = []
        self.commands: dict[str, Parser] = {}
        super().__init__(*args, **kwargs)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        """Add an argument or option."""
        action = super().add_argument(*names, **options)
        self.actions.append(action)
        return action

    def error(self, message: str) -> NoReturn:
        """Print the error, and exit."""
        head, _, words = message.partition("unrecognized arguments: ")
        known = (
            name for command in self.commands.values() for action in command.actions for name in action.option_strings
        )
        super().error(shown_lines(message + (meant(words.split()[0], known) if words and not head else "")))


def command_parser() -> Parser:
    """Return the parser of all command lines."""
    parser = Parser(
        prog="procession",
        description="Run a process: in order, all at once, or the first half in order and the rest at once.",
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
            "--run-id", metavar="ID", help="record the run under this id, or resume the run of that id"
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
        help="resume a run that `procession run` or a script began",
        description="Execute a run again by the command line that began it: completed tasks are not called again.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = resume.add_mutually_exclusive_group(required=True)
    which.add_argument("run", metavar="RUN", nargs="?", help="the run's id")
    which.add_argument("--interrupted", action="store_true", help="all runs whose process was killed before they ended")
    which.add_argument(
        "--answered", action="store_true", help="all suspended runs with a task whose answer has been given"
    )
    which.add_argument(
        "--due", action="store_true", help="all suspended runs with a task whose sleep or timeout is over"
    )
    _add_allow_changes(resume)
    rerun = _add_rerun(commands.add_parser)
    for command in resume, rerun:
        command.add_argument(
            "--yes",
            action="store_true",
            help="do not ask, even if it is not known that you began the run",
        )
    runs = commands.add_parser("runs", help="list the runs of a journal", description="List runs, the newest first.")
    runs.add_argument("--limit", type=_at_least_one, default=20, metavar="N", help="how many (default: 20)")
    runs.add_argument("--json", action="store_true", help="as JSON, with all that is known of each run")
    show = commands.add_parser("show", help="show one run of a journal", description="Show a run and its tasks.")
    show.add_argument("run", metavar="RUN", help="the run's id, or RUN/TASK for a nested run")
    show.add_argument(
        "--failed", action="store_true", help="only what failed, elements of maps too, with tracebacks and logs"
    )
    show.add_argument("--limit", type=_at_least_one, default=50, metavar="N", help="how many tasks (default: 50)")
    show.add_argument("--json", action="store_true", help="as JSON; with --failed, errors and logs are whole")
    cancel = commands.add_parser(
        "cancel", help="ask a run to stop", description="Ask the process that executes a run to cancel it."
    )
    cancel.add_argument("run", metavar="RUN", help="the run's id")
    answer = _add_answer(commands.add_parser)
    prune = commands.add_parser(
        "prune", help="delete runs from a journal", description="Delete runs, each with its nested runs."
    )
    prune.add_argument("runs", metavar="RUN", nargs="*", help="ids of runs")
    prune.add_argument("--older-than", type=_at_least_one, metavar="DAYS", help="all that ended so many days ago")
    ui = commands.add_parser(
        "ui",
        help="show the runs of a journal in the browser",
        description="Serve a page that shows runs as they go on, to everyone who has the address that it prints.",
    )
    ui.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine only)")
    ui.add_argument("--port", type=int, default=8765, help="the port to listen on; 0: any (default: 8765)")
    for command in resume, rerun, runs, show, cancel, answer, prune, ui:
        _add_journal(command, DEFAULT_JOURNAL, f"the journal (default: {DEFAULT_JOURNAL})")
    completion = commands.add_parser(
        "completion",
        help="print the completion script of a shell",
        description="Print the script that completes command lines in a shell; load it there: "
        'eval "$(procession completion bash)", the same with zsh, or procession completion fish | source.',
    )
    completion.add_argument("shell", choices=SHELLS, help="the shell")
    parser.commands = dict(commands.choices)
    return parser


def _add_rerun(add_parser: Callable[..., Parser]) -> Parser:
    rerun = add_parser(
        "rerun",
        help="call a part of a run again: a task, an element of a map, what failed",
        description="Say which tasks of a run are called again, the named ones and all that follows from them, forget "
        "their results, and resume the run as `resume` does.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rerun.set_defaults(allow_changes=False)
    rerun.add_argument("run", metavar="RUN", help="the run's id")
    rerun.add_argument(
        "--from",
        dest="tasks",
        type=task_of,
        action="append",
        default=[],
        metavar="TASK",
        help="a task, by its place or name; may be given several times",
    )
    rerun.add_argument(
        "--element",
        dest="elements",
        type=element_of,
        action="append",
        default=[],
        metavar="TASK:N",
        help="element N of a map, from 0 on; may be given several times",
    )
    rerun.add_argument("--failed", action="store_true", help="all that failed, in nested runs too")
    rerun.add_argument("--dry-run", action="store_true", help="only say which tasks these are")
    return rerun


def _add_answer(add_parser: Callable[..., Parser]) -> Parser:
    answer = add_parser(
        "answer",
        help="give a run the answer that it waits for",
        description="Give a run the answer that a task of it waits for, by current_task().wait_for(NAME).",
    )
    answer.add_argument("run", metavar="RUN", help="the run's id")
    answer.add_argument("name", metavar="NAME", help="the name of the answer")
    answer.add_argument("value", metavar="VALUE", help="the answer: JSON, or else a text as it is")
    answer.add_argument("--task", type=_at_least_zero, metavar="N", help="the task's place, where several tasks wait")
    answer.add_argument("--element", type=_at_least_zero, metavar="N", help="the element's, where several of a map do")
    return answer


def _add_journal(command: argparse.ArgumentParser, default: str | None, text: str) -> None:
    command.add_argument("--journal", metavar="PATH_OR_URL", default=default, help=text)


def _add_allow_changes(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-changes",
        action="store_true",
        help="resume although the process has changed; unchanged tasks keep their recorded results",
    )


def _at_least_one(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of at least 1 is needed, not {text!r}")
    return int(text)


def _at_least_zero(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"a number of at least 0 is needed, not {text!r}")
    return int(text)
