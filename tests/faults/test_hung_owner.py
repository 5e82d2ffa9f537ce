"""An owner that hangs on another node of the cluster, where the supervisor can send no signal, is ended all the same."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from tests.faults.system import Nodes, System, launched
from tests.postgres import PostgreSQL

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

PATIENCE_S = 90.0


def owner_on_another_node(system: System, nodes: Nodes) -> tuple[int, int, int]:
    """(shard, epoch, pid) of an owner that is not on the head's node."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        for shard in range(system.shards):
            owner = system.owner(shard)
            if owner is not None and nodes.raylet(owner.node) is not None:
                return shard, owner.epoch, owner.pid
        time.sleep(0.2)
    raise AssertionError("no shard on another node")


def test_a_hung_owner_on_another_node_is_replaced(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        place = Path(tempfile.mkdtemp(prefix="waybill-postgresql-"))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        server = PostgreSQL(place)
        server.start()
        stack.callback(server.stop)
        nodes = Nodes(1)
        stack.callback(nodes.close)
        settings = {"shards": 2, "owner_timeout_s": 3.0, "database_url": server.new_database(), "ray_address": nodes.address}
        system = stack.enter_context(launched(tmp_path, settings, server, nodes))
        shard, epoch, pid = owner_on_another_node(system, nodes)
        os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + PATIENCE_S
        while (found := system.owner(shard)) is None or found.epoch == epoch:
            assert time.monotonic() < deadline, "its shard stays away for as long as it is frozen"
            time.sleep(0.1)
        assert found.pid != pid
