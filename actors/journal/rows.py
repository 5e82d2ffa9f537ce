"""Rows in and out of statements: records to plain values, upserts on both databases, database errors to domain errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import Connection, Table, delete, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import configure_mappers
from sqlalchemy.orm.instrumentation import manager_of_class
from sqlalchemy.sql import Executable
from sqlmodel import SQLModel

from actors.journal.columns import metadata
from actors.journal.once import Once, run
from actors.journal.prepared import Key
from actors.rules.errors import AlreadyExists, DomainError, FailedPrecondition, InvalidArgument, NotFound, StaleEtag

Model = TypeVar("Model", bound=SQLModel)

CHUNK = 500
"""How many values one IN (...) names at most."""

_ORDER = {table.name: position for position, table in enumerate(metadata.sorted_tables)}


@contextmanager
def savepoint(connection: Connection) -> Iterator[None]:
    """A savepoint inside the transaction: an exception takes back what was written since, and goes on.

    Spelt out, because SQLAlchemy compiles its own savepoints anew each time, which costs more than the statements inside.
    After an error of the connection taking back fails, too; then the connection's error is raised.
    """
    run(connection, "SAVEPOINT one")
    try:
        yield
    except BaseException as error:
        try:
            run(connection, "ROLLBACK TO SAVEPOINT one")
            run(connection, "RELEASE SAVEPOINT one")
        except DBAPIError:
            if isinstance(error, DBAPIError):
                raise error from None  # the first one tells why: disk full, connection lost
            raise
        raise
    run(connection, "RELEASE SAVEPOINT one")


def table_of(model: type[SQLModel]) -> Table:
    """The table behind a record class."""
    table: Table = model.__table__  # type: ignore[attr-defined]
    return table


@lru_cache(maxsize=64)
def _names(model: type[SQLModel]) -> tuple[tuple[str, ...], Callable[[Any], Any], bool]:
    table = table_of(model)
    names = tuple(column.name for column in table.columns)
    numbered = any(column.autoincrement is True or column.name == "id" for column in table.primary_key)
    together = itemgetter(*names) if len(names) > 1 else lambda held: (held[names[0]],)
    return names, together, numbered and table.name in ("mailbox", "outbox")


@lru_cache(maxsize=64)
def _defaults(model: type[SQLModel]) -> tuple[dict[str, Any], dict[str, Callable[[], Any]]]:
    configure_mappers()  # else a record made before the first call of a class has no attributes yet
    fields = model.model_fields
    made = {name: field.default_factory for name, field in fields.items() if field.default_factory is not None}
    plain = {name: None if field.is_required() else field.default for name, field in fields.items() if name not in made}
    return plain, made  # type: ignore[return-value]


def record(model: type[Model], given: Mapping[str, Any]) -> Model:
    """A record from column values, as if read from its table: ten times faster than calling the class, which tracks every attribute.

    What is not given has its default. Nothing is checked.
    """
    plain, made = _defaults(model)
    one: Model = manager_of_class(model).new_instance()
    held = one.__dict__
    held.update(plain)
    for name, factory in made.items():
        if name not in given:
            held[name] = factory()
    held.update(given)
    object.__setattr__(one, "__pydantic_fields_set__", set(given))
    return one


def values(row: SQLModel) -> dict[str, Any]:
    """A record as plain column values; a key that the database gives is left out while it has none."""
    names, together, numbered = _names(type(row))
    held = row.__dict__
    try:
        found = dict(zip(names, together(held), strict=True))
    except KeyError:
        found = {name: held.get(name) for name in names}
    if numbered and found["id"] is None:
        del found["id"]
    return found


def json_values(row: SQLModel) -> dict[str, Any]:
    """A record as JSON-ready values: an absent number is null."""
    return json_ready(values(row))


def json_ready(found: Mapping[str, Any]) -> dict[str, Any]:
    """Column values as JSON-ready ones: an absent number is null."""
    return {name: None if isinstance(value, float) and value != value else value for name, value in found.items()}


def grouped(rows: Iterable[SQLModel]) -> list[tuple[Table, list[dict[str, Any]]]]:
    """Rows by table, parents before children; the order within a table is kept."""
    by_table: dict[Table, list[dict[str, Any]]] = {}
    for row in rows:
        by_table.setdefault(table_of(type(row)), []).append(values(row))
    return sorted(by_table.items(), key=lambda pair: _ORDER[pair[0].name])


@lru_cache(maxsize=256)
def upsert_statement(dialect: str, table: Table, columns: tuple[str, ...], nothing: bool = False) -> Executable:
    """INSERT ... ON CONFLICT (primary key) DO UPDATE of the given columns, or DO NOTHING."""
    statement = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    keys = [column.name for column in table.primary_key]
    changed = {name: statement.excluded[name] for name in columns if name not in keys}
    if nothing or not changed:
        return statement.on_conflict_do_nothing(index_elements=keys)
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


@lru_cache(maxsize=256)
def _upsert_once(table: Table, columns: tuple[str, ...], nothing: bool = False) -> Once:
    return Once(lambda dialect: upsert_statement(dialect, table, columns, nothing), columns)


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows over what is there. All rows have the same columns; of equal keys the later one stands."""
    if rows:
        _upsert_once(table, tuple(rows[0])).many(connection, rows)


