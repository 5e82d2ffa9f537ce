"""Every setting of Waybill: the one place that reads the environment (WAYBILL_*).

python -m cluster.settings docs/operations.md     # writes the table of all settings into the page
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

PREFIX = "WAYBILL_"
FOREIGN_PREFIX = "WAYBILL_TEST_"
"""Names with this prefix belong to the tests and are no settings."""

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
REPORT_KEY = "report-key.pem"
"""Name of the key's file in the data folder."""

SECRET = frozenset({"database_url", "erp_password", "webhook_secret"})
"""Settings whose value is never shown."""

TABLE_BEGIN, TABLE_END = "<!-- settings: begin -->", "<!-- settings: end -->"

Bytes = Annotated[int, Field(ge=1 << 20)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class SettingsError(ValueError):
    """A setting that cannot be used. The text has one line per setting: its name, the rule, what was given."""


class Settings(BaseModel):
    """All settings; make one with `load`. Durations are in seconds where the name ends in `_s`, sizes in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(Path("waybill-data"), description="Folder for the SQLite file, logs and the record of processes.")
    database_url: str = Field(
        "",
        repr=False,
        description="SQLAlchemy URL of the database: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/NAME`. "
        "Empty: the SQLite file `waybill.db` in the data folder.",
    )
    shards: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Number of shards. Fixed for a database when it is first used; empty: what is fixed, else the cores.",
    )

    host: str = Field("127.0.0.1", min_length=1, description="Address the doors listen on. Anything but loopback needs TLS.")
    port: int = Field(50051, ge=0, le=65535, description="Port the doors listen on; 0: any free one.")
    doors: int = Field(1, ge=1, le=64, description="Number of door processes; they share the port.")
    spares: bool = Field(
        True, description="Keep one started door (where there is one only) and one started shard process in reserve, about 200 MB each: "
        "what dies is replaced in a second instead of four.",
    )  # fmt: skip
    tls_cert: Path | None = Field(None, description="PEM file of the doors' certificate chain.")
    tls_key: Path | None = Field(None, description="PEM file of its private key.")
    tls_client_ca: Path | None = Field(None, description="PEM file of the authority that client certificates must come from (mutual TLS).")
    reflection: bool = Field(False, description="Serve gRPC reflection (for grpcurl and the like).")
    auto_register: bool = Field(True, description="Register an unknown tag by its first reading; off: such readings are refused.")

    report_key: Path | None = Field(
        None,
        description="PEM file of the Ed25519 key that reports are signed with (`waybill keys make` makes one). "
        "Empty: `report-key.pem` in the data folder where it is there, else reports are not signed.",
    )

    archive: str = Field(
        "",
        description="Folder or URL (`s3://…`) of the archive of closed journeys; replays' results lie below it. "
        "Empty: `archive` in the data folder.",
    )

    gather_ms: float = Field(
        40.0,
        ge=0,
        le=1000,
        description="How long small messages wait for each other in a door at most, where several streams speak or a shard is busy.",
    )
    in_flight_bytes: Bytes = Field(256 << 20, description="Bytes of readings in flight in one door; beyond: RESOURCE_EXHAUSTED.")
    queue_s: Seconds = Field(
        0.25, description="Readings that would wait longer than this in a door (at its rate of late) are refused: RESOURCE_EXHAUSTED."
    )
    unread_bytes: int = Field(
        64 << 10,
        ge=16 << 10,
        le=16 << 20,
        description="Bytes that a sender may be ahead of what a door has read of its stream; beyond, sending waits. One connection moves "
        "about as many in a round trip: where much comes over a long line, give its bytes a second times its round trip.",
    )
    ring_bytes: Bytes = Field(64 << 20, description="Recent readings that each shard keeps in memory.")
    snapshot_readings: int = Field(
        1_000_000,
        ge=1_000,
        description="A shard takes a snapshot of its state after this many readings, or as many as took as much room as its newest one.",
    )
    silence_floor_s: Seconds = Field(
        60.0, description="A tag whose usual interval is learnt is never silent before this. A configured interval decides alone."
    )
    tick_s: Seconds = Field(5.0, description="Period of the shards' clock ticks: silence, lateness, readings no longer in the future.")

    heartbeat_s: Seconds = Field(1.0, description="Period of a shard owner's heartbeat in the database.")
    owner_timeout_s: Seconds = Field(15.0, description="The supervisor ends a shard owner whose heartbeat is older than this.")
    start_timeout_s: Seconds = Field(120.0, description="How long starting may take before it is given up.")
    stop_timeout_s: Seconds = Field(10.0, description="How long a process may take to end before it is killed.")

    ray_address: str = Field("", description="Address of an existing Ray cluster to join; empty: start one on this machine.")
    keep_shards: bool = Field(
        False, description="In a Ray cluster that was joined: leave the shards running at the end, for other `waybill up` that serve them."
    )
    ray_namespace: str = Field("waybill", min_length=1, description="Ray namespace of the shards: one for each system in a cluster.")
    ray_object_store_bytes: Annotated[int, Field(ge=80 << 20)] = Field(
        256 << 20, description="Shared memory for Ray's objects on this machine."
    )
    client_ca: Path | None = Field(None, description="PEM file by which Waybill's own parts know the doors, where these use TLS.")
    client_cert: Path | None = Field(None, description="PEM file of the certificate that these parts show (mutual TLS).")
    client_key: Path | None = Field(None, description="PEM file of its private key.")

    erp_url: str = Field("", description="The ERP that stock is kept in step with: for Tryton `https://HOST:PORT/DATABASE`. Empty: none.")
    erp_kind: str = Field("tryton", pattern="^tryton$", description="What kind of ERP it is: `tryton`.")
    erp_system: str = Field(
        "tryton", min_length=1, max_length=64, description="Its name in mappings, movements and the outbox; not to be changed afterwards."
    )
    erp_user: str = Field("waybill", min_length=1, description="The user that Waybill logs in as there.")
    erp_password: str = Field("", repr=False, description="That user's password.")
    erp_password_file: Path | None = Field(None, description="A file with nothing but the password, read at each login.")
    erp_poll_s: Seconds = Field(5.0, description="How often the ERP's changes are fetched.")
    webhook_url: str = Field("", description="Where every movement, hold and decision is posted, too. Empty: nowhere.")
    webhook_secret: str = Field("", repr=False, description="The secret that these posts are signed with.")
    outbox_longest_wait_s: Seconds = Field(60.0, description="The longest wait between attempts to deliver a message of the outbox.")

    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="DEBUG, INFO, WARNING or ERROR.")

    @model_validator(mode="after")
    def _together(self) -> Settings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key are given together or not at all")
        if self.erp_url and not (self.erp_password or self.erp_password_file):
            raise ValueError("erp_url needs erp_password or erp_password_file")
        if self.erp_password and self.erp_password_file:
            raise ValueError("give erp_password or erp_password_file, not both")
        for name, url in (("erp_url", self.erp_url), ("webhook_url", self.webhook_url)):
            if url and not url.startswith(("http://", "https://")):
                raise ValueError(f"{name} must begin with http:// or https://")
            if "@" in url.split("://", 1)[-1].partition("/")[0]:
                raise ValueError(f"{name} must have no user or password in it: addresses are logged")
        if self.webhook_url and not self.webhook_secret:
            raise ValueError("webhook_url needs webhook_secret: a receiver must be able to tell who posts")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        for path in (self.tls_cert, self.tls_key, self.tls_client_ca, self.report_key, self.client_ca, self.client_cert, self.client_key):
            if path is not None and not path.is_file():
                raise ValueError(f"no such file: {path}")
        if self.host not in LOOPBACK and self.tls_cert is None:
            raise ValueError(f"host {self.host} is not loopback: give tls_cert and tls_key, or bind 127.0.0.1")
        if self.owner_timeout_s < 3 * self.heartbeat_s:
            raise ValueError("owner_timeout_s must be at least three heartbeat_s")
        if self.url.get_backend_name() not in ("sqlite", "postgresql"):
            raise ValueError("database_url must begin with sqlite:// or postgresql://")
        if self.url.get_backend_name() == "sqlite" and self.url.database in (None, "", ":memory:"):
            raise ValueError("database_url must name a file: a database in memory remembers nothing")
        if self.ray_address and self.is_sqlite:
            raise ValueError("ray_address needs a PostgreSQL database_url: a SQLite file has one machine")
        return self

    @property
    def signing_key(self) -> Path | None:
        """The file of the key that reports are signed with; None: there is none."""
        usual = self.data_dir / REPORT_KEY
        return self.report_key or (usual if usual.is_file() else None)

    @property
    def url(self) -> URL:
        """The database URL that is used, with the driver named."""
        if not self.database_url:
            return URL.create("sqlite", database=str(self.data_dir.absolute() / "waybill.db"))
        try:
            url = make_url(self.database_url)
        except ArgumentError:
            raise ValueError("database_url is no URL; it looks like postgresql://USER:PASSWORD@HOST/NAME") from None
        if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
            return url.set(database=str(Path(url.database).absolute()))  # processes with other working folders mean the same file
        return url.set(drivername="postgresql+psycopg") if url.drivername in ("postgresql", "postgres") else url

    @property
    def archive_location(self) -> str:
        """Where the archive lies: a URL, or an absolute path."""
        found = self.archive or str(self.data_dir / "archive")
        return found.rstrip("/") if "://" in found else str(Path(found).absolute())

    @property
    def url_text(self) -> str:
        """The database URL as text, password included: for processes, never for logs."""
        return self.url.render_as_string(hide_password=False)

    @property
    def is_sqlite(self) -> bool:
        """Whether the database is an SQLite file, which one committer process writes."""
        return self.url.get_backend_name() == "sqlite"


def load(environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """Settings from the environment; `given` goes before it (a None is as if not given).

    A WAYBILL_ name that is no setting is refused, so that a misspelt one is not silently without effect.
    Raises SettingsError.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for variable in sorted(name for name in environment if name.startswith(PREFIX) and not name.startswith(FOREIGN_PREFIX)):
        name = variable.removeprefix(PREFIX).lower()
        if variable != PREFIX + name.upper() or name not in Settings.model_fields:
            raise SettingsError(f"{variable}: there is no such setting")
        if environment[variable]:
            values[name] = environment[variable]
    values.update({name: value for name, value in given.items() if value is not None})
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError("\n".join(_line(problem) for problem in error.errors())) from None


def _line(problem: Mapping[str, Any]) -> str:
    """One line for a person from one of pydantic's errors; a password is never repeated."""
    name = ".".join(str(part) for part in problem["loc"])
    text = problem["msg"].removeprefix("Value error, ")
    if not name:
        return str(text)
    got = "" if name in SECRET else f" (got {problem.get('input')!r})"
    return f"{PREFIX}{name.upper()}: {text}{got}"


def table() -> str:
    """The settings as a Markdown table, in the order of this file."""
    lines = ["| environment variable | default | what it does |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "") else f"`{field.default}`"
        lines.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def with_table(page: str) -> str:
    """The page with the table between its two marks brought up to date."""
    before, _, rest = page.partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    return f"{before}{TABLE_BEGIN}\n{table()}\n{TABLE_END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_table(path.read_text(encoding="utf-8")), encoding="utf-8")
