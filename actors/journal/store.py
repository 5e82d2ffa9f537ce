"""The way from a shard or a door to the database: reads through `engine`, writes through `commit`.

On SQLite the writes go to the committer process over a Unix socket; on PostgreSQL the store has its own writing connection and
thread. Either way commits of one store are applied in the order given, and a future is fulfilled only when its commit is durable.

A store sends again what has no answer when the committer or the server comes back: a commit is recognised by its journal
sequence or its commit key (which `commit` gives where there is none) and is not applied twice.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from sqlalchemy import Engine

from actors.journal.database import is_sqlite, reader, sqlite_path
from actors.journal.prepared import CommitResult, PreparedCommit
from actors.journal.writer import RETRY_S, Call, GroupWriter, Payload
from actors.rules.errors import InvalidArgument, Unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

PATIENCE_S = 15.0
"""A commit that found no committer for so long is refused as unavailable; its outcome is then unknown, it may be sent again."""


class Store(Protocol):
    """What a shard or a door needs of the database."""

    url: str
    engine: Engine
    """For reads only."""

    def commit(self, commit: PreparedCommit) -> Future[CommitResult]:
        """Write all of it or nothing. The future raises Superseded (step down), StorageFull, Unavailable (outcome unknown: send the
        same commit again), StaleEtag, AlreadyExists, NotFound, FailedPrecondition or InvalidArgument (nothing was written)."""

    def write(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """Run function(connection, *arguments) in a writing transaction. It must be a module's function and bear being run twice.

        The future raises InvalidArgument where the function, its arguments or what it returns cannot be pickled.
        """

    def close(self) -> None:
        """Let what was given be written, then close."""


def open_store(url: str, *, patience_s: float = PATIENCE_S, readers: int = 4) -> Store:
    """The store of a database; on SQLite its committer should be running, or come up within `patience_s`."""
    if is_sqlite(url):
        return CommitterStore(url, patience_s=patience_s, readers=readers)
    return PostgresStore(url, readers=readers)


def socket_path(url: str) -> Path:
    """The committer's socket, beside the database."""
    path = sqlite_path(url)
    return path.with_name(path.name + ".committer.sock")


def key_path(url: str) -> Path:
    """The secret by which the committer knows its clients: readable by the database's owner alone."""
    path = sqlite_path(url)
    return path.with_name(path.name + ".committer.key")


def short_address(path: Path) -> tuple[str, int | None]:
    """An address for a Unix socket, and the folder's descriptor to close afterwards where its path is too long for one."""
    if len(os.fsencode(path)) < 100:
        return str(path), None
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    return f"/proc/self/fd/{folder}/{path.name}", folder


def with_key(commit: PreparedCommit) -> PreparedCommit:
    """The commit, recognisable when it is sent again."""
    if commit.journal is None and commit.commit_key is None:
        commit.commit_key = uuid.uuid4().hex
    return commit


def fulfil(future: Future[Any], outcome: Any) -> None:
    """Give a future its outcome: an exception is raised there."""
    if future.cancelled() or future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


