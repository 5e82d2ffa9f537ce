"""What judges readings is compiled by numba at its first use: once for an installation, before the shards start, not by each of them."""

from __future__ import annotations

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import actors

log = logging.getLogger("waybill.compiled")

SOURCES = Path(actors.__file__).parent
TIMEOUT_S = 600.0


def stamp() -> Path:
    """The file that says that these sources were compiled here."""
    facts = [platform.machine(), platform.node(), sys.version, os.environ.get("NUMBA_CACHE_DIR", "")]
    facts += [f"{path} {path.stat().st_mtime_ns} {path.stat().st_size}" for path in sorted(SOURCES.rglob("*.py"))]
    return SOURCES / "__pycache__" / f"compiled-{sha256(repr(facts).encode()).hexdigest()[:16]}"


def start(say: Callable[[str], None]) -> Callable[[], None]:
    """Have it compiled by a process of its own, unless it was; what is returned waits for that. It can only make things faster."""
    mark = stamp()
    if mark.exists():
        return lambda: None
    say("compiling the rules (once, for half a minute)")
    process = subprocess.Popen([sys.executable, "-m", "actors.warm_up"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def wait() -> None:
        try:
            _, told = process.communicate(timeout=TIMEOUT_S)
            if process.returncode:
                log.warning("the rules are compiled when they are used: %s", told.strip()[-500:])
                return
            for old in mark.parent.glob("compiled-*"):
                old.unlink()
            mark.parent.mkdir(exist_ok=True)
            mark.touch()
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("the rules are compiled when they are used: %s", error)
        finally:
            process.kill()

    return wait


if __name__ == "__main__":
    start(print)()
