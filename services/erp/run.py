"""The process that talks to systems outside: a courier for each destination of the outbox, and the ERP's changes into Waybill.

    python -m services.erp.run < config.json          # what the roof does; passwords never stand in an argument

The configuration is one JSON object, see `Config`. SIGTERM ends it after what is under way; SIGKILL at any time loses and doubles nothing.
"""

from __future__ import annotations

import json
import logging
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.journal import delivery, outbox
from actors.journal.store import Store, open_store
from actors.rules.errors import DomainError
from services.erp.connector import Connector
from services.erp.inbound import LOTS, Inbound, Told
from services.erp.tryton import Tryton
from services.erp.waybill import Access, ApiRefused, Holds, Mappings, Waybill
from services.outbox import Courier
from services.outside import Done, Failed, LockedOut, OutsideError, Refused
from services.webhook import Webhook

log = logging.getLogger("waybill.erp")

CHECKED = 200
"""So many of the newest movements that were booked in the ERP are looked up there at each sync, and as many older ones in turn, to
find what was deleted."""

PROTECT_EVERY_S = 60.0
"""How often all lots on hold are looked after, should somebody have taken some out of their place by hand."""


@dataclass(frozen=True)
class ErpConfig:
    """How to reach an ERP. The password is given here or stands alone in a file, which is read at each login."""

    url: str
    user: str
    kind: str = "tryton"
    system: str = "tryton"
    password: str = field(default="", repr=False)
    password_file: str = ""
    poll_s: float = 5.0

    def secret(self) -> str:
        """The password. Raises LockedOut where its file cannot be read."""
        if not self.password_file:
            return self.password
        try:
            return Path(self.password_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise LockedOut(f"the ERP's password file cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class Config:
    """What the process is told."""

    database_url: str = field(repr=False)
    target: str
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    erp: ErpConfig | None = None
    webhook_url: str = ""
    webhook_secret: str = field(default="", repr=False)
    webhook_name: str = "webhook"
    longest_wait_s: float = 60.0
    log_level: str = "INFO"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Config:
        """The configuration from JSON data."""
        erp = given.get("erp")
        return cls(**{**given, "erp": ErpConfig(**erp) if erp else None})

    @property
    def access(self) -> Access:
        """How to reach the doors."""
        return Access(self.target, self.ca, self.certificate, self.key)


def now_us() -> int:
    """This machine's clock, microseconds since 1970 UTC."""
    return time.time_ns() // 1000


def connector(config: ErpConfig, mappings: Mappings, waybill: Waybill) -> Connector:
    """The connector of a kind of ERP: a second one is named here."""
    if config.kind != "tryton":
        raise LockedOut(f"there is no connector for {config.kind!r}: tryton is one")
    return Tryton(config.url, config.user, config.secret, mappings, Holds(waybill), system=config.system, now_us=now_us)


def cursor_name(system: str) -> str:
    """Where a connector's cursor is kept."""
    return f"erp/{system}/cursor"


def ready_name(system: str) -> str:
    """What is there once an ERP has been read to its end."""
    return f"erp/{system}/ready"


def status_name(system: str) -> str:
    """Where it is kept how the last sync went."""
    return f"erp/{system}/status"


class ErpSync:
    """The ERP's changes into Waybill, every `poll_s`, in a thread of its own."""

    def __init__(self, store: Store, waybill: Waybill, config: ErpConfig, protect: Callable[[tuple[str, str]], None]) -> None:
        """`protect` is told lots on hold of which the ERP's stock changed."""
        self._store, self._config, self._protect = store, config, protect
        self._mappings = Mappings(waybill, config.system)
        self._holds = Holds(waybill)
        self.connector = connector(config, self._mappings, waybill)
        self._inbound = Inbound(waybill, self.connector, self._mappings)
        self._prepared = False
        self._ready = delivery.remembered(store.engine, ready_name(config.system)) is not None
        self._protected_at = -PROTECT_EVERY_S
        self._turn: int | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"erp-{config.system}", daemon=True)

    def ready(self) -> bool:
        """Whether the ERP was ever read to its end, so that it is known what is mapped."""
        return self._ready

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End."""
        self._stopping.set()
        self._thread.join(timeout_s)
        self.connector.close()

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                told = self.once()
                failures = 0
                log.log(logging.INFO if told.recorded or told.undone else logging.DEBUG, "sync: %s", told)
            except (OutsideError, ApiRefused, DomainError) as error:
                failures += 1
                log.warning("sync: %s", error)
                self._remember(error=str(error))
            except Exception as error:
                failures += 1
                log.exception("sync: a defect")
                self._remember(error=f"a defect of Waybill: {error}")
            pause = self._config.poll_s * 2 ** min(failures, 4) if failures > 1 else self._config.poll_s
            took = time.monotonic() - begun
            self._stopping.wait(
                max(min(pause, 60.0) - took, min(took, self._config.poll_s))
            )  # an ERP that is slow is not asked all the time

    def once(self) -> Told:
        """One sync. Raises OutsideError, ApiRefused, DomainError."""
        name = cursor_name(self._config.system)
        kept = json.loads(delivery.remembered(self._store.engine, name) or "{}")

        def keep(now: Mapping[str, Any]) -> None:
            self._store.write(delivery.remember, name, json.dumps(now)).result()

        told = self._inbound.sync(kept, keep, sent=self._sent())
        if not self._prepared:
            for line in self.connector.prepare():
                log.info("made in the ERP: %s", line)
            self._prepared = True
        if not self._ready:
            self._store.write(delivery.remember, ready_name(self._config.system), "1").result()
            self._ready = True
        every = time.monotonic() - self._protected_at >= PROTECT_EVERY_S or len(told.lots) >= LOTS
        if told.lots or every:
            on_hold = self._holds.lots()
            for lot in on_hold if every else told.lots & on_hold:
                self._protect(lot)
            self._protected_at = time.monotonic() if every else self._protected_at
        self._remember(told=told)
        return told

    def _sent(self) -> list[tuple[str, str]]:
        """Movements that were booked there, as (warehouse, key): the newest, and some older ones."""
        rows = delivery.delivered(self._store.engine, self._config.system, "movement", CHECKED)
        older = delivery.delivered(self._store.engine, self._config.system, "movement", CHECKED, before=self._turn) if self._turn else []
        self._turn = (older or rows)[-1].sequence if rows else None
        return [(row.body["warehouse_id"], row.body["key"]) for row in [*rows, *older] if row.last_error == Done.BOOKED.value]

    def _remember(self, *, told: Told | None = None, error: str = "") -> None:
        refused = [{"warehouse": key[0], "key": key[1], "why": why} for key, why in list(self._inbound.refused.items())[:100]]
        status = {"at_us": now_us(), "told": str(told) if told else "", "error": error, "refused": refused}
        try:
            self._store.write(delivery.remember, status_name(self._config.system), json.dumps(status)).result()
        except DomainError as failed:
            log.warning("the database: %s", failed)


class Erp:
    """An ERP's two directions together: its courier books, its sync reads, and lots on hold are looked after by the courier."""

    def __init__(self, store: Store, waybill: Waybill, config: ErpConfig, longest_wait_s: float) -> None:
        self._changed: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.sync = ErpSync(store, waybill, config, self._changed.put)
        self.booking = connector(config, Mappings(waybill, config.system), waybill)
        self.courier = Courier(
            store,
            config.system,
            self.booking,
            now_us=now_us,
            longest_wait_s=longest_wait_s,
            ready=self.sync.ready,
            between=self._look_after_holds,
        )

    def _look_after_holds(self) -> None:
        while True:
            try:
                lot = self._changed.get_nowait()
            except queue.Empty:
                return
            try:
                self.booking.protect(*lot)
            except (Refused, Failed) as error:
                log.warning("lot %s of %s is looked after again in a minute: %s", lot[1], lot[0], error)
            except OutsideError:
                self._changed.put(lot)
                raise

    def start(self) -> None:
        """Begin."""
        self.sync.start()
        self.courier.start()

    def stop(self) -> None:
        """End."""
        self.courier.stop()
        self.sync.stop()
        self.booking.close()


def run(config: Config) -> None:
    """Deliver and sync until SIGTERM or SIGINT."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    store = open_store(config.database_url, readers=2)
    waybill = Waybill(config.access)
    parts: list[Erp | Courier] = []
    if config.erp is not None:
        store.write(outbox.register, config.erp.system, now_us()).result()
        parts.append(Erp(store, waybill, config.erp, config.longest_wait_s))
    if config.webhook_url:
        store.write(outbox.register, config.webhook_name, now_us()).result()
        hook = Webhook(config.webhook_url, config.webhook_secret.encode())
        parts.append(Courier(store, config.webhook_name, hook, now_us=now_us, longest_wait_s=config.longest_wait_s))
    for part in parts:
        part.start()
    log.info("delivering")
    asked.wait()
    log.info("ending")
    for part in parts:
        part.stop()
    waybill.close()
    store.close()


def main() -> int:
    """The process."""
    config = Config.of(json.loads(sys.stdin.read()))
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    run(config)
    return 0


if __name__ == "__main__":
    sys.exit(main())