class PostgresStore:
    """A writing connection of its own, on a thread of its own; what waits goes in one transaction."""

    def __init__(self, url: str, *, readers: int = 4) -> None:
        self.url = url
        self.engine = reader(url, connections=readers)
        self._writer = GroupWriter(url)

    def commit(self, commit: PreparedCommit) -> Future[CommitResult]:
        """See Store."""
        return cast("Future[CommitResult]", self._submit(with_key(commit)))

    def write(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """See Store."""
        return cast("Future[T]", self._submit(Call(function, arguments)))

    def _submit(self, payload: Payload) -> Future[Any]:
        future: Future[Any] = Future()
        self._writer.submit(payload, lambda outcome: fulfil(future, outcome))
        return future

    def close(self) -> None:
        """See Store."""
        self._writer.close()
        self.engine.dispose()


class _Waiting:
    """A request without an answer."""

    __slots__ = ("future", "payload", "since")

    def __init__(self, payload: Payload, since: float) -> None:
        self.payload, self.since = payload, since
        self.future: Future[Any] = Future()


class CommitterStore:
    """Client of the committer. One thread connects and sends, another receives; after a broken connection all that waits is sent again."""

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S, readers: int = 4) -> None:
        self.url = url
        self.engine = reader(url, connections=readers)
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._waiting: dict[int, _Waiting] = {}  # by number, in the order given
        self._unsent: list[int] = []
        self._next = 0
        self._lost = True  # no connection, or one that broke
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="committer-client", daemon=True)
        self._thread.start()

    def commit(self, commit: PreparedCommit) -> Future[CommitResult]:
        """See Store."""
        return cast("Future[CommitResult]", self._submit(with_key(commit)))

    def write(self, function: Callable[..., T], *arguments: Any) -> Future[T]:
        """See Store."""
        return cast("Future[T]", self._submit(Call(function, arguments)))

    def close(self) -> None:
        """See Store."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self.engine.dispose()

    def _submit(self, payload: Payload) -> Future[Any]:
        with self._changed:
            if self._closing:
                raise Unavailable("the store is closed", retry_after_s=RETRY_S)
            request = _Waiting(payload, time.monotonic())
            self._waiting[self._next] = request
            self._unsent.append(self._next)
            self._next += 1
            self._changed.notify_all()
        return request.future

    def _run(self) -> None:
        pause = 0.02
        while True:
            connection = self._connect()
            if connection is None:
                self._refuse_the_impatient()
                with self._changed:
                    if self._closing and not self._waiting:
                        return
                    self._changed.wait(pause)
                pause = min(2 * pause, 1.0)
                continue
            pause = 0.02
            with self._changed:
                self._lost = False
                self._unsent = sorted(self._waiting)
            receiver = threading.Thread(target=self._receive, args=(connection,), name="committer-answers", daemon=True)
            receiver.start()
            try:
                done = self._send(connection)
            except (OSError, EOFError) as error:
                log.warning("lost the committer: %s", error)
                done = False
            with self._changed:
                self._lost = True
            _break(connection)
            receiver.join()
            if done:
                return

    def _connect(self) -> Connection | None:
        address, folder = None, None
        try:
            key = key_path(self.url).read_bytes()
            address, folder = short_address(socket_path(self.url))
            return Client(address, family="AF_UNIX", authkey=key)
        except (OSError, EOFError, AuthenticationError):
            return None
        finally:
            if folder is not None:
                os.close(folder)

    def _refuse_the_impatient(self) -> None:
        """Refuse what has waited too long; the oldest stand first."""
        now = time.monotonic()
        with self._changed:
            late = [number for number, request in self._waiting.items() if now - request.since > self._patience_s or self._closing]
            refused = [self._waiting.pop(number) for number in late]
        for request in refused:
            fulfil(request.future, Unavailable("the committer does not answer", retry_after_s=RETRY_S))

    def _send(self, connection: Connection) -> bool:
        """Send what is unsent, as it comes. True when the store closes and all is answered, False when the connection is lost."""
        while True:
            with self._changed:
                while not self._unsent and not self._lost and not (self._closing and not self._waiting):
                    self._changed.wait()
                if self._lost:
                    return False
                if not self._unsent:
                    return True
                numbers, self._unsent = self._unsent, []
                requests = [(number, self._waiting[number].payload) for number in numbers if number in self._waiting]
            for number, payload in requests:
                try:
                    data = ForkingPickler.dumps(payload)
                except Exception as error:  # anything may be raised by what does not bear it; it is this request's, not the connection's
                    self._refuse(number, InvalidArgument(f"cannot be sent to the committer: {error!r}", field="arguments"))
                    continue
                connection.send_bytes(number.to_bytes(8))  # apart, so that what cannot be read there can be answered
                connection.send_bytes(data)

    def _refuse(self, number: int, error: InvalidArgument) -> None:
        with self._changed:
            request = self._waiting.pop(number, None)
            self._changed.notify_all()
        if request is not None:
            fulfil(request.future, error)

    def _receive(self, connection: Connection) -> None:
        try:
            while True:
                number, outcome = connection.recv()
                with self._changed:
                    request = self._waiting.pop(number, None)
                    self._changed.notify_all()
                if request is not None:
                    fulfil(request.future, outcome)
        except (OSError, EOFError):
            pass
        except Exception:
            log.exception("an answer of the committer could not be read")
        with self._changed:
            self._lost = True
            self._changed.notify_all()


def _break(connection: Connection) -> None:
    """End both directions at once, so that the receiving thread wakes."""
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as raw:
            raw.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    connection.close()
