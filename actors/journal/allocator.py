"""What a process has freed is given back to its system.

The C library keeps the memory of large columns that were freed, for each of a process's threads, however long nobody needs it. A shard
that had sorted its history once kept 100 MB more than it used.
"""

from __future__ import annotations

import ctypes
import threading
import time

EVERY_S = 3.0

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
_ARENAS = 2
"""Threads share so many heaps. More of them serve many threads that allocate at once; ours take turns (the interpreter's lock)."""


def give_back_regularly() -> None:
    """From now on, as long as the process lives. Does nothing where the C library is not glibc."""
    try:
        library = ctypes.CDLL("libc.so.6")
        trim = library.malloc_trim
        library.mallopt(_ARENA_MAX, _ARENAS)
    except (OSError, AttributeError):
        return

    def work() -> None:
        while True:
            time.sleep(EVERY_S)
            trim(0)

    threading.Thread(target=work, name="give back memory", daemon=True).start()
