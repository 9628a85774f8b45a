"""The journal: a durable record of runs."""

import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import TracebackType
from typing import Final, Literal, Self

from sqlalchemy import Connection, bindparam, func, select, update

from procession._model.progress import Progress
from procession._model.record import place_name
from procession._model.text import described, shown, sketch
from procession._plan.fingerprint import Fingerprint
from procession._plan.shape import Shape
from procession.errors import JournalError, ProcessionError, RunUnknownError
from procession.journal import lease
from procession.journal.beginning import Beginning, Definition, Entry, check_free
from procession.journal.call_info import CallInfo
from procession.journal.checked import RUN, RunRow, run_row
from procession.journal.codec import Codec, CodecName, codec_of, encoded
from procession.journal.database import Database, Durability
from procession.journal.heartbeat import HeartbeatThread
from procession.journal.held import Held
from procession.journal.latest import Latest
from procession.journal.prepared import Prepared
from procession.journal.reader import COUNTED, Counted, Reader
from procession.journal.recorder import Recorder
from procession.journal.removal import remove
from procession.journal.rerun import Forgotten, delete_marked, forgotten_of, marked_of
from procession.journal.run_info import RunInfo, TaskInfo
from procession.journal.schema import ID_LIMIT, TOP, runs
from procession.journal.waits import record_answer

_PRUNING_S: Final = 0.05
"""For how long a transaction that deletes runs takes more of them."""

_PRUNE_EVERY_S: Final = 600.0
"""How often a journal that keeps runs for a time looks for those to delete."""

_ENDED: Final = Prepared(
    select(runs.c.id)
    .where(runs.c.key == bindparam("run"), runs.c.token.is_(None), runs.c.ended_at < bindparam("ended"))
    .with_for_update()
)
"""Most runs that are deleted have ended, and nobody need be asked whether their holder lives."""


