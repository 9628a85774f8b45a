"""A durable record of runs.

    Journal ──begin──▶ Recorder ──commit──▶ records         store ── look ── reader ── spent
       │                   └──heartbeat───▶ runs            recorder ── heartbeat ── lease ── codec
       └──runs, tasks, cancel, prune                        database ── access ── schema

`store` is what users see, `look` how runs are shown, `reader` and `spent` a closer look that a page takes, `standing`
how a task stands, ended or not, and `recorder` what a run writes through while it holds its `lease`, which `heartbeat`
keeps. `database` opens and closes, `access` says whether a file may be trusted, `schema` has the tables, and `codec`
makes bytes of values. Nothing but a recorder turns bytes into values again.
"""

from importlib.util import find_spec

if find_spec("sqlalchemy") is None:
    raise ImportError('a journal needs SQLAlchemy: pip install "procession[journal]"')

from procession.journal.checked import Running, Status
from procession.journal.codec import Codec
from procession.journal.look import RunInfo, TaskInfo
from procession.journal.reader import Failure, Found, Kept, Reader
from procession.journal.recorder import Recorder
from procession.journal.spent import Mark, Share
from procession.journal.standing import TaskStanding
from procession.journal.store import Journal

__all__ = [
    "Codec",
    "Failure",
    "Found",
    "Journal",
    "Kept",
    "Mark",
    "Reader",
    "Recorder",
    "RunInfo",
    "Running",
    "Share",
    "Status",
    "TaskInfo",
    "TaskStanding",
]
