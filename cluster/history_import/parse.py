"""A piece of a file as a batch of columns, with the rows that cannot be used and why. Whole columns at a time; rows where one is wrong."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv

from actors.rules import readings
from actors.rules.readings import CODE, NO_SEQUENCE, Batch
from cluster.history_import.mapping import FACTORS, LongName, Mapping, ValueColumn
from cluster.history_import.pieces import Piece
from cluster.importers.base import Bad, Clock, RowError, UnusableFile
from services.tag_ids import valid_tag_id

I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]
B1 = npt.NDArray[np.bool_]

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
ISO = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?( ?(Z|[+-]\d{2}:?\d{2}))?$"
ZONED = r"(Z|[+-]\d{2}:?\d{2})$"
SHOWN = 60
"""Characters of a value in a reason."""


@dataclass(frozen=True)
class Parsed:
    """A batch whose tags index `tag_ids`; `lines[i]` is where reading i stands. `bad`: rows that are refused; `empty`: blank lines."""

    tag_ids: list[str]
    batch: Batch
    lines: I8
    bad: list[Bad]
    empty: int
    rows: int


class _Rows:
    """The rows of a piece while they are read: `why[i]` is the first thing that is wrong with row i. first: it is the file's first."""

    def __init__(self, table: pa.Table, lines: I8, mapping: Mapping, first: bool) -> None:
        self.table, self.lines, self.mapping, self.first = table, lines, mapping, first
        self.wrong = np.zeros(len(lines), np.bool_)
        self.why: dict[int, str] = {}

    def refuse(self, rows: B1, what: str, texts: Any, rule: str) -> None:
        """Refuse rows that nothing was wrong with so far: `what` with its text breaks `rule`."""
        for row in np.flatnonzero(rows & ~self.wrong).tolist():
            self.why[row] = f"{what} {str(texts[row].as_py())[:SHOWN]!r} {rule}"
        self.wrong |= rows

    def text(self, name: str) -> Any:
        """A column as trimmed text; null where it is missing by the mapping's words."""
        column = self.table[name].combine_chunks()
        if not pa.types.is_string(column.type):
            column = pc.cast(column, pa.string())
        column = pc.utf8_trim_whitespace(column)
        return pc.if_else(pc.is_in(column, value_set=pa.array(self.mapping.file.missing, pa.string())), None, column)

    def numbers(self, name: str, what: str) -> F8:
        """A column of numbers; NaN where it is missing."""
        column = self.table[name].combine_chunks()
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            values = np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), np.float64)
            infinite = np.isinf(values)
            if infinite.any():
                self.refuse(infinite, what, column, "is not a finite number")
            return np.where(infinite, np.nan, values)
        text = self.text(name)
        if self.mapping.file.decimal == ",":
            text = pc.replace_substring(text, ",", ".")
        fits = pc.fill_null(pc.match_substring_regex(text, NUMBER), True)
        if not pc.all(fits).as_py():
            self.refuse(~_mask(fits), what, self.text(name), "is not a number")
            text = pc.if_else(fits, text, None)
        values = np.asarray(pc.cast(pc.replace_substring_regex(text, r"^\+", ""), pa.float64()).to_numpy(zero_copy_only=False), np.float64)
        infinite = np.isinf(values)
        if infinite.any():
            self.refuse(infinite, what, self.text(name), "is not a finite number")
        return np.where(infinite, np.nan, values)


def parse(piece: Piece, mapping: Mapping, file_name: str, received_us: int) -> Parsed:
    """The readings of a piece. Raises UnusableFile where no time of the file's first piece has a zone and the mapping names none."""
    table, lines, bad, empty = _table(piece, mapping)
    rows = _Rows(table, lines, mapping, piece.number == 0)
    tag, tag_ids = _tags(rows, file_name)
    sensed_us = _times(rows)
    codes, values = _values(rows)
    boot, sequence = _counter(rows)
    batch = Batch(tag, sensed_us, boot, sequence, codes, values)
    fine = np.flatnonzero(~rows.wrong)
    batch = readings.subset(batch, fine)
    refusals, good = readings.check(batch, received_us)
    for one in refusals:
        rows.why[int(fine[one.row])] = f"{one.field} {one.value} {one.rule}".replace("  ", " ")
    kept = fine[good]
    bad += [Bad(int(lines[row]), why) for row, why in rows.why.items()]
    return Parsed(tag_ids, readings.subset(batch, good), lines[kept], sorted(bad), empty, len(kept) + len(bad) + empty)