class Journal:
    """A durable record of runs, in a database: what has completed is never called again under the same run id.

    The database is opened when a run begins or the journal is first read.

    Args:
        where: A path, which means an SQLite file; `":memory:"` for a journal that lasts as long as it is open; or a URL
            such as `postgresql://user@host/name`.
        durability: With `"process"`, the default, a record survives the death of the process at any instant. With
            `"power"` it also survives that of the whole system, for the price of a disk sync at each commit.
        codec: How results become bytes: `"pickle"`, the default, `"json"`, or an object with a `name` that encodes and
            decodes, see `Codec`.
        texts: Whether the texts and tracebacks of exceptions, and what tasks log, are kept beside the results. They are
            written as they are, whatever the codec. By default they are kept, but not beside a codec of your own, which
            may be there to encrypt: then only the types of exceptions are.
        keep: For how long runs are kept. Whenever runs begin, some of those are deleted that ended, or were last heard
            of, longer ago. By default all are kept, until `prune` or `delete`.

    Raises:
        ValueError: `where`, `durability`, `codec` or `keep` is invalid.
        JournalError: The database cannot be used. Raised by the methods, and by runs.

    Example:
        >>> with Journal(":memory:") as journal:
        ...     [run.id for run in journal.runs()]
        []

    """

    def __init__(
        self,
        where: str | os.PathLike[str],
        *,
        durability: Durability = "process",
        codec: CodecName | Codec = "pickle",
        texts: bool | None = None,
        keep: timedelta | None = None,
    ) -> None:
        if keep is not None and keep <= timedelta():
            raise ValueError(f"runs are kept for a time, keep=timedelta(days=30) for one; {keep} is none")
        self.database = Database(where, durability)
        self._codec = codec_of(codec)
        self._texts = isinstance(codec, str) if texts is None else texts
        self._keep = keep
        self._prune_at = 0.0
        self._pruning = threading.Lock()
        self._heartbeats = HeartbeatThread()
        self._counted = Latest[Counted, Progress](COUNTED)

    def begin(
        self,
        run_id: str,
        fingerprint: Fingerprint,
        shape: Shape | None = None,
        *,
        within: tuple[Recorder, int, int, int] | None = None,
        origin: Mapping[str, object] | None = None,
        allow_changes: bool = False,
    ) -> Recorder:
        """Begin to execute a run, or go on with it, and return the way to record it.

        `shape` is kept to be shown: the run may go on with another one. `within` is the recorder, the task, the element
        and the recorded call (each of the last two may be `WHOLE`) that the run is itself, `origin` says how it was
        started, for people and for `resume`.
        With `allow_changes`, what was recorded of changed tasks is forgotten, and of tasks that take their values.
        Raises `RunInUseError` if another execution of the run goes on, `PlanChangedError` if it was begun with another
        definition, `ValueError` for a run id that no database could keep, `JournalError` for all else.
        """
        _check(run_id)
        definition = Definition.of(fingerprint, shape)
        parent, place = TOP, run_id
        if within is not None:
            parent, place = within[0].key, place_name(*within[1:])
        beginning = Beginning(run_id, parent, place, self._codec.name, definition, origin or {}, allow_changes)
        if within is not None:
            return self._begun(within[0].held, beginning)
        thread = self._thread_of(run_id)
        try:
            token = lease.take()
            try:
                recorder = self._begun_with(token, thread, beginning)
            except BaseException:
                lease.drop(token)
                raise
        except BaseException:
            self._heartbeats.part(None)
            raise
        try:
            self._prune_some()  # now that this run, which may be an old one, is not to be deleted
        except BaseException as error:
            recorder.abandon(described(error))
            raise
        return recorder

    def runs(self, limit: int = 50, offset: int = 0, *, within: str | None = None) -> list[RunInfo]:
        """Return the runs of the journal, the newest first.

        Args:
            limit: The number of runs to return, at most.
            offset: How many of the newest runs to leave out.
            within: The id of a run: return the runs nested in it. By default, runs that are not nested are returned.

        Raises:
            RunUnknownError: The journal has no run of the id `within`.

        """
        with self.reader() as reader:
            parent = TOP if within is None else reader.key(within)
            return [found.run for found in reader.runs(parent=parent, limit=limit, offset=offset)]

    def run(self, run_id: str) -> RunInfo:
        """Return one run: how it stands, and what is recorded of it.

        Args:
            run_id: The run's id; of a nested run, `run/task`, `run/task.element`, or with `#call` behind it.

        Raises:
            RunUnknownError: The journal has no run of that id.

        """
        with self.reader() as reader:
            return reader.run(reader.key(run_id))

    def tasks(
        self,
        run_id: str,
        limit: int = 100,
        offset: int = 0,
        *,
        task: int | None = None,
        state: Literal["completed", "failed"] | None = None,
    ) -> list[TaskInfo]:
        """Return the tasks of a run that have ended, in the order of their places.

        Args:
            run_id: The run's id; of a nested run, `run/task`, `run/task.element`, or with `#call` behind it.
            limit: The number of tasks to return, at most.
            offset: How many tasks to leave out at the beginning.
            task: The place of a map: return its elements instead of tasks.
            state: Return only tasks that have `"completed"`, or only tasks that have `"failed"`.

        Raises:
            RunUnknownError: The journal has no run of that id.
            ValueError: `state` is unknown.

        """
        if state not in (None, "completed", "failed"):
            raise ValueError(f"unknown state {sketch(state)}; known are 'completed' and 'failed'")
        with self.reader() as reader:
            key = reader.key(run_id)
            return reader.tasks(key, task=task, state=state, limit=limit, offset=offset, whole=True)

    def calls(self, run_id: str, task: int, element: int | None = None, limit: int = 100) -> list[CallInfo]:
        """Return the recorded calls that a task made itself, by `current_task().call` and `.map`, in order.

        Args:
            run_id: The run's id.
            task: The place of the task.
            element: The place of an element, where the task is a map; by default, all calls of the task are returned.
            limit: The number of calls to return, at most.

        Raises:
            RunUnknownError: The journal has no run of that id.

        """
        with self.reader() as reader:
            return reader.calls(reader.key(run_id), [task], element, limit)

    @contextmanager
    def reader(self) -> Generator[Reader]:
        """Open a connection for all queries there are, by key and a part at a time, for as long as the `with` lasts."""
        with self.database.reading() as connection:
            yield self._reader(connection)

    def cancel(self, run_id: str) -> bool:
        """Ask the process that executes a run to cancel it, which takes about a second.

        Args:
            run_id: The run's id. A run that is nested in another one is cancelled with the outer run.

        Returns:
            Whether a process executes the run.

        Raises:
            RunUnknownError: The journal has no run of that id.

        """
        with self.database.writing() as connection:
            row = _top(connection, run_id)
            if not row.is_alive(self.database.now(connection)):
                return False
            connection.execute(update(runs).where(runs.c.key == row.key).values(cancelling=True))
            return True

    def rerun(
        self,
        run_id: str,
        *,
        tasks: Iterable[int | str] = (),
        elements: Iterable[tuple[int | str, int]] = (),
        failed: bool = False,
        dry_run: bool = False,
    ) -> list[Forgotten]:
        """Forget some tasks of a run, and all that follows from them, so that they are called when it is next executed.

        What takes a value of them follows, directly or through other tasks; of a map that takes the elements of another
        one, the same elements. In a stage in order, a task that takes no handle follows from all tasks before it, as it
        may depend on what they have left behind. The calls that a task has recorded itself, and the run of a process
        that is a task, are forgotten with the task.

        Args:
            run_id: The run's id. A run that is nested in another one is reached as a task of the outer run.
            tasks: The tasks, each by its place, or by its name if no other task has that.
            elements: Elements of maps, each as a map, like a task, and a place in it.
            failed: Whether to take all tasks and elements that failed; in nested runs, these and not the whole run.
            dry_run: Whether to forget nothing, and only to say what that would be.

        Returns:
            What is called again, by place: all of it that is recorded.

        Raises:
            RunInUseError: A process executes the run.
            RunUnknownError: The journal has no run of that id.
            ValueError: Nothing is named, or a task or element that the run does not have.
            TypeError: A task or element is named by what is neither a place nor a name.

        Example:
            >>> from procession import Process
            >>> process = Process("sum")
            >>> total = process.task(sum, [process.task(int, "1"), process.task(int, "2")])
            >>> with Journal(":memory:") as journal:
            ...     results = process.execute(run_id="a", journal=journal)
            ...     [(one.task, one.name) for one in journal.rerun("a", tasks=[1])]
            [(1, 'int'), (2, 'sum')]

        """
        for value, name in ((tasks, "tasks"), (elements, "elements")):
            if isinstance(value, str):
                raise TypeError(f"{name} takes a list, and not one string: {name}=[{sketch(value)}]")
        tasks, elements = list(tasks), list(elements)
        if not (tasks or elements or failed):
            raise ValueError(f"name what is called again of run {shown(run_id)!r}: tasks, elements, or failed=True")
        with self.database.writing() as connection:
            now = self.database.now(connection)
            row = _top(connection, run_id)
            check_free(row, run_id, now)
            reader = Reader(connection, self._counted, now, self.database.last_commit)
            marked = marked_of(reader, connection, row, tasks, elements, failed=failed)
            forgotten = list(forgotten_of(connection, marked))
            if marked.rerun.parts and not dry_run:
                delete_marked(connection, marked)
        return forgotten

    def answer(
        self, run_id: str, name: str, value: object, *, task: int | None = None, element: int | None = None
    ) -> None:
        """Give the answer that a task of a run waits for in `current_task().wait_for(name)`.

        The run may be suspended or go on. A suspended run takes the answer when it is executed again.

        Args:
            run_id: The run's id. Tasks of runs that are nested in it are looked for, too.
            name: The name of the answer.
            value: The answer, which the codec of the journal has to take.
            task: The place of the task, needed only where several tasks wait for an answer of this name.
            element: The place of the element, needed only where several elements of a map wait for it.

        Raises:
            RunUnknownError: The journal has no run of that id.
            ValueError: Nothing waits for this answer, or it is there already, its time is up, or several tasks wait.
            ResultError: The answer cannot be recorded.
            JournalError: The run was recorded with another codec.

        """
        with self.database.writing() as connection:
            key = self._reader(connection).key(run_id)
            data = encoded(self._codec_of_run(connection, key, run_id), value)
            now = self.database.now(connection)
            record_answer(connection, key, run_id, name, data, now=now, task=task, element=element)

    def delete(self, run_id: str) -> None:
        """Delete a run and its nested runs, whole or not at all.

        Args:
            run_id: The run's id.

        Raises:
            RunInUseError: A process executes the run.
            RunUnknownError: The journal has no run of that id.

        """
        with self.database.writing() as connection:
            row = _top(connection, run_id)
            check_free(row, run_id, self.database.now(connection))
            remove(connection, row.key)

    def prune(self, before: float) -> list[str]:
        """Delete the runs that ended, or were last heard of, before a time, and give back the space that they took.

        Each is deleted whole or not at all, a few in a transaction, so that running processes need not wait long.

        Args:
            before: The time, in seconds since the epoch, UTC.

        Returns:
            The ids of the runs that were deleted.

        """
        pruned: list[str] = []
        for ids in self._pruned(before):
            pruned += ids
        if pruned:
            self.database.give_space_back()
        return pruned

    def _pruned(self, before: float) -> Iterator[list[str]]:
        """Delete old runs, a few in each transaction, and yield their ids after it."""
        with self.database.reading() as connection:
            # Of a run that goes on, this is later than now, unless its runner is late.
            heard = func.coalesce(runs.c.held_until, runs.c.ended_at)
            ended = min(before, self.database.now(connection))
            is_old = runs.c.parent == TOP, heard < ended
            waiting = deque(connection.execute(select(runs.c.key).where(*is_old).order_by(runs.c.key)).scalars())
        while waiting:
            ids: list[str] = []
            with self.database.writing() as connection:
                until, now = time.monotonic() + _PRUNING_S, self.database.now(connection)
                while waiting and (not ids or time.monotonic() < until):
                    # Somebody may have deleted or begun it since.
                    key = waiting.popleft()
                    over = _ENDED.execute(connection, run=key, ended=ended).fetchone()
                    if over is None:
                        query = select(*RUN).where(*is_old, runs.c.key == key).with_for_update()
                        found = [run_row(row) for row in connection.execute(query)]
                        over = next(((row.id,) for row in found if not row.is_alive(now)), None)
                    if over is not None:
                        remove(connection, key)
                        ids.append(over[0])
            yield ids

    def _prune_some(self) -> None:
        """Delete some of the runs that are not to be kept any more, now and then, and never for long."""
        if self._keep is None or time.monotonic() < self._prune_at or not self._pruning.acquire(blocking=False):
            return
        try:
            with suppress(JournalError):  # the next run that records something is told
                ended = next(self._pruned(time.time() - self._keep.total_seconds()), list[str]())
                self._prune_at = 0.0 if ended else time.monotonic() + _PRUNE_EVERY_S
        finally:
            self._pruning.release()

    def close(self) -> None:
        """Close all connections, and end the journal's thread. A journal in memory is gone then.

        What a run needs that is being executed is closed when it ends.
        """
        self._heartbeats.close()
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _reader(self, connection: Connection) -> Reader:
        return Reader(connection, self._counted, self.database.now(connection), self.database.last_commit)

    def _codec_of_run(self, connection: Connection, key: int, run_id: str) -> Codec:
        """Return the codec that a run was recorded with."""
        name = connection.execute(select(runs.c.codec).where(runs.c.key == key)).scalar_one()
        if name == self._codec.name:
            return self._codec
        try:
            return codec_of(name)
        except ValueError:
            raise JournalError(
                f"run {run_id!r} was recorded with codec {name!r} and not {self._codec.name!r}: answer it in a program "
                f"that opens the journal with the codec of that name: Journal(..., codec=...)"
            ) from None

    def _thread_of(self, run_id: str) -> int | None:
        if not self._heartbeats.is_own:
            self._heartbeats = HeartbeatThread()
        try:
            return self._heartbeats.join()
        except RuntimeError as error:
            raise JournalError(
                f"run {run_id!r}: no thread could be started to keep its lease in the journal: {error}"
            ) from error

    def _begun_with(self, token: str, thread: int | None, beginning: Beginning) -> Recorder:
        channel = self.database.join(create=True)
        try:
            return self._begun(Held(channel, TOP, token, beginning.run_id, thread), beginning)
        except BaseException as error:
            if not isinstance(error, ProcessionError):  # Ctrl-C, say, which may have come when the lease was written
                free = {"token": None, "status": "failed", "error": described(error)}
                with suppress(JournalError), channel.transaction() as connection:
                    connection.execute(update(runs).where(runs.c.token == token).values(**free))
            self.database.part(channel)
            raise

    def _begun(self, held: Held, beginning: Beginning) -> Recorder:
        def enter(_again: bool) -> tuple[int, Entry]:
            with held.channel.transaction() as connection:
                return beginning.enter(connection, held, self.database.now(connection))

        key, entry = held.persist(enter)
        if beginning.parent == TOP:
            held.key = key
        return Recorder(
            self.database,
            self._heartbeats,
            held,
            key,
            beginning.run_id,
            codec=self._codec,
            texts=self._texts,
            shape=beginning.definition.shape,
            entry=entry,
            allow_changes=beginning.allow_changes,
            begin=self.begin,
        )


def _check(run_id: str) -> None:
    if not isinstance(run_id, str):
        raise TypeError(f"a run id is a string, and not {type(run_id).__name__}")
    if not run_id or len(run_id) > ID_LIMIT:
        raise ValueError(
            f"a run id has 1 to {ID_LIMIT} characters, and this one has {len(run_id):,}: {shown(run_id, 60)}"
        )
    if "\0" in run_id or any("\ud800" <= character <= "\udfff" for character in run_id):
        raise ValueError(f"the run id {run_id!a} has characters that no database keeps")


def _top(connection: Connection, run_id: str) -> RunRow:
    query = select(*RUN).where(runs.c.parent == TOP, runs.c.id == run_id).with_for_update()
    row = connection.execute(query).one_or_none()
    if row is None:
        raise RunUnknownError(f"the journal has no run {run_id!r}")
    return run_row(row)
