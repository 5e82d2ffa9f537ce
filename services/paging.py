"""Page tokens: the key of the last row seen, bound to the question that was asked.

A token is base64 of JSON [digest of the question, key...]. It is opaque to clients and not a secret: it gives nothing that the
question itself would not give, so it is checked for belonging, not signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from actors.rules.errors import InvalidArgument

SIZE_DEFAULT = 50
SIZE_MAX = 1000

Row = TypeVar("Row")


class Page:
    """What a list request asks for: `size` rows after the key `after` (None: from the start).

    Ask the database for `limit` rows (one more than the page), then `cut` gives the page and its next token.
    """

    def __init__(self, request: Any, key: Sequence[type]) -> None:
        if request.page_size < 0:
            raise InvalidArgument("must be 0 or more", field="page_size", value=request.page_size)
        self.size: int = min(request.page_size or SIZE_DEFAULT, SIZE_MAX)
        self._digest = _digest(request)
        self.after: tuple[Any, ...] | None = _read(request.page_token, self._digest, key) if request.page_token else None

    @property
    def limit(self) -> int:
        """Rows to ask for: the page and one more, which tells that there is a next page."""
        return self.size + 1

    def cut(self, rows: Sequence[Row], key: Any) -> tuple[Sequence[Row], str]:
        """The rows of this page, and the token of the next ("" where this is the last). `key(row)` is the tuple to go on after."""
        if len(rows) <= self.size:
            return rows, ""
        page = rows[: self.size]
        body = json.dumps([self._digest, *key(page[-1])], separators=(",", ":"))
        return page, base64.urlsafe_b64encode(body.encode()).decode()


def _digest(request: Message) -> str:
    """What makes two questions the same: the request's type and all its fields but the paging ones."""
    question = type(request)()
    question.CopyFrom(request)
    question.ClearField("page_token")
    question.ClearField("page_size")
    name = request.DESCRIPTOR.full_name.encode()
    return hashlib.sha256(name + b"\0" + question.SerializeToString(deterministic=True)).hexdigest()[:16]


def _read(token: str, digest: str, key: Sequence[type]) -> tuple[Any, ...]:
    try:
        body = json.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
    except (binascii.Error, UnicodeError, ValueError, RecursionError):
        raise InvalidArgument("is not a token that was given by an earlier answer", field="page_token", value=token) from None
    fits = isinstance(body, list) and len(body) == 1 + len(key) and all(type(a) is b for a, b in zip(body[1:], key, strict=True))
    if not fits or body[0] != digest:
        raise InvalidArgument("belongs to another question: send it with the fields it was given for", field="page_token", value=token)
    return tuple(body[1:])
