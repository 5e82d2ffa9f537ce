"""Accepting clients on a socket for as long as it is open, whatever goes wrong with one of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ACCEPT_AGAIN_S = 0.1


def accepted(accept: Callable[[], T], closed: Callable[[], bool], log: logging.Logger) -> T | None:
    """The next client; None when the listener was closed. Out of descriptors, whoever waits is accepted when there are some again."""
    while not closed():
        try:
            return accept()
        except OSError as error:
            if not closed():
                log.warning("cannot accept: %s", error)
                time.sleep(ACCEPT_AGAIN_S)
    return None
