"""The job: pieces of files as Ray tasks, a bounded number at a time; what is done is kept in a folder, so that it can be taken up again.

The folder holds `job.json` (what is imported, by what mapping) and a file for each piece that is done. A piece that was being sent when
the job died is sent again, which does no harm; nothing else is.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import ray

from cluster import ray_node
from cluster.client import now_us
from cluster.history_import.mapping import Mapping
from cluster.history_import.parse import parse
from cluster.history_import.pieces import PIECE_BYTES, PIECE_ROWS, Piece, fingerprint, pieces
from cluster.history_import.send import Account, Done, Target, reasons, send
from cluster.importers.base import UnusableFile
from cluster.settings import Settings

FORMAT = 1
SAMPLE_LINES = 1_000
WRONG_SHARE = 0.5
"""Where more than this of a file's first rows are refused it does not fit its mapping, and nothing of it is taken."""
REFUSED = "refused.csv"


@dataclass
class FileAccount:
    """What became of one file. `unusable`: why it was refused as a whole, or from some line on."""

    path: str
    account: Account = field(default_factory=Account)
    reasons: Counter[str] = field(default_factory=Counter)
    unusable: str = ""
    resumed: int = 0
    """Pieces that an earlier run had done."""


@dataclass(frozen=True)
class Progress:
    """How far a job is: bytes of all files that are dealt with, of all there are; rows so far."""

    read: int
    total: int
    rows: int


