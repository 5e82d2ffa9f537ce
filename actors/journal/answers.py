"""Answers on a socket, from any thread: in their order, at once where the other end takes them.

Giving an answer to a thread of its own costs two changes of threads, as much as a small answer itself; a thread is there only for an end
that does not read, so that it holds up nobody who answers.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

log = logging.getLogger("waybill.answers")


class Answers:
    """The answering half of a socket, which it owns. packed(number, answer): the bytes of the answer to a request; must not raise."""

    def __init__(self, end: socket.socket, packed: Callable[[int, Any], bytes]) -> None:
        self._end, self._packed = end, packed
        self._changed = threading.Condition()
        self._left: deque[memoryview] = deque()  # the first is being sent
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, number: int, answer: Any) -> None:
        """Answer a request. Never waits for the other end, and never raises: where it has gone nobody wants the answer."""
        try:
            data = memoryview(self._packed(number, answer))
            with self._changed:
                if self._closed:
                    return
                if not self._left:
                    with contextlib.suppress(BlockingIOError):
                        data = data[self._end.send(data, socket.MSG_DONTWAIT) :]
                    if not data:
                        return
                self._left.append(data)
                if self._thread is None:
                    thread = threading.Thread(target=self._send_left, name="answers", daemon=True)
                    thread.start()
                    self._thread = thread
                self._changed.notify()
        except OSError:
            self.close()
        except Exception:
            log.exception("a connection ends; its client will come again")
            self.close()

    def close(self) -> None:
        """Hang up: whoever holds the other end, and whoever reads from this one, learns of it. What is left is not sent."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            with contextlib.suppress(OSError):
                self._end.shutdown(socket.SHUT_RDWR)
            if self._thread is None:
                with contextlib.suppress(OSError):
                    self._end.close()
            self._changed.notify()

    def _send_left(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._left and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        return
                    data = self._left[0]
                self._end.sendall(data)
                with self._changed:
                    self._left.popleft()
        except OSError:
            pass  # it has gone
        finally:
            self.close()
            self._end.close()
