"""What ends a wait for pipes, from any thread."""

import multiprocessing
import threading


class Alarm:
    """Something to wait for beside pipes: `heard` can be read once it rings, until that is ended.

    Example:
        >>> alarm = Alarm()
        >>> alarm.heard.poll()
        False
        >>> alarm.ring()
        >>> alarm.heard.poll()
        True
        >>> alarm.end()
        >>> alarm.heard.poll()
        False
        >>> alarm.close()

    """

    __slots__ = ("_bell", "_lock", "_rings", "heard")

    def __init__(self) -> None:
        self.heard, self._bell = multiprocessing.Pipe(duplex=False)
        self._lock = threading.Lock()
        self._rings = False

    def ring(self) -> None:
        """End a wait, now or when it begins. Does nothing once closed."""
        with self._lock:
            if not self._rings and not self._bell.closed:
                self._rings = True
                self._bell.send_bytes(b"r")

    def end(self) -> None:
        """Take note of the ring."""
        with self._lock:
            self._rings = False
            self.heard.recv_bytes()

    def close(self) -> None:
        """Let go of the pipe."""
        with self._lock:
            self.heard.close()
            self._bell.close()