def job_id(paths: Sequence[Path], mapping: Mapping, target: Target) -> str:
    """The same for the same files, mapping and server. Raises UnusableFile."""
    told = {
        "format": FORMAT,
        "cut": [PIECE_BYTES, PIECE_ROWS],
        "server": target.server,
        "mapping": mapping.model_dump(mode="json"),
        "files": [fingerprint(path) for path in paths],
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def check(path: Path, mapping: Mapping) -> str:
    """Why a file does not fit its mapping; empty: it does. Looks at its head only."""
    try:
        first = next(pieces(path, mapping), None)
        if first is None:
            return ""
        head = _head(first)
        parsed = parse(head, mapping, _stem(path), now_us())
    except UnusableFile as error:
        return str(error)
    there = parsed.rows - parsed.empty
    if len(parsed.bad) <= WRONG_SHARE * there:
        return ""
    line, reason = parsed.bad[0]
    return f"it does not fit the mapping: {len(parsed.bad)} of its first {there} rows cannot be used; line {line}: {reason}"


def _head(piece: Piece) -> Piece:
    data = piece.data
    data = b"\n".join(data.split(b"\n", SAMPLE_LINES)[:SAMPLE_LINES]) if isinstance(data, bytes) else data.slice(0, SAMPLE_LINES)
    return Piece(piece.number, piece.first_line, data, piece.columns, piece.read)


def _stem(path: Path) -> str:
    return path.name.partition(".")[0]


class Job:
    """An import of some files. `folder`: where its state is kept."""

    def __init__(self, paths: Sequence[Path], mapping: Mapping, target: Target, folder: Path) -> None:
        self.paths, self.mapping, self.target, self.folder = list(paths), mapping, target, folder
        self.files = [FileAccount(str(path), unusable=check(path, mapping)) for path in self.paths]
        self._total = sum(path.stat().st_size for path in self.paths if path.exists())
        self._before = 0
        self._rows = 0

    def run(self, runner: Runner, progress: Callable[[Progress], None] = lambda progress: None) -> list[FileAccount]:
        """Import what is not imported yet. Raises Problem where the server refuses or stays away: then run it again later."""
        (self.folder / "pieces").mkdir(parents=True, exist_ok=True)
        _write(self.folder / "job.json", {"files": [str(path) for path in self.paths], "mapping": self.mapping.model_dump(mode="json")})
        for number, (path, file) in enumerate(zip(self.paths, self.files, strict=True)):
            if not file.unusable:
                self._file(number, path, file, runner, progress)
            self._before += path.stat().st_size if path.exists() else 0
        self._report()
        return self.files

    def _file(self, number: int, path: Path, file: FileAccount, runner: Runner, progress: Callable[[Progress], None]) -> None:
        def waiting() -> Iterator[tuple[Piece, Callable[[], Done] | None]]:
            try:
                for piece in pieces(path, self.mapping):
                    yield piece, self._known(number, piece.number)
            except UnusableFile as error:
                file.unusable = str(error)

        for piece, done, fresh in runner.run(waiting(), self.target, self.mapping, _stem(path)):
            if fresh:
                _write(self._place(number, piece.number), {"account": asdict(done.account), "left_out": done.left_out})
            else:
                file.resumed += 1
            file.account.add(done.account)
            file.reasons.update(reasons(done.left_out))
            self._rows += done.account.rows
            progress(Progress(self._before + piece.read, self._total, self._rows))

    def _place(self, file: int, piece: int) -> Path:
        return self.folder / "pieces" / f"{file:04d}-{piece:06d}.json"

    def _known(self, file: int, piece: int) -> Callable[[], Done] | None:
        """Reads what an earlier run has kept of a piece; None where it has nothing."""
        place = self._place(file, piece)
        return (lambda: _read(place, piece)) if place.exists() else None

    def _report(self) -> None:
        """Writes all rows that were left out, with file, line and reason, in the order of the files."""
        with (self.folder / f"{REFUSED}.part").open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(("file", "line", "reason", "row"))
            for number, path in enumerate(self.paths):
                for place in sorted((self.folder / "pieces").glob(f"{number:04d}-*.json")):
                    writer.writerows((path, *one) for one in _read(place, 0).left_out)
        os.replace(self.folder / f"{REFUSED}.part", self.folder / REFUSED)

    @property
    def refused(self) -> Path:
        """The file with the rows that were left out."""
        return self.folder / REFUSED

    def forget(self) -> None:
        """Forget what was done: the next run sends everything again."""
        shutil.rmtree(self.folder, ignore_errors=True)


# ---------------------------------------------------------------- who does the work

Work = tuple[Piece, Callable[[], Done] | None]


class Runner:
    """Sends pieces in this process, one after the other."""

    def run(self, work: Iterator[Work], target: Target, mapping: Mapping, name: str) -> Iterator[tuple[Piece, Done, bool]]:
        """Yields each piece with what became of it, and whether it was sent now."""
        for piece, known in work:
            yield (piece, known(), False) if known else (piece, send(target, mapping, name, piece), True)


class RayRunner(Runner):
    """Sends pieces as Ray tasks, `at_once` of them at a time; a task whose worker or node dies is run again."""

    def __init__(self, at_once: int) -> None:
        self.at_once = at_once

    def run(self, work: Iterator[Work], target: Target, mapping: Mapping, name: str) -> Iterator[tuple[Piece, Done, bool]]:
        """In the order of the file, whichever is done first. Memory holds `at_once` pieces and as many that are waited for."""
        task: Any = ray.remote(num_cpus=1, max_retries=3)(send)
        running: deque[tuple[Piece, Any]] = deque()

        def finished(piece: Piece, found: Any) -> tuple[Piece, Done, bool]:
            try:
                return (piece, found, False) if isinstance(found, Done) else (piece, ray.get(found), True)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None

        try:
            for piece, known in work:
                data = Piece(piece.number, piece.first_line, b"", piece.columns, piece.read)  # what is kept of it here
                running.append((data, known() if known else task.remote(target, mapping, name, piece)))
                if len(running) >= self.at_once:
                    yield finished(*running.popleft())
            while running:
                yield finished(*running.popleft())
        finally:
            for _, found in running:
                if not isinstance(found, Done):
                    ray.cancel(found, force=True)


@contextmanager
def cluster(settings: Settings, at_once: int) -> Iterator[Runner]:
    """Ray as the settings say (a cluster joined, or one of its own on this machine), for as long as the job runs."""
    owned = ray_node.connect(settings)
    heads = ray_node.head_processes() if owned and not settings.ray_address else []
    try:
        cores = int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]
        yield RayRunner(max(1, min(at_once, cores)))
    finally:
        if owned:
            ray_node.disconnect(heads, [], settings.stop_timeout_s)


# ---------------------------------------------------------------- the folder


def _write(path: Path, content: Any) -> None:
    """From one moment to the next it is there, whole, and on the disk."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as out:
        json.dump(content, out)
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, path)


def _read(path: Path, number: int) -> Done:
    kept = json.loads(path.read_text(encoding="utf-8"))
    account = Account(**{**kept["account"], "tags": {tag: (a, b) for tag, (a, b) in kept["account"]["tags"].items()}})
    return Done(number, account, [(line, reason, text) for line, reason, text in kept["left_out"]])
