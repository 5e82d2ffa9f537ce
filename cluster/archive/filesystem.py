"""Where an archive or a result lies: a folder of this machine, or a URL that pyarrow or fsspec knows (s3://, gs://, abfs://, …)."""

from __future__ import annotations

import os
import posixpath
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from actors.journal import archived


class UnknownPlace(ValueError):
    """A location that no file system here serves."""


@dataclass(frozen=True)
class Place:
    """A folder in some file system. Names are relative, with forward slashes."""

    location: str
    system: Any
    root: str

    @classmethod
    def of(cls, location: str | Path) -> Place:
        """The place of a path or URL. Raises UnknownPlace."""
        text = str(location) if "://" in str(location) else str(Path(location).absolute())
        try:
            system, root = archived.system_of(text)
        except (ImportError, ValueError, OSError) as error:
            raise UnknownPlace(f"{text}: {error}") from None
        return cls(text.rstrip("/"), system, root.rstrip("/"))

    def path(self, name: str) -> str:
        """The path of a name within the file system."""
        return posixpath.join(self.root, name) if name else self.root

    def sub(self, name: str) -> Place:
        """A folder below this one."""
        return Place(f"{self.location}/{name}", self.system, self.path(name))

    def create(self, name: str) -> Any:
        """A stream that writes a new file; folders are made. It is there, whole, once the stream is closed."""
        path = self.path(name)
        self.system.create_dir(posixpath.dirname(path), recursive=True)
        return self.system.open_output_stream(path)

    def put(self, name: str, content: bytes) -> None:
        """Write a small file: from one moment to the next it is there, whole, in the place of what was there."""
        part = f"{name}.{uuid.uuid4().hex[:8]}"
        with self.create(part) as file:
            file.write(content)
        self.system.move(self.path(part), self.path(name))

    def sync(self, names: Iterable[str]) -> None:
        """Have files on this machine's disk, and their folders too: what the database names afterwards must outlast a power cut.

        Behind a URL a file that is closed is kept.
        """
        if not isinstance(self.system, fs.LocalFileSystem):
            return
        files = {Path(self.path(name)) for name in names}
        folders = {folder for file in files for folder in file.parents if folder.is_relative_to(self.root)} | {Path(self.root).parent}
        for path in [*files, *folders]:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def open(self, name: str) -> Any:
        """A file to read at random. Raises FileNotFoundError."""
        return self.system.open_input_file(self.path(name))

    def read(self, name: str) -> bytes:
        """The content of a file. Raises FileNotFoundError."""
        with self.open(name) as file:
            return bytes(file.read())

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return bool(self.system.get_file_info(self.path(name)).type == fs.FileType.File)

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        info = self.system.get_file_info(self.path(name))
        return int(info.size) if info.type == fs.FileType.File else None

    def ages(self) -> list[tuple[str, float]]:
        """All files with their ages in seconds; 0 where the file system does not tell."""
        found = []
        selector = fs.FileSelector(self.root, allow_not_found=True, recursive=True)
        for info in self.system.get_file_info(selector):
            if info.type == fs.FileType.File:
                age_s = time.time() - info.mtime.timestamp() if info.mtime is not None else 0.0
                found.append((posixpath.relpath(info.path, self.root), age_s))
        return found

    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        if self.exists(name):
            self.system.delete_file(self.path(name))

    def remove_folder(self, name: str) -> None:
        """Remove a folder and all in it, if it is there."""
        if self.system.get_file_info(self.path(name)).type == fs.FileType.Directory:
            self.system.delete_dir(self.path(name))
