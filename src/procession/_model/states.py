"""The words for how a process, a run and a task stand. All are plain strings."""

from typing import Literal

ProcessStatus = Literal["initialized", "running", "completed", "failed"]
"""Of a process: how its last run ended. A cancelled run leaves the process `"failed"`."""

RunStatus = Literal["running", "completed", "failed", "cancelled"]
"""Of a run: `"completed"` means that `result()` returns; it raises after the other two."""

TaskState = Literal["waiting", "running", "completed", "failed", "skipped", "cancelled"]
"""Of a task in one run: `"skipped"` never started because another failed, `"cancelled"` because the run was."""

OnError = Literal["stop", "continue", "return"]
"""What a failed task means for the others."""
