"""A durable record of runs.

    Journal ──begin──▶ Recorder ──commit──▶ records         store ── reader ── run_info, task_status, time_usage
       │                   └──heartbeat───▶ runs            beginning, recorder ── replay ── held ── heartbeat
       ├──reader──▶ Reader: every query                     database ── channel ── access ── schema
       └──cancel, answer, delete, prune, rerun              lease ── codec ── statements ── prepared

`store` is what users see. `beginning` is how a run begins, and `recorder` what it writes through while its lease is
`held`, which `heartbeat` renews; `replay` reads what earlier executions recorded, and `rerun` forgets a part of it.
`reader` has all queries, some of which are made in `counts`, `nested_runs`, `failed_calls` and `time_usage`; what they
return is made in `run_info` and `task_status`, too, of rows that `checked` has looked through. `database` opens and
closes each `channel`, `access` says whether a file may be trusted, `schema` has the tables, and `codec` makes bytes of
values. Nothing but a recorder turns bytes into values again. `waits` has all there is to waiting, from both sides.
"""

from importlib.util import find_spec

if find_spec("sqlalchemy") is None:
    raise ImportError('a journal needs SQLAlchemy: pip install "procession[journal]"')

from procession._model.attempt import FailedAttempt
from procession._model.held_back import HeldBack
from procession.journal.call_info import CallInfo
from procession.journal.checked import Running, Status
from procession.journal.codec import Codec, CodecName
from procession.journal.database import Durability
from procession.journal.failed_calls import GROUPED, Alike, Failure
from procession.journal.last_runs import LastRun
from procession.journal.reader import Reader
from procession.journal.recorder import Recorder
from procession.journal.rerun import Forgotten
from procession.journal.run_info import Found, Order, Recorded, RunCounts, RunInfo, TaskInfo
from procession.journal.store import Journal
from procession.journal.task_status import TaskStatus
from procession.journal.time_usage import Mark, Share
from procession.journal.waits import WaitInfo

__all__ = [
    "GROUPED",
    "Alike",
    "CallInfo",
    "Codec",
    "CodecName",
    "Durability",
    "FailedAttempt",
    "Failure",
    "Forgotten",
    "Found",
    "HeldBack",
    "Journal",
    "LastRun",
    "Mark",
    "Order",
    "Reader",
    "Recorded",
    "Recorder",
    "RunCounts",
    "RunInfo",
    "Running",
    "Share",
    "Status",
    "TaskInfo",
    "TaskStatus",
    "WaitInfo",
]
