"""What all tests share: one Ray and one PostgreSQL a run, fresh databases, and a running Waybill.

Whatever needs a database runs on both, under the ids `sqlite` and `postgresql`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from tests.databases import Databases
from tests.postgres import PostgreSQL

if TYPE_CHECKING:
    from cluster.boot import Running

DATABASES = ("sqlite", "postgresql")
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# The same examples in every run: a test that fails for one person fails for all. `thorough` looks further (HYPOTHESIS_PROFILE=thorough).
quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("fast", derandomize=True, max_examples=60, deadline=None, database=None, suppress_health_check=quiet)
settings.register_profile("thorough", max_examples=2_000, deadline=None, print_blob=True, suppress_health_check=quiet)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real recordings beside the project; where it is absent the tests on real input are skipped."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the recordings are not here (../shared/data)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgreSQL]:
    """One PostgreSQL server for the run."""
    # Not under pytest's folder, which only its owner may enter: the server may run as another user (see tests/postgres.py).
    folder = Path(tempfile.mkdtemp(prefix="waybill-postgresql-"))
    server = PostgreSQL(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def databases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Databases:
    """Where databases come from."""
    return Databases(lambda: tmp_path_factory.mktemp("database"), lambda: request.getfixturevalue("postgres"))


@pytest.fixture(scope="session")
def new_database(databases: Databases) -> Callable[[str], str]:
    """Make a migrated, otherwise empty database of a kind, `sqlite` or `postgresql`; gives its URL."""
    return databases.new


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, databases: Databases) -> Iterator[str]:
    """URL of a database of either kind, migrated and otherwise empty, for one test."""
    url = databases.lend(request.param)
    yield url
    databases.take_back(url)


@pytest.fixture(params=DATABASES)
def bare_database_url(request: pytest.FixtureRequest, databases: Databases) -> str:
    """URL of a database of either kind that no migration has seen."""
    return databases.bare(request.param)


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray for the run."""
    import ray

    from cluster import ray_node
    from cluster.settings import load

    ray_node.connect(load({}, ray_namespace="tests", spares=False))
    heads = ray_node.head_processes()
    yield
    if ray.is_initialized():
        ray_node.disconnect(heads, [], 10)


@pytest.fixture(scope="session")
def start_waybill(
    ray_session: None, new_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Running]:
    """Start a whole Waybill on a new database of a kind, on any free port; whoever calls stops it. Further arguments are settings."""
    from cluster.boot import start
    from cluster.settings import REPORT_KEY, load
    from services.reports.seal import new_key

    def run(kind: str, **given: object) -> Running:
        namespace = f"waybill-{uuid.uuid4().hex[:8]}"
        data_dir = tmp_path_factory.mktemp("waybill-data")
        (data_dir / REPORT_KEY).write_bytes(new_key())  # so that it signs its reports
        chosen = {"shards": 2, "port": 0, "spares": False, "data_dir": data_dir, "ray_namespace": namespace}
        if "database_url" not in given:
            chosen["database_url"] = new_database(kind)
        return start(load({}, **{**chosen, **given}))

    return run


@pytest.fixture(scope="session", params=DATABASES)
def waybill(request: pytest.FixtureRequest, start_waybill: Callable[..., Running]) -> Iterator[Running]:
    """A running Waybill of two shards whose clock ticks often: `waybill.target` is where gRPC clients connect.

    All tests of a database share it, so they give what they make ids of their own; tests that kill or reconfigure start their own.
    """
    with start_waybill(request.param, tick_s=0.3) as running:
        yield running


@pytest.fixture(scope="session", params=DATABASES)
def mortal(request: pytest.FixtureRequest, start_waybill: Callable[..., Running]) -> Iterator[Running]:
    """A running Waybill of two shards whose parts may be killed; each shard takes a snapshot after every thousand readings."""
    with start_waybill(request.param, snapshot_readings=1_000, tick_s=0.5) as running:
        yield running
