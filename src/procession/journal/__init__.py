"""A durable record of runs.

    Journal ──begin──▶ Recorder ──commit──▶ records         store ── recorder ── heartbeat
       │                   └──heartbeat───▶ runs            codec ── lease
       └──runs, tasks, cancel, prune                        database ── access ── schema

`store` is what users see and `recorder` what a run writes through while it holds its `lease`; `heartbeat` keeps that.
`database` opens and closes, `access` says whether a file may be trusted, `schema` has the tables, and `codec` makes
bytes of values. Nothing but a recorder turns bytes into values again.
"""

from procession.journal.codec import Codec
from procession.journal.recorder import Recorder
from procession.journal.store import Journal

__all__ = ["Codec", "Journal", "Recorder"]
