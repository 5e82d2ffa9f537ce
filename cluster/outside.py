"""What the process that talks to systems outside (services/erp/run.py) is told; light to import, for the command line needs it too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cluster.settings import Settings


def talks_outside(settings: Settings) -> bool:
    """Whether there is an ERP or a webhook to talk to."""
    return bool(settings.erp_url or settings.webhook_url)


def outside_config(settings: Settings, target: str) -> dict[str, Any]:
    """What the process that talks to systems outside is told, on its standard input."""
    erp = {
        "url": settings.erp_url,
        "user": settings.erp_user,
        "kind": settings.erp_kind,
        "system": settings.erp_system,
        "password": settings.erp_password,
        "password_file": _absolute(settings.erp_password_file) or "",
        "poll_s": settings.erp_poll_s,
    }
    return {
        "database_url": settings.url_text,
        "target": target,
        "ca": _absolute(settings.client_ca),
        "certificate": _absolute(settings.client_cert),
        "key": _absolute(settings.client_key),
        "erp": erp if settings.erp_url else None,
        "webhook_url": settings.webhook_url,
        "webhook_secret": settings.webhook_secret,
        "longest_wait_s": settings.outbox_longest_wait_s,
        "log_level": settings.log_level,
    }


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())
