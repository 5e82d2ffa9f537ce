"""The delivery history of the Supply Chain Management System (USAID, 2006 to 2015): one line of a delivery a row, 33 columns.

Weights, costs and dates are dirty: "See ASN-93 (ID#:1281)" where the figure stands with another line, "Freight Included in Commodity
Cost", "Date Not Captured". Each value is taken, mended (the file itself says how), or refused with its reason, and the account adds up.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path

from cluster.importers.base import UnusableFile, numbered_lines, open_text

NEEDED = (
    "ID", "PO / SO #", "ASN/DN #", "Country", "Vendor", "Shipment Mode", "Item Description", "Unit of Measure (Per Pack)",
    "Line Item Quantity", "Scheduled Delivery Date", "Delivered to Client Date", "Delivery Recorded Date",
)  # fmt: skip
DATES = (
    "PQ First Sent to Client Date",
    "PO Sent to Vendor Date",
    "Scheduled Delivery Date",
    "Delivered to Client Date",
    "Delivery Recorded Date",
)
FORMATS = ("%d-%b-%y", "%m/%d/%y", "%m/%d/%Y", "%d-%b-%Y")
AMOUNTS = ("Weight (Kilograms)", "Freight Cost (USD)", "Line Item Insurance (USD)", "Line Item Value")
REFERENCE = re.compile(r"See .*\(ID#:(\d+)\)")
ELSEWHERE = {
    "Freight Included in Commodity Cost": "0: it is in the price of the goods",
}
"""Texts that say which figure is meant."""

UNIT = "PK"
"""UN/CEFACT Rec 20: pack."""


@dataclass(slots=True)
class Line:
    """A line of a delivery. Times in microseconds, amounts as decimals, both None where the file has none that can be used."""

    row: int
    line_id: str
    delivery: str
    order: str
    country: str
    vendor: str
    mode: str
    item: str
    per_pack: int
    packs: int
    times_us: dict[str, int | None] = field(default_factory=dict)
    amounts: dict[str, Decimal | None] = field(default_factory=dict)


@dataclass(slots=True)
class Account:
    """What became of every value: per column how many were taken, mended and refused, and why."""

    rows: int = 0
    refused_rows: int = 0
    reasons: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """(column, taken | mended | refused, why): how many."""

    def count(self, column: str, outcome: str, why: str = "") -> None:
        """One value."""
        self.reasons[column, outcome, why] += 1

    def of(self, column: str, outcome: str) -> int:
        """How many values of a column ended so."""
        return sum(number for (name, ended, _), number in self.reasons.items() if (name, ended) == (column, outcome))

    def report(self, most: int) -> list[str]:
        """The account as lines for people."""
        lines = [f"{self.rows:,} rows: {self.rows - self.refused_rows:,} taken, {self.refused_rows:,} refused"]
        for column in dict.fromkeys(name for name, _, _ in self.reasons):
            counts = ", ".join(f"{self.of(column, outcome):,} {outcome}" for outcome in ("taken", "mended", "refused"))
            lines.append(f"  {column}: {counts}")
            whys = [(why, outcome, number) for (name, outcome, why), number in self.reasons.most_common() if name == column and why]
            lines += [f"    {number:,} {outcome}: {why}" for why, outcome, number in whys[:most]]
        return lines


@dataclass(slots=True)
class Read:
    """A file as read: lines by delivery, and the account."""

    deliveries: dict[tuple[str, str], list[Line]] = field(default_factory=dict)
    """By (delivery, country): a delivery's lines for one country."""
    account: Account = field(default_factory=Account)

    def lines(self) -> Iterable[Line]:
        """All lines."""
        return (line for lines in self.deliveries.values() for line in lines)


def read(path: Path, limit: int = 0) -> Read:
    """All of a file. Raises UnusableFile where it is not of this format."""
    found = Read()
    with open_text(path) as text:
        table = csv.reader(row for _, row in numbered_lines(text))
        header = next(table, [])
        missing = [name for name in NEEDED if name not in header]
        if missing:
            raise UnusableFile(f"not an SCMS delivery history: it has no column {missing[0]!r}")
        rows = [(at, dict(zip(header, cells, strict=False))) for at, cells in enumerate(table, 2) if not limit or at < limit + 2]
    by_id = {row["ID"]: row for _, row in rows}
    for at, row in rows:
        line = _line(at, row, by_id, found.account)
        if line is not None:
            found.deliveries.setdefault((line.delivery, line.country), []).append(line)
    return found


def _line(at: int, row: Mapping[str, str], by_id: Mapping[str, Mapping[str, str]], account: Account) -> Line | None:
    account.rows += 1
    whole = {name: _positive(row.get(name, "")) for name in ("Line Item Quantity", "Unit of Measure (Per Pack)")}
    for name, value in whole.items():
        account.count(name, "taken" if value else "refused", "" if value else f"no whole number above 0: {row.get(name, '')!r}")
    if not all(whole.values()) or not row["ASN/DN #"].strip() or not row["ID"].strip():
        account.refused_rows += 1
        return None
    line = Line(
        at, row["ID"].strip(), row["ASN/DN #"].strip(), row["PO / SO #"].strip(), row["Country"].strip(), row["Vendor"].strip(),
        row["Shipment Mode"].strip(), row["Item Description"].strip(), whole["Unit of Measure (Per Pack)"] or 1,
        whole["Line Item Quantity"] or 0,
    )  # fmt: skip
    for name in DATES:
        line.times_us[name] = _time(name, row.get(name, ""), account)
    for name in AMOUNTS:
        line.amounts[name] = _amount(name, row.get(name, ""), by_id, account)
    delivered, recorded = line.times_us["Delivered to Client Date"], line.times_us["Delivery Recorded Date"]
    if delivered is None and recorded is not None:
        line.times_us["Delivered to Client Date"] = recorded
        account.count("Delivered to Client Date", "mended", "as it was recorded")
    return line


def _positive(text: str) -> int | None:
    return int(text) if text.strip().isdigit() and 0 < int(text) < 10**12 else None


def _time(column: str, text: str, account: Account) -> int | None:
    text = text.strip()
    for form in FORMATS:
        try:
            moment = datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        account.count(column, "taken")
        return int(moment.timestamp()) * 1_000_000
    account.count(column, "refused", f"no date: {text!r}" if text else "empty")
    return None


def _amount(column: str, text: str, by_id: Mapping[str, Mapping[str, str]], account: Account) -> Decimal | None:
    text = text.strip()
    value = _decimal(text)
    if value is not None:
        account.count(column, "taken")
        return value
    if text in ELSEWHERE:
        account.count(column, "mended", ELSEWHERE[text])
        return Decimal(0)
    named = REFERENCE.fullmatch(text)
    if named is None:
        account.count(column, "refused", f"no number: {text!r}" if text else "empty")
        return None
    other = by_id.get(named[1])
    if other is None:
        account.count(column, "refused", "it stands with a line that is not in the file")
    elif _decimal(other.get(column, "").strip()) is None:
        account.count(column, "refused", "it stands with a line that has no number either")
    else:
        account.count(column, "mended", "0: it is in the figure of the line that it names")
        return Decimal(0)
    return None


def _decimal(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    return value if value.is_finite() and value >= 0 else None
