"""What a process has freed is given back to its system.

The C library keeps the memory of large columns that were freed, for each of a process's threads, however long nobody needs it: its bound
of what it keeps grows to 64 MB a heap, and Ray's threads have made a heap each before our code runs. A shard of 250,000 tags kept
750 MB in 32 of them.
"""

from __future__ import annotations

import ctypes
import threading
import time

EVERY_S = 3.0
"""The pages of what is free between what is used are given back so often."""

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX = -3, -1, -8  # of malloc.h
_MAPPED_BYTES = 4 << 20
"""What is so large is mapped by itself, and given back when it is freed. Much less would cost the columns of every batch a page fault
for each of their pages."""
_KEPT_BYTES = 1 << 20
"""So much that is free is kept at the end of each heap."""
_ARENAS = 2
"""Threads that come from now on share so many heaps. More of them serve many threads that allocate at once; ours take turns (the
interpreter's lock). Where Ray is ours, its processes are told so from their start (`cluster.ray_node`)."""


def give_back_regularly() -> None:
    """From now on, as long as the process lives. Does nothing where the C library is not glibc."""
    try:
        library = ctypes.CDLL("libc.so.6")
        trim = library.malloc_trim
        for name, value in ((_ARENA_MAX, _ARENAS), (_MMAP_THRESHOLD, _MAPPED_BYTES), (_TRIM_THRESHOLD, _KEPT_BYTES)):
            library.mallopt(name, value)
    except (OSError, AttributeError):
        return

    def work() -> None:
        while True:
            time.sleep(EVERY_S)
            trim(0)

    threading.Thread(target=work, name="give back memory", daemon=True).start()
