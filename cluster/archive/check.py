"""`waybill archive verify`: every byte of every file by its checksum, and every row by the manifest's counts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.archive import layout
from cluster.archive.filesystem import Place

CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that is not what was published, and why."""

    name: str
    why: str


def verify(parts: Iterable[Mapping[str, Any]], progress: Callable[[int], None] | None = None) -> tuple[list[Fault], int]:
    """Check the files of some parts: (faults, files looked at). progress: told the bytes of each file."""
    faults: list[Fault] = []
    count = 0
    for part in parts:
        place = Place.of(part["location"])
        for file in part["files"]:
            count += 1
            why = check_file(place, file)
            if why:
                faults.append(Fault(str(file["name"]), why))
            if progress is not None:
                progress(int(file["bytes"]))
    return faults, count


def check_file(place: Place, file: Mapping[str, Any]) -> str:
    """Why a file is not what was published; "" where it is."""
    seen, size = hashlib.sha256(), 0
    try:
        with place.open(str(file["name"])) as stream:
            while chunk := stream.read(CHUNK):
                seen.update(chunk)
                size += len(chunk)
        if size != file["bytes"]:
            return f"has {size} bytes, {file['bytes']} were published"
        if seen.hexdigest() != file["sha256"]:
            return "its checksum is not the one that was published: it was changed"
        with place.open(str(file["name"])) as stream:
            found = pq.ParquetFile(stream)
            if found.metadata.num_rows != file["rows"]:
                return f"has {found.metadata.num_rows} rows, {file['rows']} were published"
            if not found.schema_arrow.equals(layout.DATASETS[file["dataset"]]):
                return "its columns are not those of this version"
    except FileNotFoundError:
        return "is not there"
    except (OSError, pa.ArrowInvalid) as error:
        return f"cannot be read: {error}"
    return ""
