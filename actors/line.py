"""A shard's line: the doors on its own machine send it readings over a socket, and its answers come back on it.

A call of a Ray actor costs some 4 ms of processors whatever it carries (`python -m bench.ray_call`), which at a hundred small messages
a second is more than everything else together; a message on a socket costs a twentieth. All other calls, and those of other machines,
are Ray's.

The socket has a name in Linux's abstract name space: nothing stays behind when its process is killed. What travels is pickled, so either
end asks the kernel who the other is, and talks only to processes of its own user.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import secrets
import socket
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from actors.journal.accepting import accepted
from actors.journal.answers import Answers

log = logging.getLogger("waybill.line")

REQUEST = struct.Struct("<IQq")
"""Before the bytes of a request: how many they are, the request's number, when it was received (microseconds)."""
ANSWER = struct.Struct("<IQ")
"""Before the pickle of an answer, which may be an exception: how many bytes it has, the request's number."""
PEER = struct.Struct("3i")
"""What the kernel says of the process at the other end: its pid, its user, its group."""
AVAILABLE = sys.platform == "linux"

Take = Callable[[bytes, int, Callable[[Any], None]], None]
"""take(packed, received_us, answer): does the work and calls `answer` once, from any thread, perhaps later."""


def same_user(end: Any) -> bool:
    """Whether the process at the other end of a Unix socket belongs to our user."""
    user: int = PEER.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))[1]
    return user == os.getuid()


class Line:
    """The listening end. Requests of one client are taken in their order, on a thread of its own; answers go back as they come."""

    def __init__(self, take: Take) -> None:
        self._take = take
        self._closed = False
        self.address = f"\0waybill-line-{os.getpid()}-{secrets.token_hex(8)}"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(self.address)
        self._listener.listen()
        threading.Thread(target=self._accept, name="line-accept", daemon=True).start()

    def close(self) -> None:
        """Accept no more."""
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while (found := accepted(self._listener.accept, lambda: self._closed, log)) is not None:
            client, _ = found
            del found
            try:
                if same_user(client):
                    threading.Thread(target=self._serve, args=(client,), name="line", daemon=True).start()
                    del client  # it is the thread's alone: who is not served is hung up on
                    continue
                log.warning("refused a process of another user")
            except (OSError, RuntimeError) as error:
                log.warning("cannot serve a client: %s", error)
            client.close()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.ExitStack() as held:
            try:
                answers = Answers(client.dup(), _packed)
                held.callback(answers.close)
                requests = held.enter_context(client.makefile("rb"))
                while True:
                    size, number, received_us = REQUEST.unpack(_exactly(requests, REQUEST.size))
                    self._take(_exactly(requests, size), received_us, partial(answers.put, number))
            except EOFError:
                pass
            except OSError as error:  # out of descriptors, perhaps
                log.warning("a line ends: %s", error)
            except Exception:
                log.exception("a line ends; its client will come again")


def _exactly(requests: BinaryIO, size: int) -> bytes:
    data = requests.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _packed(number: int, answer: Any) -> bytes:
    try:
        data = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
    except Exception:
        data = pickle.dumps(RuntimeError(f"{type(answer).__name__} cannot be sent"), pickle.HIGHEST_PROTOCOL)
    return ANSWER.pack(len(data), number) + data
