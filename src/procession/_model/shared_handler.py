"""A log handler that other processes are to have as well. Known to the command line and to the engines."""

import logging
from collections.abc import Callable


class SharedHandler(logging.Handler):
    """A handler of the root logger that is set up in the worker processes of this process as well."""

    def elsewhere(self) -> Callable[[], object]:
        """Return a function that sets up the same handler in a worker process. It is sent there by pickle."""
        raise NotImplementedError
