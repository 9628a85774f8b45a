"""The one of the public exceptions that derives from what takes long to import, logging with it: see `errors`."""

from concurrent.futures import BrokenExecutor

from procession.errors import ProcessionError


class ExecutorBrokenError(ProcessionError, BrokenExecutor):
    """The executor that was given to the process is shut down, or broke while the process ran."""

    __module__ = "procession.errors"
