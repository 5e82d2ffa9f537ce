"""A virtual environment for what a peer needs, made by the bench itself, so that no peer is among Waybill's own dependencies.

`bench/environments/NAME.txt` pins what it holds (names and versions, no addresses). It is made once, under build/bench, and made
anew when the file changes.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "build" / "bench"


def python_of(name: str) -> Path:
    """The interpreter of the environment `name`, made if it is not there. Raises CalledProcessError where pip fails."""
    wanted = ROOT / "bench" / "environments" / f"{name}.txt"
    folder = BUILT / name
    mark = folder / "made-from"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    python = folder / "bin" / "python"
    if not mark.is_file() or mark.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        print(f"making the environment of {name} in {folder.relative_to(ROOT)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "-r", str(wanted)]
        subprocess.run(pip, check=True)
        mark.write_text(digest)
    return python
