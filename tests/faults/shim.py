"""Flushes that fail: a shim over SQLite's own file system, for the process that installs it.

It is a copy of SQLite's default VFS whose files have another `xSync` (https://www.sqlite.org/vfs.html): while it is told to, it flushes
nothing and says SQLITE_IOERR_FSYNC. What was written before may be on the disk or not, as after a real fsync that failed.
"""

from __future__ import annotations

import _sqlite3
import ctypes
from collections.abc import Callable
from typing import Any

IOERR_FSYNC = 10 | 4 << 8
OPEN = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
SYNC = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)


class Vfs(ctypes.Structure):
    """struct sqlite3_vfs; after xOpen come 12 functions and, since version 3, another 3 that we leave as they are."""

    _fields_ = [
        ("version", ctypes.c_int),
        ("file_bytes", ctypes.c_int),
        ("path_bytes", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("app_data", ctypes.c_void_p),
        ("open", OPEN),
        ("others", ctypes.c_void_p * 15),
    ]


class Methods(ctypes.Structure):
    """struct sqlite3_io_methods, of version 3."""

    _fields_ = [
        ("version", ctypes.c_int),
        ("close", ctypes.c_void_p),
        ("read", ctypes.c_void_p),
        ("write", ctypes.c_void_p),
        ("truncate", ctypes.c_void_p),
        ("sync", SYNC),
        ("others", ctypes.c_void_p * 13),
    ]


_kept: list[Any] = []
"""What SQLite holds pointers to for as long as the process lives."""


def install(failing: Callable[[], bool]) -> None:
    """From now on files that SQLite opens in this process cannot be flushed while `failing()`."""
    library = ctypes.CDLL(getattr(_sqlite3, "__file__", None))  # the SQLite that Python's sqlite3 uses
    library.sqlite3_vfs_find.restype = ctypes.POINTER(Vfs)
    genuine = library.sqlite3_vfs_find(None)
    assert genuine.contents.version == 3, "another version of SQLite's VFS than this shim knows"
    shim = Vfs.from_buffer_copy(genuine.contents)
    tables: dict[int, Methods] = {}

    def shimmed(methods: int) -> int:
        """The same methods, but for xSync."""
        if methods not in tables:
            table = Methods.from_buffer_copy(ctypes.cast(methods, ctypes.POINTER(Methods)).contents)
            flush = ctypes.cast(table.sync, SYNC)

            def synced(file: int, flags: int) -> int:
                try:
                    return IOERR_FSYNC if failing() else int(flush(file, flags))
                except Exception:  # what a callback raises would be told as 0, that is: flushed
                    return IOERR_FSYNC

            table.sync = SYNC(synced)
            tables[methods] = table
            _kept.extend((table.sync, flush))
        return ctypes.addressof(tables[methods])

    def open_file(_: int, name: int, file: int, flags: int, out_flags: int) -> int:
        code = int(genuine.contents.open(ctypes.addressof(genuine.contents), name, file, flags, out_flags))
        place = ctypes.cast(file, ctypes.POINTER(ctypes.c_void_p))  # a file begins with the pointer to its methods
        if code == 0 and place[0]:
            place[0] = shimmed(place[0])
        return code

    shim.name = b"waybill-faults"
    shim.open = OPEN(open_file)
    _kept.extend((shim, tables, genuine, shim.open))
    assert library.sqlite3_vfs_register(ctypes.byref(shim), 1) == 0
