"""How numbers, times and rules are written for people. Blanks inside a number or a time do not break."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from waybill.v1 import common_pb2, profile_pb2

UNITS = {
    "temperature_c": "°C",
    "relative_humidity_pct": "%",
    "shock_g": "g",
    "light_lux": "lx",
    "tilt_deg": "°",
    "pressure_hpa": "hPa",
    "battery_v": "V",
    "vibration_mm_s": "mm/s",
    "co2_pct": "%",
    "o2_pct": "%",
}
NAMES = {"co2_pct": "CO₂", "o2_pct": "O₂", "door_open": "Door", "relative_humidity_pct": "Relative humidity"}
DASH = "–"


def us_of(moment: Timestamp) -> int:
    """Microseconds since 1970."""
    return moment.seconds * 1_000_000 + moment.nanos // 1000


def when(moment: Timestamp | int | None) -> str:
    """A time in UTC, as `8 Jul 2025 09:10`; a dash where there is none.

    >>> when(1_751_966_400_000_000).replace("\u00a0", " ")
    '8 Jul 2025 09:20'
    """
    if moment is None or (isinstance(moment, Timestamp) and not moment.ByteSize()):
        return DASH
    us = us_of(moment) if isinstance(moment, Timestamp) else moment
    at = datetime.fromtimestamp(us // 1_000_000, UTC)
    return f"{at.day} {at:%b %Y %H:%M}".replace(" ", "\u00a0")


def lasting(us: float) -> str:
    """A duration as `3 d 4 h`, `2 h 05 min`, `40 s`.

    >>> lasting(7_500_000_000)
    '2 h 05 min'
    """
    seconds = round(us / 1e6)
    if seconds < 120:
        return f"{seconds} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h" if hours % 24 else f"{hours // 24} d"


def word(enum: Any, number: int) -> str:
    """The name of an enum's value without its prefix, in lower case; the number where it is not known.

    >>> word(common_pb2.Verdict, 2)
    'within limits'
    """
    value = enum.DESCRIPTOR.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = enum.DESCRIPTOR.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return "" if number == 0 else str(value.name).removeprefix(prefix).replace("_", " ").lower()


def metric_name(metric: int) -> str:
    """`temperature_c` of its number."""
    return common_pb2.Metric.Name(metric).removeprefix("METRIC_").lower()  # type: ignore[arg-type]


def metric_title(metric: int) -> str:
    """The metric for people, without its unit."""
    name = metric_name(metric)
    unit_less = name.rpartition("_")[0] if name in UNITS else name
    return NAMES.get(name, unit_less.removesuffix("_mm").replace("_", " ").capitalize())


def metric_words(metric: int) -> str:
    """The metric within a sentence."""
    title = metric_title(metric)
    return title if "₂" in title else title.lower()


def unit(metric: int) -> str:
    """The unit to write behind a value."""
    return UNITS.get(metric_name(metric), "")


def value(number: float, metric: int, digits: int = 1) -> str:
    """A measured value with its unit."""
    return f"{number:.{digits}f}".replace("-", "−") + (f"\u00a0{unit(metric)}" if unit(metric) else "")


def rule(limit: profile_pb2.Limit) -> str:
    """A limit in words: `above 8 °C for more than 10 h in total`."""
    above = limit.direction == profile_pb2.DIRECTION_ABOVE
    side = "above" if above else "below"
    bound = f"{limit.threshold:g}".replace("-", "−") + (f" {unit(limit.metric)}" if unit(limit.metric) else "")
    edge = f"{side} {bound}" if not limit.inclusive else f"{bound} or {side}"
    if limit.mode == profile_pb2.LIMIT_MODE_MKT:
        return f"MKT over {lasting(limit.window_s * 1e6)} {edge}"
    what = "" if limit.metric == common_pb2.METRIC_TEMPERATURE_C else f"{metric_words(limit.metric)} "
    if not limit.HasField("allowance_s"):
        return f"{what}{edge} (counted, never an excursion)"
    if not limit.allowance_s:
        return f"{what}{edge}, at once"
    total = " in total" if limit.mode == profile_pb2.LIMIT_MODE_CUMULATIVE else " at a time"
    text = f"{what}{edge} for {lasting(limit.allowance_s * 1e6)}{total}"
    if limit.HasField("beyond"):
        text += f" ({lasting(limit.beyond_allowance_s * 1e6)} once beyond {limit.beyond:g} {unit(limit.metric)})"
    return text


def plural(count: int, noun: str, nouns: str = "") -> str:
    """`1 excursion`, `2 excursions`.

    >>> plural(2, "excursion"), plural(1, "excursion")
    ('2 excursions', '1 excursion')
    """
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"


def share(part: float, whole: float) -> str:
    """A part as per cent; never 100 or 0 where it is not."""
    if whole <= 0:
        return DASH
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "less than 0.1 %"
    if 99.9 < percent < 100:
        return "more than 99.9 %"
    return f"{percent:.1f} %" if percent % 1 and percent < 99.95 else f"{percent:.0f} %"
