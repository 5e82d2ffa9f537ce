"""The committer of a SQLite database: the one process that writes it, for all shards and doors.

    python -m actors.journal.committer --url sqlite:///waybill.db --parent PID

It brings the schema up to date, listens on a Unix socket beside the database (mode 0600, with a secret in a file of mode
0600), gathers what its clients send, and group-commits it (writer.py). It ends when the given parent has ended, and refuses to
start where another committer has the database.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import secrets
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Connection as SqlConnection

from actors.journal import allocator, cycles
from actors.journal.accepting import accepted
from actors.journal.answers import Answers
from actors.journal.database import sqlite_path
from actors.journal.migrate import migrate
from actors.journal.store import key_path, short_address, socket_path
from actors.journal.writer import GroupWriter
from actors.rules.errors import InvalidArgument, Unavailable

log = logging.getLogger(__name__)

READY = "committer ready"
"""Printed on standard output once clients can connect."""

FRAME = struct.Struct("!i")

CHECKPOINT_BYTES, CHECKPOINT_EVERY_S = 1 << 20, 0.3
"""When nothing waits, and so much was written since the last time, the write-ahead log is moved into the database; so often at most."""
PORTION_BYTES = 8 << 20
"""Where more is written in that time, it is left to SQLite, which moves the log when it has grown large: a longer wait, but fewer."""


def lock(url: str) -> int:
    """Hold the database's committer lock for the life of this process. Raises BlockingIOError where another holds it."""
    path = sqlite_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(path.with_name(path.name + ".committer.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        raise
    os.truncate(held, 0)
    os.write(held, f"{os.getpid()}\n".encode())
    return held


def make_key(path: Path) -> bytes:
    """The secret of this database's clients, made once."""
    if not path.exists():
        part = path.with_name(path.name + f".{os.getpid()}")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
        os.replace(part, path)
    path.chmod(0o600)
    return path.read_bytes()


class Committer:
    """Accepts clients, hands their requests to the group writer, and its outcomes back to them."""

    def __init__(self, url: str) -> None:
        """The caller holds the lock and has migrated the database."""
        self._closed = False
        self._moved = 0  # of what the writer has written, by checkpoints when nothing waited
        self._looked, self._looked_at = 0, 0.0  # how much it was when that was looked at last, and when (monotonic)
        self._writer = GroupWriter(url, name="committer-writer", idle=self._checkpoint)
        self._key = make_key(key_path(url))
        path = socket_path(url)
        path.unlink(missing_ok=True)  # of a committer that was killed: ours is the lock
        address, self._folder = short_address(path)
        before = os.umask(0o177)
        try:
            self._listener = Listener(address, family="AF_UNIX", backlog=64)
        finally:
            os.umask(before)
        threading.Thread(target=self._accept, name="committer-accept", daemon=True).start()

    def close(self) -> None:
        """Take no more, write what waits."""
        self._closed = True
        self._listener.close()
        self._writer.close()
        if self._folder is not None:
            os.close(self._folder)

    def _accept(self) -> None:
        while (client := accepted(self._listener.accept, lambda: self._closed, log)) is not None:
            try:
                threading.Thread(target=self._serve, args=(client,), name="committer-client", daemon=True).start()
            except RuntimeError as error:
                log.warning("cannot serve a client: %s", error)
            del client  # it is the thread's alone: who is not served is hung up on

    def _serve(self, client: Connection) -> None:
        """Read one client's requests in order. Answers go out as the writer gives them; a client that does not read stops nobody else."""
        try:
            deliver_challenge(client, self._key)  # here, not in accept: a frozen client holds up no other
            answer_challenge(client, self._key)
        except (AuthenticationError, OSError, EOFError) as error:
            log.warning("refused a client: %s", error)
            client.close()
            return
        try:
            answers = Answers(socket.fromfd(client.fileno(), socket.AF_UNIX, socket.SOCK_STREAM), _packed)
        except OSError as error:  # out of descriptors, perhaps
            log.warning("refused a client: %s", error)
            client.close()
            return
        try:
            while True:
                number, data = int.from_bytes(client.recv_bytes()), client.recv_bytes()
                try:
                    payload = ForkingPickler.loads(data)
                except Exception as error:
                    answers.put(number, InvalidArgument(f"the committer cannot read it: {error!r}", field="arguments"))
                    continue
                self._writer.submit(payload, partial(answers.put, number))
        except (OSError, EOFError, Unavailable):
            pass
        finally:
            answers.close()
            client.close()

    def _checkpoint(self, connection: SqlConnection, rested: bool) -> None:
        """When nothing waits, or nothing has come for a while (`rested`): shorten the log."""
        now, written = time.monotonic(), self._writer.bytes_written
        if now - self._looked_at < CHECKPOINT_EVERY_S:
            return
        portion = written - self._looked
        self._looked, self._looked_at = written, now
        if written - self._moved >= CHECKPOINT_BYTES and (rested or portion < PORTION_BYTES):
            self._moved = written
            raw = connection.connection.driver_connection
            assert raw is not None
            raw.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def _packed(number: int, outcome: Any) -> bytes:
    """As `Connection.send` frames (number, outcome): its length as a big-endian int32, then its pickle."""
    try:
        data = ForkingPickler.dumps((number, outcome))
    except Exception as error:
        data = ForkingPickler.dumps((number, InvalidArgument(f"the answer cannot be sent: {error!r}", field="function")))
    return FRAME.pack(len(data)) + bytes(data)


def _outlived(parent: psutil.Process) -> bool:
    """Whether the process has ended; its pid may have been given to another since."""
    try:
        return not parent.is_running() or bool(parent.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to end or until the parent has ended. Exit code 3: another committer has the database."""
    parser = argparse.ArgumentParser(prog="python -m actors.journal.committer", description=__doc__)
    parser.add_argument("--url", required=True, help="sqlite:///path of the database")
    parser.add_argument("--parent", type=int, default=0, help="end when this process has ended")
    options = parser.parse_args(arguments)
    sys.setswitchinterval(0.0005)  # a request that came must not wait for milliseconds while another is written
    logging.basicConfig(level=logging.INFO, format="%(asctime)s committer %(levelname)s %(message)s")
    ended = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: ended.set())
    try:
        parent = psutil.Process(options.parent) if options.parent else None
    except psutil.NoSuchProcess:
        return 0
    try:
        held = lock(options.url)
    except BlockingIOError:
        print("another committer has this database", file=sys.stderr)
        return 3
    migrate(options.url)
    committer = Committer(options.url)
    allocator.give_back_regularly()
    cycles.look_seldom()
    print(READY, flush=True)
    while not ended.wait(0.5):
        if parent is not None and _outlived(parent):
            break
    committer.close()
    os.close(held)
    return 0


if __name__ == "__main__":
    sys.exit(main())
