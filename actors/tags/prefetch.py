"""Having memory fetched before it is needed.

Where every reading of a batch is another tag's, the rows of each are somewhere else in hundreds of megabytes, and a kernel that takes them
one after the other waits for memory most of its time (bench: a million tags). But it knows which come next.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

AHEAD = 8
"""How many rows ahead is soon enough, and little enough to be still in the cache then."""
LINE = 64
"""Bytes that are fetched at once."""


@intrinsic  # type: ignore[untyped-decorator, unused-ignore]
def _prefetch(_: Any, array: Any, index: Any, byte: Any) -> Any:
    """In a compiled function: have the line fetched that holds this byte of `array[index]` (of one dimension). Changes nothing, and does no
    harm where the index is none of the array."""

    def made(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        held = context.make_array(signature.args[0])(context, builder, given[0])
        word = ir.IntType(64)
        at = builder.add(builder.mul(builder.sext(given[1], word), held.itemsize), builder.sext(given[2], word))
        place = builder.inttoptr(builder.add(builder.ptrtoint(held.data, word), at), ir.IntType(8).as_pointer())
        flag = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(8).as_pointer(), flag, flag, flag])
        fetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
        builder.call(fetch, [place, flag(0), flag(3), flag(1)])  # to be read, kept in all caches, data
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), made


prefetch: Any = _prefetch
