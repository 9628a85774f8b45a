"""The code of the README and of the documentation runs as it stands there and prints what is said there."""

import io
import re
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path

import pytest

from pages import Block, blocks_of, run_page
from procession.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = [(page, block) for page in PAGES for block in blocks_of(page) if block.runs]

came_to = cache(run_page)


@pytest.mark.timeout(300)  # the first block of a page waits for the whole page
@pytest.mark.parametrize(("page", "block"), RUN, ids=[f"{page.relative_to(ROOT)}:{block.line}" for page, block in RUN])
def test_block_runs_and_prints_what_the_page_says(page: Path, block: Block) -> None:
    """A reader who copies the blocks of a page one after another sees what the page says."""
    assert not (wrong := came_to(page)[block.line]), f"{page}, line {block.line}:\n{wrong}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_of_a_page_are_used(page: Path) -> None:
    """A file that a page shows is run by a command of the page, so that it is code that works."""
    blocks = blocks_of(page)
    commands = "".join(block.code for block in blocks if block.language == "sh" and block.runs)
    files = {block.title.removesuffix(".py") for block in blocks if block.title and block.language == "python"}
    imports = "".join(block.code for block in blocks if block.language == "python" and not block.title)
    assert not {name for name in files if name not in commands and f"from {name} import" not in imports}


def test_every_command_and_option_is_on_the_page() -> None:
    """Who looks for an option finds it under its command, and finds none that is not there."""
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    told = {
        command: set(re.findall(r"--[a-z][a-z-]+", text))
        for command, text in re.findall(r"^## procession (\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    }
    commands = re.findall(r"^    (\w+)(?: |$)", help_of(), re.MULTILINE)
    assert commands
    assert told == {name: set(re.findall(r"--[a-z][a-z-]+", help_of(name))) - {"--help"} for name in commands}


def help_of(*command: str) -> str:
    """Return what the command line says of itself, or of a command."""
    with redirect_stdout(io.StringIO()) as printed, pytest.raises(SystemExit):
        main([*command, "--help"])
    return printed.getvalue()