# ---------------------------------------------------------------- rows


def _table(piece: Piece, mapping: Mapping) -> tuple[pa.Table, I8, list[Bad], int]:
    """The mapped columns with the line of each row, rows that are no rows at all, and the number of blank lines."""
    if isinstance(piece.data, pa.Table):
        return piece.data, piece.first_line + np.arange(len(piece.data)), [], 0
    form, data = mapping.file, piece.data
    bad: list[Bad] = []
    try:
        if form.encoding != "utf-8":
            data = data.decode(form.encoding).encode()
        else:
            data.decode()
    except UnicodeDecodeError:
        data, bad = _decoded(data, form.encoding, piece.first_line)
    held: dict[int, str] = {}

    def refuse(row: Any) -> str:
        held[row.number] = f"{row.actual_columns} columns where the header has {row.expected_columns}"
        return "skip"

    table = arrow_csv.read_csv(
        io.BytesIO(data),
        read_options=arrow_csv.ReadOptions(use_threads=False, column_names=list(piece.columns), block_size=max(1 << 20, len(data) + 1)),
        parse_options=arrow_csv.ParseOptions(
            delimiter=form.delimiter, quote_char=form.quote, ignore_empty_lines=False, invalid_row_handler=refuse
        ),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(piece.columns, pa.string()), include_columns=mapping.columns(), strings_can_be_null=False
        ),
    )
    numbers = np.arange(1, len(table) + len(held) + 1)
    lines = piece.first_line - 1 + np.delete(numbers, [number - 1 for number in held])
    blank = np.ones(len(table), np.bool_)  # a blank line is a row without a single text
    for column in table.columns:
        blank &= _mask(pc.equal(column.combine_chunks(), ""))
    empty = int(blank.sum()) - len(bad)  # what was no text is a blank line by now
    bad += [Bad(piece.first_line + number - 1, why) for number, why in held.items()]
    return (table.filter(pa.array(~blank)), lines[~blank], bad, empty) if blank.any() else (table, lines, bad, empty)


def _decoded(data: bytes, encoding: str, first_line: int) -> tuple[bytes, list[Bad]]:
    """The lines that are text, with blank lines in the places of those that are not."""
    kept, bad = [], []
    for place, line in enumerate(data.split(b"\n")):
        try:
            kept.append(line.decode(encoding).encode())
        except UnicodeDecodeError as error:
            kept.append(b"")
            bad.append(Bad(first_line + place, f"not {encoding} text: {error.reason}"))
    return b"\n".join(kept), bad


def _mask(array: Any) -> B1:
    return np.asarray(array.to_numpy(zero_copy_only=False), np.bool_)


# ---------------------------------------------------------------- columns


def _tags(rows: _Rows, file_name: str) -> tuple[npt.NDArray[np.int32], list[str]]:
    given, count = rows.mapping.tag, len(rows.lines)
    if given.column is None:
        name = given.prefix + (file_name if given.file_name else given.value or "")
        rule = valid_tag_id(name)
        if rule:
            raise UnusableFile(f"tag {name!r} {rule}")
        return np.zeros(count, np.int32), [name]
    text = rows.text(given.column)
    absent = _mask(pc.is_null(text))
    if absent.any():
        rows.refuse(absent, "tag", rows.table[given.column].combine_chunks(), "is missing")
    encoded = pc.dictionary_encode(pc.fill_null(text, ""))
    names = [given.prefix + name for name in encoded.dictionary.to_pylist()]
    index = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), np.int32)
    for place, name in enumerate(names):
        rule = valid_tag_id(name)
        if rule:
            rows.refuse((index == place) & ~absent, "tag", text, rule)
    return index, names


