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
begin, threads = threading.Event(), []
for _ in range(12):
    def work():
        np.ones(1 << 12)  # the thread has its heap
        begin.wait()
        kept = [np.ones(1 << 10)]
        columns(20)
        columns(3)
        time.sleep(1.0)
    threads.append(threading.Thread(target=work))
    threads[-1].start()
allocator.give_back_regularly()
begin.set()
time.sleep(0.8)
print(rss_mb() - before)
"""


def test_what_many_threads_have_freed_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=True)
    assert float(done.stdout) < 60
