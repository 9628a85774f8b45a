"""One line on the terminal that says how far a process has come, while it runs."""

import shutil
import threading
import time
from types import TracebackType
from typing import Self, TextIO

from procession import Process

PERIOD_S = 0.1
_CLEAR = "\r\x1b[K"


class ProgressLine:
    """Shows the progress of a process's run on a terminal, between `with` and its end; elsewhere it shows nothing."""

    def __init__(self, process: Process, stream: TextIO) -> None:
        self._process = process
        self._stream = stream
        self._began = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._show, name="procession-progress", daemon=True)

    def __enter__(self) -> Self:
        if self._stream.isatty():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
            self._write(_CLEAR)

    def _show(self) -> None:
        while not self._over.wait(PERIOD_S):
            run = self._process.last_run
            if run is not None:
                ended, failed, total = run.progress
                text = f"{ended:,} of {total:,} tasks · {f'{failed:,} failed · ' if failed else ''}"
                text += f"{time.monotonic() - self._began:.1f} s"
                self._write(_CLEAR + text[: shutil.get_terminal_size().columns - 1])

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
