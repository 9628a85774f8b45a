"""A durable record of runs.

    Journal ──begin──▶ Recorder ──commit──▶ records         store ── reader ── run_info, task_status, time_usage
       │                   └──heartbeat───▶ runs            recorder ── heartbeat ── lease ── codec
       ├──reader──▶ Reader: every query                     database ── access ── schema
       └──cancel, delete, prune

`store` is what users see, and `recorder` what a run writes through while it holds its `lease`, which `heartbeat` keeps.
`reader` has all queries; what they return is made in `run_info`, `task_status` and `time_usage`, of rows that `checked`
has looked through. `database` opens and closes, `access` says whether a file may be trusted, `schema` has the tables,
and `codec` makes bytes of values. Nothing but a recorder turns bytes into values again.
"""

from importlib.util import find_spec

if find_spec("sqlalchemy") is None:
    raise ImportError('a journal needs SQLAlchemy: pip install "procession[journal]"')

from procession.journal.checked import Running, Status
from procession.journal.codec import Codec
from procession.journal.reader import Failure, Found, Reader, RunCounts
from procession.journal.recorder import Recorder
from procession.journal.run_info import RunInfo, TaskInfo
from procession.journal.store import Journal
from procession.journal.task_status import TaskStatus
from procession.journal.time_usage import Mark, Share

__all__ = [
    "Codec",
    "Failure",
    "Found",
    "Journal",
    "Mark",
    "Reader",
    "Recorder",
    "RunCounts",
    "RunInfo",
    "Running",
    "Share",
    "Status",
    "TaskInfo",
    "TaskStatus",
]