def _times(rows: _Rows) -> I8:
    given = rows.mapping.time
    column = rows.table[given.column].combine_chunks()
    if pa.types.is_timestamp(column.type):
        return _stamps(rows, column)
    if given.format.startswith("unix"):
        per_s = {"unix": 1e6, "unix_ms": 1e3, "unix_us": 1.0}[given.format]
        if pa.types.is_integer(column.type):
            whole = np.asarray(pc.fill_null(column, -1).to_numpy(zero_copy_only=False), np.int64) * int(per_s)
            rows.refuse(_mask(pc.is_null(column)), "time", column, "is missing")
            return whole
        seconds = rows.numbers(given.column, "time")
        absent = np.isnan(seconds)
        if absent.any():
            rows.refuse(absent, "time", column, "is missing")
        outside = np.abs(seconds) * per_s > 9e18
        if outside.any():
            rows.refuse(outside, "time", column, "is out of range")
        return np.round(np.where(absent | outside, 0.0, seconds) * per_s).astype(np.int64)
    text = rows.text(given.column)
    absent = _mask(pc.is_null(text))
    if absent.any():
        rows.refuse(absent, "time", column, "is missing")
    if given.format == "iso":
        fits = pc.fill_null(pc.match_substring_regex(text, ISO), False)
        rows.refuse(~_mask(fits), "time", text, "does not fit the format 'iso'")
        text = pc.if_else(fits, pc.replace_substring_regex(text, r"(\.\d{6})\d+", r"\1"), None)
        if given.where is None:
            text = _zoned(rows, text)
    try:
        return _fast(rows, text)
    except pa.ArrowException:  # some row is wrong: find out which
        return _slow(rows, text)


def _zoned(rows: _Rows, text: Any) -> Any:
    """The times that carry a zone, where the mapping names none: without one a row is refused, and so is a file that begins without any."""
    zoned = pc.fill_null(pc.match_substring_regex(text, ZONED), False)
    if rows.first and not pc.any(zoned).as_py():
        return text
    rows.refuse(~_mask(zoned) & ~_mask(pc.is_null(text)), "time", text, "carries no zone, and the mapping names none")
    return pc.if_else(zoned, text, None)


def _fast(rows: _Rows, text: Any) -> I8:
    """All times of a column at once. Raises ArrowException where one of them is none."""
    given, found = rows.mapping.time, np.zeros(len(text), np.int64)
    if given.format != "iso":
        if "%z" in given.format:
            raise pa.ArrowInvalid("strptime of pyarrow drops zones")
        stamps = pc.strptime(text, format=given.format, unit="us", error_is_null=False)
        return _localised(rows, stamps)
    zoned = _mask(pc.fill_null(pc.match_substring_regex(text, ZONED), False))
    there = ~_mask(pc.is_null(text))
    if (there & zoned).any():
        places = np.flatnonzero(there & zoned)
        joined = pc.replace_substring_regex(text.take(pa.array(places)), r" ([Z+-])", r"\1")
        found[places] = pc.cast(joined, pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)
    if (there & ~zoned).any():
        places = np.flatnonzero(there & ~zoned)
        found[places] = _localised(rows, pc.cast(text.take(pa.array(places)), pa.timestamp("us")))
    return found


def _localised(rows: _Rows, stamps: Any) -> I8:
    """Times without a zone, in the mapping's; of an hour that is there twice the first is meant. Raises ArrowException."""
    where = rows.mapping.time.where
    if where is None:
        raise UnusableFile('its times carry no zone: say which in the mapping, e.g. [time] zone = "Europe/Berlin"')
    placed = pc.assume_timezone(stamps, where.key, ambiguous="earliest", nonexistent="raise")
    return np.asarray(pc.fill_null(placed.cast(pa.int64()), 0).to_numpy(zero_copy_only=False), np.int64)


