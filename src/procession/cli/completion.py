"""Completion of command lines in bash, zsh and fish.

What the shells load is a few lines: they ask the command itself, `procession complete WORD...`, for what a word may
become, and take files where that says nothing.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from procession import ProcessionError
from procession.cli.parser import Parser
from procession.cli.recorded import DEFAULT_JOURNAL, open_journal
from procession.cli.terminal import say

SCRIPTS: Final = {
    "bash": """\
_procession() {
    mapfile -t COMPREPLY < <(procession complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o default -F _procession procession
""",
    "zsh": """\
_procession() {
    local -a found
    found=("${(@f)$(procession complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n $found ]]; then compadd -a found; else _files; fi
}
compdef _procession procession
""",
    "fish": """\
function __procession
    set -l words (commandline -opc) (commandline -ct)
    procession complete $words[2..] 2>/dev/null
end
complete -c procession -a '(__procession)'
""",
}
"""What each shell loads: `eval "$(procession completion bash)"`, and for fish `procession completion fish | source`."""

_OF_RUNS: Final = ("show", "resume", "rerun", "cancel", "answer", "prune")
_RUNS: Final = 100


def print_script(shell: str) -> int:
    """Print what a shell loads."""
    say(SCRIPTS[shell].rstrip())
    return 0


def print_completions(parser: Parser, words: Sequence[str]) -> int:
    """Print what the last of the words of a command line may become."""
    *before, begun = words or [""]
    for one in _candidates(parser, before, begun):
        if one.startswith(begun):
            say(one)
    return 0


def _candidates(parser: Parser, before: Sequence[str], begun: str) -> list[str]:
    if not before:
        return sorted(parser.commands)
    command = parser.commands.get(before[0])
    if command is None:
        return []
    options = {name: action for action in command.actions for name in action.option_strings}
    last = options.get(before[-1])
    if last is not None and last.nargs != 0:  # its value comes now
        return [str(choice) for choice in last.choices or ()]
    if begun.startswith("-"):
        return sorted(options)
    if before[0] in _OF_RUNS:
        return _run_ids(before)
    return [str(choice) for action in command.actions if not action.option_strings for choice in action.choices or ()]


def _run_ids(before: Sequence[str]) -> list[str]:
    named = [value for name, value in pairwise(before) if name == "--journal"]
    try:
        with open_journal(named[-1] if named else DEFAULT_JOURNAL) as journal:
            return [info.id for info in journal.runs(_RUNS) if info.id.isprintable()]
    except (ProcessionError, ImportError, ValueError):
        return []
