"""The words for the state of a process, of a run and of a task. All are plain strings."""

from typing import Literal

ProcessStatus = Literal["initialized", "running", "completed", "failed"]
"""The status of a process: how its last run ended. A cancelled or suspended run leaves the process `"failed"`."""

RunStatus = Literal["running", "completed", "failed", "cancelled", "suspended"]
"""The status of a run: `result()` returns after `"completed"`, and raises after the others. A `"suspended"` run has
ended for now, as tasks of it wait for an answer or until a time."""

TaskState = Literal["waiting", "running", "completed", "failed", "skipped", "cancelled", "suspended"]
"""The state of a task in one run: a `"skipped"` task never started because another task failed, a `"cancelled"` task
did not complete because its run was cancelled, and a `"suspended"` task waits for an answer or until a time."""

OnError = Literal["stop", "continue", "return"]
"""What a failed task means for the other tasks of its process.

`"stop"`: no further task starts, and the failure is raised. `"continue"`: every task that does not wait for the failed
task runs, then an `ExceptionGroup` of all failures is raised. `"return"`: the same tasks run, and exceptions are
returned in place of results."""