def _slow(rows: _Rows, text: Any) -> I8:
    clock, found, wrong = (
        Clock(rows.mapping.time.format, rows.mapping.time.where),
        np.zeros(len(text), np.int64),
        np.zeros(len(text), np.bool_),
    )
    why: dict[int, str] = {}
    for row, one in enumerate(text.to_pylist()):
        if one is not None and not rows.wrong[row]:
            try:
                found[row] = clock.read(one)
            except RowError as error:
                wrong[row], why[row] = True, str(error)
    for row, reason in why.items():
        rows.why[row] = reason
    rows.wrong |= wrong
    return found


def _stamps(rows: _Rows, column: Any) -> I8:
    """A Parquet column of timestamps."""
    absent = _mask(pc.is_null(column))
    if absent.any():
        rows.refuse(absent, "time", column, "is missing")
    micro = pc.cast(column, pa.timestamp("us", column.type.tz), safe=False)
    if column.type.tz is None:
        return _localised(rows, micro)
    return np.asarray(pc.fill_null(micro.cast(pa.int64()), 0).to_numpy(zero_copy_only=False), np.int64)


def _values(rows: _Rows) -> tuple[tuple[int, ...], F8]:
    mapping = rows.mapping
    columns: dict[int, F8] = {}
    if mapping.long is None:
        for name, one in mapping.values.items():
            columns[CODE[name]] = _converted(rows.numbers(one.column, name), name, one)
    else:
        names = rows.text(mapping.long.metric)
        numbers = rows.numbers(mapping.long.value, "value")
        known = pc.is_in(names, value_set=pa.array(list(mapping.long.names), pa.string()))
        rows.refuse(~_mask(pc.fill_null(known, False)), "metric", names, "is not named in the mapping")
        for text, given in mapping.long.names.items():
            here = _mask(pc.fill_null(pc.equal(names, text), False))
            values = np.where(here, _converted(numbers, given.metric, given), np.nan)
            code = CODE[given.metric]
            columns[code] = np.where(np.isnan(values), columns[code], values) if code in columns else values
    codes = tuple(sorted(columns))
    return codes, np.ascontiguousarray(np.array([columns[code] for code in codes]).reshape(len(codes), len(rows.lines)))


def _converted(values: F8, name: str, given: ValueColumn | LongName) -> F8:
    if given.scale != 1.0 or given.offset != 0.0:
        values = values * given.scale + given.offset
    factor, offset = FACTORS.get(name, {}).get(given.unit or "", (1.0, 0.0))
    return values if (factor, offset) == (1.0, 0.0) else (values - offset) / factor


def _counter(rows: _Rows) -> tuple[I8, I8]:
    given, count = rows.mapping.counter, len(rows.lines)
    if given is None:
        return np.full(count, NO_SEQUENCE, np.int64), np.full(count, NO_SEQUENCE, np.int64)
    sequence = _whole(rows, given.sequence, "sequence")
    boot = _whole(rows, given.boot, "boot") if given.boot else np.where(sequence == NO_SEQUENCE, NO_SEQUENCE, 0)
    return boot, sequence


def _whole(rows: _Rows, name: str, what: str) -> I8:
    """A column of whole numbers; NO_SEQUENCE where it is missing."""
    column = rows.table[name].combine_chunks()
    if not pa.types.is_integer(column.type):
        text = rows.text(name)
        fits = pc.fill_null(pc.match_substring_regex(text, r"^\d{1,18}$"), True)
        if not pc.all(fits).as_py():
            rows.refuse(~_mask(fits), what, text, "is not a whole number")
        column = pc.cast(pc.if_else(fits, text, None), pa.int64())
    return np.asarray(pc.fill_null(pc.cast(column, pa.int64()), NO_SEQUENCE).to_numpy(zero_copy_only=False), np.int64)
