"""What can be wrong with a request, as data: every door turns these into its own protocol's errors.

Each error names the field, the value and the rule, so that the caller can mend the request without asking us.
"""

from __future__ import annotations


class DomainError(Exception):
    """A request that Waybill refuses. `field`, `value` and `rule` say what, with what, and why.

    `reason` is a stable upper-case word for programs (google.rpc.ErrorInfo.reason); the message is for people.
    """

    reason = "INVALID"

    def __init__(self, rule: str, *, field: str = "", value: object = "", retry_after_s: float | None = None) -> None:
        self.rule = rule
        self.field = field
        self.value = str(value)[:128]
        self.retry_after_s = retry_after_s
        super().__init__(f"{field}: {rule} (got {self.value!r})" if field else rule)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by attributes: errors cross Ray process borders."""
        return (_rebuild, (type(self), self.rule, self.field, self.value, self.retry_after_s))


def _rebuild(kind: type[DomainError], rule: str, field: str, value: str, retry_after_s: float | None) -> DomainError:
    return kind(rule, field=field, value=value, retry_after_s=retry_after_s)


class InvalidArgument(DomainError):
    """The request is wrong by itself, whatever the state of the system."""

    reason = "INVALID_ARGUMENT"


class NotFound(DomainError):
    """The request names something that is not there."""

    reason = "NOT_FOUND"


class AlreadyExists(DomainError):
    """The request creates something that is there already, with other content."""

    reason = "ALREADY_EXISTS"


class StaleEtag(DomainError):
    """The caller's etag is not the current one: read again, then decide again."""

    reason = "STALE_ETAG"


class FailedPrecondition(DomainError):
    """The state of the named thing does not allow the request."""

    reason = "FAILED_PRECONDITION"


class CustodyOverlap(FailedPrecondition):
    """The tag rides on another carrier in a part of the interval; the rule names which."""

    reason = "CUSTODY_OVERLAP"


class OutOfRange(DomainError):
    """A cursor or page token that is past or before what exists."""

    reason = "OUT_OF_RANGE"


class Overloaded(DomainError):
    """What is in flight has reached its bound; nothing was taken. Retry after `retry_after_s`."""

    reason = "OVERLOADED"


class StorageFull(DomainError):
    """The database cannot grow; nothing was taken."""

    reason = "STORAGE_FULL"


class Unavailable(DomainError):
    """A part that is needed is starting, moving or has lost its right to write; retry."""

    reason = "UNAVAILABLE"


class Superseded(Unavailable):
    """This owner's epoch is no longer the shard's: another owner has taken over; it must step down."""

    reason = "SUPERSEDED"