def insert_missing(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that are not there; those that are stay as they are. All rows have the same columns."""
    if rows:
        _upsert_once(table, tuple(rows[0]), nothing=True).many(connection, rows)


def insert_with_text(table: Table, column: str, dialect: str, *, leave: str = "") -> Executable:
    """The INSERT of a row whose JSON column is given as text, in the parameter `text`; `leave`: a column that the database fills."""
    names = [one.name for one in table.columns if one.name not in (column, leave)]
    body = "CAST(:text AS JSON)" if dialect == "postgresql" else ":text"
    return text(f"INSERT INTO {table.name} ({', '.join(names)}, {column}) VALUES (:{', :'.join(names)}, {body})")


def insert_new(connection: Connection, table: Table, row: dict[str, Any]) -> None:
    """Insert one row that must not exist. Raises AlreadyExists naming table and key."""
    try:
        connection.execute(table.insert(), row)
    except IntegrityError as error:
        raise as_domain_error(error, table, row) from error


def key_clause(table: Table, key: Key) -> Any:
    """The WHERE clause that names one row."""
    columns = list(table.primary_key)
    if len(columns) != len(key):
        raise InvalidArgument(f"the key of {table.name} has {len(columns)} parts", field=table.name, value=key)
    clause = columns[0] == key[0]
    for column, part in zip(columns[1:], key[1:], strict=True):
        clause &= column == part
    return clause


def expect(connection: Connection, table: Table, key: Key, etag: int | None) -> None:
    """Hold a row for this transaction and raise NotFound or StaleEtag unless it is there with this etag."""
    column = table.c.etag if "etag" in table.c else next(iter(table.primary_key))
    found = connection.execute(select(column).where(key_clause(table, key)).with_for_update()).first()
    name = "/".join(str(part) for part in key)
    if found is None:
        raise NotFound("is not there", field=table.name, value=name)
    if etag is not None and found[0] != etag:
        raise StaleEtag(f"has changed since: its etag is {found[0]}, not {etag}; read it again", field="etag", value=etag)


def remove(connection: Connection, table: Table, key: Key) -> None:
    """Delete one row if it is there."""
    connection.execute(delete(table).where(key_clause(table, key)))


def chunks(items: Sequence[Any]) -> Iterable[Sequence[Any]]:
    """Slices short enough for one IN (...)."""
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


def as_domain_error(error: BaseException, table: Table | None = None, row: Mapping[str, Any] | None = None) -> DomainError:
    """What a refused statement means to the caller. Only for errors that are about the rows, not about the connection."""
    original = error.orig if isinstance(error, DBAPIError) else error
    text = str(original).strip().splitlines()[0] if str(original).strip() else type(original).__name__
    state = getattr(original, "sqlstate", None)
    field = table.name if table is not None else ""
    value = "/".join(str(row.get(column.name)) for column in table.primary_key) if table is not None and row is not None else ""
    if isinstance(error, IntegrityError):
        if state == "23503" or "FOREIGN KEY" in text:
            return FailedPrecondition(f"names a row that is not there, or is named by one that is: {text}", field=field, value=value)
        if state == "23505" or "UNIQUE" in text or "PRIMARY KEY" in text:
            return AlreadyExists(f"is there already: {text}", field=field, value=value)
    return InvalidArgument(f"cannot be written: {text}", field=field, value=value)
