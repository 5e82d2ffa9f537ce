"""Disks that fill up and system calls that fail, as the long form has them; they need root and strace, and say so where these are not."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

MOUNT_S = 10.0


class Missing(RuntimeError):
    """The machine lacks what a kind of fault needs. Never a reason to skip it."""


class SmallDisk:
    """A tmpfs of so many megabytes. Close it when nothing uses it any more."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"a small disk cannot be mounted (root is needed): {done.stderr.strip()}")

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def fill(self) -> None:
        """Leave no byte free."""
        with open(self._filler, "ab") as file:
            at, step = file.tell(), 64 << 20
            while step >= 4096:
                try:
                    os.posix_fallocate(file.fileno(), at, step)
                    at += step
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 2

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount it; what is still open in it goes when it is closed."""
        self.free()
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True, timeout=MOUNT_S)
        with contextlib.suppress(OSError):
            shutil.rmtree(self.folder)


ATTACH_S = 2.0


def _traced(pid: int) -> bool:
    """Whether every thread of a process is under a tracer; true also where it is gone."""
    try:
        return all("TracerPid:\t0\n" not in (task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return True


@contextlib.contextmanager
def failing_calls(pids: Sequence[int], calls: str, error: str) -> Iterator[None]:
    """Within it, these system calls (a comma between them) of these processes and their threads and children fail. Raises Missing."""
    strace = shutil.which("strace")
    if strace is None:
        raise Missing("strace is not installed: without it no system call can be made to fail")
    who = [part for pid in pids for part in ("-p", str(pid))]
    command = [strace, "-f", "-qq", "-o", "/dev/null", *who, "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}"]
    tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    try:
        deadline = time.monotonic() + ATTACH_S
        while tracer.poll() is None and not all(map(_traced, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)
        if tracer.poll() is not None and all(Path(f"/proc/{pid}").exists() for pid in pids):
            raise Missing(f"strace cannot attach: {tracer.stderr.read().strip()}")
        yield
    finally:
        tracer.send_signal(signal.SIGINT)  # it lets go of them; killed, it would take them with it
        try:
            tracer.wait(10)
        except subprocess.TimeoutExpired:
            tracer.kill()
            tracer.wait()
        tracer.stderr.close()
