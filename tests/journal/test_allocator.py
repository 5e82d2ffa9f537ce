"""The memory of a process follows what it uses, down too."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import threading, time
import numpy as np
from pathlib import Path
from actors.journal import allocator

def rss_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

def columns(megabytes):
    for _ in range(8):  # freed one by one, so that the C library learns to keep what is so large
        np.ones(megabytes << 17)

allocator.EVERY_S = 0.1
before = rss_mb()
begin, end, done = threading.Event(), threading.Event(), threading.Barrier(13)
for _ in range(12):
    def work():
        np.ones(1 << 12)  # the thread has its heap
        begin.wait()
        kept = [np.ones(1 << 10)]
        columns(20)
        columns(3)
        done.wait()
        end.wait()
    threading.Thread(target=work).start()
allocator.give_back_regularly()
begin.set()
done.wait()
until = time.monotonic() + 10
while rss_mb() - before >= 60 and time.monotonic() < until:
    time.sleep(0.05)
print(rss_mb() - before)
end.set()
"""


def test_what_many_threads_have_freed_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    assert float(done.stdout) < 60
