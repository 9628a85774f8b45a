"""Statements that are executed time and again, made text once."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Connection
from sqlalchemy.sql.base import Executable


class Prepared:
    """A statement that is made text once for each kind of database, and then given to the driver itself.

    For SQLAlchemy to execute it takes ten times as long as for SQLite.
    """

    def __init__(self, statement: Executable) -> None:
        self._statement = statement
        self._texts: dict[str, tuple[str, Sequence[str] | None]] = {}

    def execute(self, connection: Connection, **values: object) -> Any:
        """Execute the statement with a value for each of its `bindparam`, and return the cursor of the driver."""
        text, order = self._texts.get(connection.dialect.driver) or self._made(connection)
        cursor = connection.connection.cursor()
        cursor.execute(text, values if order is None else [values[name] for name in order])
        return cursor

    def _made(self, connection: Connection) -> tuple[str, Sequence[str] | None]:
        compiled: Any = cast("Any", self._statement).compile(dialect=connection.dialect)
        made: tuple[str, Sequence[str] | None] = str(compiled), compiled.positiontup
        self._texts[connection.dialect.driver] = made
        return made
