"""Joining a Ray cluster: what is asked for, and what a person is told where it cannot be."""

from __future__ import annotations

import socket

import pytest

from cluster import ray_node
from cluster.processes import StartError
from cluster.settings import SettingsError, load


def test_a_cluster_needs_postgresql() -> None:
    with pytest.raises(SettingsError, match="PostgreSQL"):
        load({}, ray_address="10.0.0.1:6379")


def test_an_address_where_nothing_listens_is_told_at_once_with_what_to_look_at() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(StartError, match=rf"127.0.0.1:{port}: Connection refused\n.*ray start.*RAY_AUTH_TOKEN"):
        ray_node.must_answer(f"127.0.0.1:{port}")
    ray_node.must_answer("auto")  # Ray's own way to look
