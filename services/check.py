"""What no request may carry, checked for every RPC alike, and the small conversions between the contract and plain data.

Times are microseconds inside; `timestamp` and `time_us` go between. Enum values are words inside ("goods", "IN_TRANSIT"); `word`
and `number` go between.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from actors.rules.errors import InvalidArgument

TEXT_MAX = 64
"""Longest identifier, in characters."""
ID_MAX = 256
"""Longer is no id of anything; most have a narrower rule of their own."""
NOTE_MAX = 1024
"""Longest free text."""
LATEST_US = 4_102_444_800_000_000
"""2100-01-01 UTC, exclusive: times in requests lie before it."""
DEPTH_MAX = 16

_FLOATS = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})
_TIMESTAMP = Timestamp.DESCRIPTOR.full_name


def request(message: Message, within: str = "", depth: int = 0) -> None:
    """Refuse what is wrong wherever it stands: unknown enum numbers, NaN and infinities, times outside 1970 to 2099, ids that are none.

    Raises InvalidArgument with the path of the field ("shipment.stops[2].location.latitude_deg").
    """
    if depth > DEPTH_MAX:
        raise InvalidArgument("is nested too deeply", field=within)
    for field, value in message.ListFields():
        path = f"{within}.{field.name}" if within else field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue  # maps of text to text only
        if not field.is_repeated:
            _one(field, value, path, depth)
        elif field.message_type is not None or field.enum_type is not None or field.cpp_type in _FLOATS:
            for index, entry in enumerate(value):
                _one(field, entry, f"{path}[{index}]", depth)


def _one(field: FieldDescriptor, value: Any, path: str, depth: int) -> None:
    if field.message_type is not None:
        if field.message_type.full_name == _TIMESTAMP:
            _us(value, path)
        else:
            request(value, path, depth + 1)
    elif field.enum_type is not None:
        if value not in field.enum_type.values_by_number:
            raise InvalidArgument("is no value that this version knows", field=path, value=value)
    elif field.cpp_type in _FLOATS and not math.isfinite(value):
        raise InvalidArgument("must be a finite number", field=path, value=value)
    elif (
        field.cpp_type == FieldDescriptor.CPPTYPE_STRING
        and field.name.endswith("_id")
        and not (len(value) <= ID_MAX and value.isprintable())
    ):
        raise InvalidArgument(f"must be printable characters, {ID_MAX} at most", field=path, value=value)


def _us(value: Timestamp, path: str) -> int:
    if not 0 <= value.nanos < 1_000_000_000:
        raise InvalidArgument("nanos must lie between 0 and 999999999", field=path, value=value.nanos)
    us: int = value.seconds * 1_000_000 + value.nanos // 1000
    if not 0 <= us < LATEST_US:
        raise InvalidArgument("must lie between the years 1970 and 2099", field=path, value=value.seconds)
    return us


def time_us(message: Message, field: str, within: str = "") -> int | None:
    """The Timestamp field as microseconds since 1970 UTC; None where absent."""
    if not message.HasField(field):
        return None
    return _us(getattr(message, field), f"{within}{field}")


def interval_us(message: Message, from_field: str = "from_time", until_field: str = "until_time") -> tuple[int | None, int | None]:
    """Both ends of a half-open interval; reversed or empty: InvalidArgument."""
    from_us, until_us = time_us(message, from_field), time_us(message, until_field)
    if from_us is not None and until_us is not None and until_us <= from_us:
        raise InvalidArgument(f"must be after {from_field}", field=until_field, value=until_us)
    return from_us, until_us


def timestamp(us: int | None) -> Timestamp | None:
    """Microseconds as Timestamp; None stays None, which a message constructor takes for absent."""
    if us is None:
        return None
    seconds, rest = divmod(us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def text(value: str, field: str, *, required: bool = False, longest: int = TEXT_MAX) -> str:
    """Printable text without blanks at its ends; "" where not given and not required. Notes may have line breaks."""
    if not value:
        if required:
            raise InvalidArgument("must be given", field=field)
        return ""
    if len(value) > longest:
        raise InvalidArgument(f"must have at most {longest} characters, has {len(value)}", field=field, value=value)
    plain = value.replace("\n", "") if longest > TEXT_MAX else value
    if not plain.isprintable() or value != value.strip():
        raise InvalidArgument("must be printable characters without blanks at the ends", field=field, value=value)
    return value


def one_of(message: Message, fields: Sequence[str]) -> str:
    """The name of the only text field among `fields` that is given; none or several: InvalidArgument."""
    given = [name for name in fields if getattr(message, name)]
    if len(given) != 1:
        raise InvalidArgument(f"exactly one of {', '.join(fields)} must be given", field=given[0] if given else fields[0])
    return given[0]


def word(enum: Any, number: int) -> str:
    """The enum value without its prefix: (TagKind, TAG_KIND_LOGGER) -> "LOGGER"; "" for UNSPECIFIED."""
    if number == 0:
        return ""
    name: str = enum.Name(number)
    return name[len(_prefix(enum)) :]


def number(enum: Any, word: str | None) -> Any:
    """The enum's number for a word in any case; 0 (UNSPECIFIED) for "" and for words that the contract does not have."""
    if not word:
        return 0
    return enum.DESCRIPTOR.values_by_name[name].number if (name := _prefix(enum) + word.upper()) in enum.DESCRIPTOR.values_by_name else 0


def _prefix(enum: Any) -> str:
    """METRIC_ of METRIC_UNSPECIFIED."""
    zero: str = enum.DESCRIPTOR.values_by_number[0].name
    return zero.removesuffix("UNSPECIFIED")


def masked(message: Message, mask: FieldMask, allowed: Iterable[str], field: str = "update_mask") -> list[str]:
    """The fields to replace: those the mask names; with an empty mask those that are set; with `*` all that are allowed."""
    can = list(allowed)
    paths = list(dict.fromkeys(mask.paths))
    if not paths:
        present = {each.name for each, _ in message.ListFields()}
        return [name for name in can if name in present]
    if paths == ["*"]:
        return can
    for path in paths:
        if path not in can:
            known = path.split(".")[0] in message.DESCRIPTOR.fields_by_name
            rule = "cannot be changed" if known and "." not in path else "is no field that can be named here"
            raise InvalidArgument(f"{rule}; can be changed: {', '.join(can)}", field=field, value=path)
    return paths


def etag(given: str, field: str = "etag") -> int | None:
    """The version that the caller decided on; None where none is given. What is no etag of ours: InvalidArgument."""
    if not given:
        return None
    if not (given.isascii() and given.isdigit() and len(given) <= 18):
        raise InvalidArgument("is not an etag that was given by an earlier answer", field=field, value=given)
    return int(given)
