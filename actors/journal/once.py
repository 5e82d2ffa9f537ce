"""Statements that are compiled once for a database and then run with plain values.

SQLAlchemy looks every statement up in its cache, builds its parameters anew and wraps each row, which costs several times what SQLite needs
for the work itself. The statements of the readings' way are few and always the same: their text, the order of their parameters and
what turns values into the database's and back is found once, and the text is handed to the driver within the connection's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, Boolean, Column, ColumnElement, Connection, Dialect, Executable, String, any_, bindparam, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeDecorator

from actors.journal.columns import dumps

Convert = Callable[[Any], Any]
Make = Callable[[str], Executable]
"""Given the dialect's name: the statement for it."""


def among(column: Column[Any], dialect: str, name: str = "some") -> ColumnElement[bool]:
    """`column` is one of the values given as a list in the parameter `name` (see `listed`), however many there are."""
    if dialect == "postgresql":
        return column == any_(bindparam(name, type_=postgresql.ARRAY(column.type)))
    given = func.json_each(bindparam(name, type_=String)).table_valued("value")
    return column.in_(select(given.c.value))


def listed(connection: Connection, values: Iterable[Any]) -> Any:
    """Values as the parameter that `among` compares with."""
    return list(values) if connection.dialect.name == "postgresql" else dumps(list(values))


def run(connection: Connection, text: str, parameters: Any = (), many: bool = False) -> Any:
    """Hand a text to the driver; its cursor. The driver's errors are raised as SQLAlchemy's."""
    cursor = connection.connection.cursor()
    try:
        if many:
            cursor.executemany(text, parameters)
        else:
            cursor.execute(text, parameters)
    except Exception as error:
        driver = connection.dialect.loaded_dbapi
        if not isinstance(error, driver.Error):
            raise
        raise DBAPIError.instance(text, None, error, driver.Error, dialect=connection.dialect) from error
    return cursor


class _Text:
    """A statement as one database takes it."""

    def __init__(self, statement: Any, dialect: Dialect, names: Sequence[str] | None) -> None:
        made = statement.compile(dialect=dialect, column_keys=names)
        self.text: str = made.string
        self.order: list[str] | None = list(made.positiontup) if made.positional else None
        self.convert: dict[str, Convert] = {}
        for name in made.params:
            convert = made.binds[name].type.dialect_impl(dialect).bind_processor(dialect)
            if convert is not None:
                self.convert[name] = convert
        self.back: list[tuple[int, Convert]] = []
        for at, column in enumerate(getattr(statement, "selected_columns", ())):
            if isinstance(column.type, (JSON, Boolean, TypeDecorator)):  # all else comes from the driver as it is
                convert = column.type.dialect_impl(dialect).result_processor(dialect, None)
                if convert is not None:
                    self.back.append((at, convert))

    def parameters(self, row: Mapping[str, Any]) -> Any:
        """A row as the driver takes it. Raises ValueError where a column is missing, or as the columns' types do."""
        try:
            if self.convert:
                row = {**row, **{name: convert(row[name]) for name, convert in self.convert.items()}}
            return row if self.order is None else tuple([row[name] for name in self.order])
        except KeyError as missing:
            raise ValueError(f"a row without {missing}") from None


class Once:
    """A statement made by `make` for each dialect, or the INSERT of rows with the columns `names`."""

    def __init__(self, make: Make, names: Sequence[str] | None = None) -> None:
        self._make, self._names = make, names
        self._texts: dict[str, _Text] = {}

    def _text(self, connection: Connection) -> _Text:
        dialect = connection.dialect
        text = self._texts.get(dialect.name)
        if text is None:
            text = self._texts[dialect.name] = _Text(self._make(dialect.name), dialect, self._names)
        return text

    def run(self, connection: Connection, row: Mapping[str, Any]) -> Any:
        """Run it with one set of parameters; the driver's cursor."""
        text = self._text(connection)
        return run(connection, text.text, text.parameters(row))

    def many(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Run it for each row."""
        text = self._text(connection)
        made = [text.parameters(row) for row in rows]
        if made:
            run(connection, text.text, made, many=True)

    def rows(self, connection: Connection, row: Mapping[str, Any]) -> list[list[Any]]:
        """The rows that a SELECT finds, as lists of column values."""
        text = self._text(connection)
        found = [list(one) for one in run(connection, text.text, text.parameters(row)).fetchall()]
        for at, convert in text.back:
            for one in found:
                one[at] = convert(one[at])
        return found
