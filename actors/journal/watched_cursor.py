"""The cursor of PostgreSQL's writing connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from psycopg import Cursor


class WatchedCursor(Cursor[Any]):
    """A cursor after whose `executemany` PostgreSQL still ends a session that sits idle in its transaction.

    psycopg sends many rows as a pipeline that ends with Sync and Flush. PostgreSQL starts its clock (idle_in_transaction_session_timeout)
    at the Sync and stops it at the Flush: an owner that is frozen just then would hold its locks for ever. An empty query starts it again.
    """

    def executemany(self, query: Any, params_seq: Iterable[Any], *, returning: bool = False) -> None:
        """See psycopg."""
        super().executemany(query, params_seq, returning=returning)
        self.connection.execute("")
