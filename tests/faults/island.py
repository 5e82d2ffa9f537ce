"""A Ray node in a network namespace of its own, joined to this machine by one cable that can be pulled. Needs root and `ip` (iproute2)."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.faults.disk import Missing

HERE, THERE, NETWORK = "10.199.77.1", "10.199.77.2", "10.199.77.0/30"
JOIN_S = 120.0


class Cable:
    """The namespace and the cable to it."""

    def __init__(self) -> None:
        if shutil.which("ip") is None:
            raise Missing("ip (iproute2) is not installed: without it no network can be cut")
        self.name = f"wb{os.getpid()}"
        self.end = f"wb{os.getpid()}h"
        try:
            self._ip("netns", "add", self.name)
            self._ip("link", "add", self.end, "type", "veth", "peer", "name", "cable", "netns", self.name)
            self._ip("addr", "add", f"{HERE}/30", "dev", self.end)
            self._ip("link", "set", self.end, "up")
            for command in (["addr", "add", f"{THERE}/30", "dev", "cable"], ["link", "set", "cable", "up"], ["link", "set", "lo", "up"]):
                self._ip("-n", self.name, *command)
            self._ip("-n", self.name, "route", "add", "default", "via", HERE)
        except Missing:
            self.close()
            raise

    def _ip(self, *arguments: str) -> None:
        done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
        if done.returncode:
            raise Missing(f"a network namespace cannot be made (root is needed): ip {' '.join(arguments)}: {done.stderr.strip()}")

    def cut(self) -> None:
        """Pull the cable."""
        self._ip("link", "set", self.end, "down")

    def mend(self) -> None:
        """Put it back."""
        self._ip("link", "set", self.end, "up")

    def pids(self) -> list[int]:
        """The processes in the namespace."""
        done = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True)
        return [int(pid) for pid in done.stdout.split()]

    def close(self) -> None:
        """Remove both."""
        subprocess.run(["ip", "link", "del", self.end], capture_output=True)
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True)


class Island:
    """The node at the other end of a cable. `nodes`: tells (node id, address) of the cluster's living nodes."""

    def __init__(self, cable: Cable, gcs_address: str, log: Path, nodes: Callable[[], list[tuple[str, str]]]) -> None:
        self._cable, self._gcs_address, self._log, self._nodes = cable, gcs_address, log, nodes
        self._start()

    def _start(self) -> None:
        command = ["ip", "netns", "exec", self._cable.name, sys.executable, "-m", "ray.scripts.scripts", "start"]
        command += ["--address", self._gcs_address, "--node-ip-address", THERE, "--num-cpus", "2", "--block"]
        command += ["--object-store-memory", str(100 << 20)]
        deadline = time.monotonic() + JOIN_S
        process: subprocess.Popen[bytes] | None = None
        while not self.node_id():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the node in the network namespace did not join: {self._log.read_text()[-2000:]}")
            if process is None or process.poll() is not None:  # it gives up by itself where Ray's head is slow to answer
                self.end()
                with open(self._log, "ab") as log:
                    process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
            time.sleep(0.2)

    def node_id(self) -> str:
        """Ray's name of the node; empty while it is not there."""
        return next((node_id for node_id, address in self._nodes() if address == THERE), "")

    def cut(self) -> None:
        """Nobody reaches the node, and it reaches nobody."""
        self._cable.cut()

    def mend(self) -> None:
        """The network is back. The node learns that it was given up, and its old owners that they were superseded."""
        self._cable.mend()

    def join_again(self) -> None:
        """What is left of the node ends, and another joins in its place."""
        self.end()
        deadline = time.monotonic() + JOIN_S
        while self.node_id() and time.monotonic() < deadline:
            time.sleep(0.2)
        self._start()

    def end(self) -> None:
        """End the node's processes."""
        for pid in self._cable.pids():
            with contextlib.suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
