"""A real mosquitto broker for a measurement: the machine's own, or Debian's packages unpacked under build/bench, on loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.environment import BUILT

PACKAGES = ("mosquitto", "libmosquitto1", "libcjson1", "libdlt2", "libwrap0", "libwebsockets17", "libev4", "libuv1")


def _program() -> tuple[str, dict[str, str]]:
    """The broker's program and the environment it needs. Raises RuntimeError where there is none and none can be had."""
    own = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if own:
        return own, dict(os.environ)
    folder = BUILT / "mosquitto"
    program = folder / "usr" / "sbin" / "mosquitto"
    if not program.is_file():
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            raise RuntimeError("there is no mosquitto on PATH, and no apt-get to fetch one: install mosquitto")
        folder.mkdir(parents=True, exist_ok=True)
        for package in PACKAGES:  # those that the machine's release does not know are not needed there
            subprocess.run(["apt-get", "download", "-q", package], cwd=folder, capture_output=True)
        for archive in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(archive), str(folder)], check=True)
    if not program.is_file():
        raise RuntimeError("apt-get could not fetch mosquitto: install it, or run apt-get update first")
    libraries = {str(path.parent) for path in folder.rglob("*.so.*")}
    return str(program), {**os.environ, "LD_LIBRARY_PATH": ":".join(sorted(libraries))}


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """A running broker; gives its port. Messages wait in its memory without a bound, as in its usual set-up with persistence off."""
    program, environment = _program()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    settings = folder / "mosquitto.conf"
    settings.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 1000\nlog_type error\n"
    )
    process = subprocess.Popen([program, "-c", str(settings)], env=environment)
    try:
        for _ in range(100):
            if process.poll() is not None:
                raise RuntimeError(f"mosquitto ended with code {process.returncode}")
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)
