"""A destination of the outbox that is any URL: each message is one HTTP POST.

The body is JSON: {"destination", "sequence", "key", "kind", "body"}. Headers: `Idempotency-Key` (the message's key, the same at every
attempt), `Waybill-Sequence`, `Waybill-Timestamp` (seconds), and `Waybill-Signature: v1=HEX`, the HMAC-SHA-256 under the shared secret of
the timestamp, a dot and the body's bytes. Any 2xx takes the message; 400, 409, 410, 413, 415 and 422 refuse it; 401 and 403 lock us out;
all else is tried again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator, Sequence

import httpx

from services.outside import Away, Done, LockedOut, Message, Outcome, Refused

REFUSALS = frozenset({400, 409, 410, 413, 415, 422})
TIMEOUT_S = 15.0


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """What a receiver compares `Waybill-Signature` with, in constant time.

    >>> signature(b"secret", "1700000000", b"{}")[:11]
    'v1=b8569b78'
    """
    return "v1=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class Webhook:
    """See services.outside.Receiver."""

    def __init__(self, url: str, secret: bytes, *, name: str = "webhook", clock: Callable[[], float] = time.time) -> None:
        self._url, self._secret, self._name, self._clock = url, secret, name, clock
        self._http = httpx.Client(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False)

    def deliver(self, messages: Sequence[Message]) -> Iterator[Outcome]:
        """See Receiver."""
        for message in messages:
            yield self._post(message)

    def _post(self, message: Message) -> Outcome:
        told = {
            "destination": self._name,
            "sequence": message.sequence,
            "key": message.key,
            "kind": message.kind,
            "body": message.body,
        }
        body = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
        timestamp = str(int(self._clock()))
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": message.key,
            "Waybill-Sequence": str(message.sequence),
            "Waybill-Timestamp": timestamp,
            "Waybill-Signature": signature(self._secret, timestamp, body),
        }
        try:
            answer = self._http.post(self._url, content=body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Away(f"the webhook cannot be reached: {type(error).__name__}") from None
        if answer.is_success:
            return Done.BOOKED
        if answer.status_code in REFUSALS:
            return Refused(f"the webhook refuses it with HTTP {answer.status_code}: {answer.text[:200]}")
        if answer.status_code in (401, 403):
            raise LockedOut(f"the webhook answers HTTP {answer.status_code}: is the secret right?")
        raise Away(f"the webhook answers HTTP {answer.status_code}")

    def close(self) -> None:
        """See Receiver."""
        self._http.close()
