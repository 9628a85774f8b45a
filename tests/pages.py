"""The code of a page of the documentation, and how it is run.

    page ──blocks_of──▶ blocks ──an interpreter of its own, in a temporary folder──▶ what each block came to

A Python block is executed after those before it; one with a title is the file of that name. Comments that begin
with `#>` are what a block prints. A shell block is run if it calls `procession` or Python; a text block after it is
what that prints. `...` in what is printed stands for anything.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
import types
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path
from typing import NamedTuple

LIMIT_S = 240
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)(?P<rest>.*)$")
_RUN = re.compile(r"(procession|python) ")


class Block(NamedTuple):
    """A block of code; `line` is that of its first line in the page."""

    line: int
    language: str
    title: str | None
    code: str

    @property
    def runs(self) -> bool:
        """Whether it is executed. (A file is written, and is run by another block.)"""
        return self.language == "python" or (self.language == "sh" and bool(_RUN.match(self.code)))


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of code of a page."""
    blocks, lines = [], page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        number += 1
        if opening is None:
            continue
        indent, begin = len(opening["indent"]), number
        while lines[number].strip() != "```":
            number += 1
        code = "".join(f"{line[indent:]}\n" for line in lines[begin:number])
        title = re.search(r'title="([^"]+)"', opening["rest"])
        blocks.append(Block(begin + 1, opening["language"], title and title[1], code))
        number += 1
    return blocks


def run_page(page: Path) -> dict[int, str]:
    """Run a page; return what is wrong with each block that was run, by its line: nothing where all is well."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report")
        place = Path(folder, "page")
        place.mkdir()
        done = subprocess.run(
            [sys.executable, "-W", "error", __file__, page, report],
            cwd=place,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        )
        came_to = json.loads(report.read_text()) if report.exists() else {}
    missing = f"it was not reached (exit status {done.returncode})\n{done.stderr}"
    return {block.line: came_to.get(str(block.line), missing) for block in blocks_of(page) if block.runs}


# In the interpreter of a page


def _main(page: Path, report: Path) -> None:
    module = types.ModuleType("__main__")  # so that what a page defines can be pickled
    sys.modules["__main__"] = module
    sys.path[0] = ""  # as for a reader, who is in the folder of the files that the page has written
    blocks = blocks_of(page)
    came_to = {}
    for block, after in zip(blocks, [*blocks[1:], None], strict=True):
        if not block.runs:
            continue
        try:
            if block.title and block.language == "python":
                Path(block.title).write_text(block.code)
            elif block.language == "python":
                _check("".join(re.findall(r"#> ?(.*\n)", block.code)), _python(block, page, module))
            else:
                printed = _shell(block)
                if after is not None and after.language == "text":
                    _check(after.code, printed)
        except BaseException:
            came_to[block.line] = traceback.format_exc()
            break
        came_to[block.line] = ""
        report.write_text(json.dumps(came_to))
    report.write_text(json.dumps(came_to))
    os._exit(0)  # a page may leave threads behind that sleep, on purpose


def _python(block: Block, page: Path, module: types.ModuleType) -> str:
    # Empty lines first, so that tracebacks point into the page.
    source = "\n" * (block.line - 1) + block.code
    code = compile(source, page, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if code.co_flags & inspect.CO_COROUTINE:  # `await` at the top, as in a notebook
            asyncio.run(eval(code, vars(module)))
        else:
            exec(code, vars(module))
    return printed.getvalue()


def _shell(block: Block) -> str:
    done = subprocess.run(
        ["sh", "-ec", block.code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def _check(wanted: str, printed: str) -> None:
    flags = ELLIPSIS | NORMALIZE_WHITESPACE
    assert OutputChecker().check_output(wanted, printed, flags), f"the page says:\n{wanted}\nprinted was:\n{printed}"


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
