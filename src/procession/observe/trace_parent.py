"""The span of a task, for code in another process, which may have OpenTelemetry or not."""

from collections.abc import Callable


class TraceParent:
    """Makes a span current that is known by what a propagator has written of it."""

    def __init__(self, carrier: dict[str, str]) -> None:
        self._carrier = carrier

    def __call__(self) -> None:
        """Make it current."""
        try:
            from opentelemetry import context, propagate  # of an extra, which need not be there
        except ModuleNotFoundError:
            return
        context.attach(propagate.extract(self._carrier))


class Sendable:
    """Makes the same span current here; pickled, it becomes a `TraceParent`. Most are never pickled."""

    def __init__(self, attach: Callable[[], object], write: Callable[[dict[str, str]], object]) -> None:
        self._attach = attach
        self._write = write

    def __call__(self) -> None:
        """Make it current."""
        self._attach()

    def __reduce__(self) -> tuple[type[TraceParent], tuple[dict[str, str]]]:
        carrier: dict[str, str] = {}
        self._write(carrier)
        return TraceParent, (carrier,)
