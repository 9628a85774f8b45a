"""The command that serves the page."""

from contextlib import suppress
from functools import partial

from procession import JournalError
from procession.cli.logs import logs_shown
from procession.cli.terminal import say, tell


def serve_page(where: str, host: str, port: int) -> int:
    """Serve the page of the journal at a path or URL until Ctrl-C."""
    try:
        from procession.web import serve  # an extra, and slow to import
    except ImportError as error:
        raise ImportError(f'the page needs what is not installed ({error}): pip install "procession[web]"') from error
    try:
        with suppress(KeyboardInterrupt), logs_shown("text", None):
            serve(where, host, port, partial(say, at_once=True))
    except JournalError:
        raise
    except (OSError, OverflowError, UnicodeError) as error:
        tell(f"procession: cannot listen on {host}, port {port}: {error}")
        return 1
    return 0
