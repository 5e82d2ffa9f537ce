"""Tryton's JSON-RPC over HTTP: log in, call, and turn every way of failing into an OutsideError that says what to do.

A session is made at the first call and made anew when it has ended. The password stands in the body of the login alone; nothing
here logs a body.
"""

from __future__ import annotations

import base64
import datetime as dt
import itertools
import json
import logging
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import httpx

from services.outside import Away, Failed, LockedOut, OutsideError, Refused

log = logging.getLogger(__name__)

CONNECT_S = 5.0
READ_S = 60.0
"""An answer that takes longer is taken for lost; what it would have said is found out by asking again."""
SHOWN = 300
"""So many characters of a refusal are kept."""

UserError, UserWarning_, Concurrency, Login = "UserError", "UserWarning", "ConcurrencyException", "LoginException"


class TrytonRpc:
    """One user's connection to one database. Not thread-safe."""

    def __init__(self, url: str, user: str, password: Callable[[], str], *, read_s: float = READ_S) -> None:
        """`url`: http(s)://HOST:PORT/DATABASE. `password` is asked at each login, so that a changed one is found."""
        self.url = url.rstrip("/")
        self._user, self._password = user, password
        self._http = httpx.Client(timeout=httpx.Timeout(read_s, connect=CONNECT_S), trust_env=False, follow_redirects=False)
        self._numbers = itertools.count(1)
        self._session = ""
        self.context: dict[str, Any] = {}

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def call(self, method: str, *arguments: Any, context: Mapping[str, Any] | None = None) -> Any:
        """The result of `model.NAME.METHOD`, its context given. Raises OutsideError."""
        if not self._session:
            self._log_in()
        parameters = [*arguments, {**self.context, **(context or {})}]
        answer = self._post(method, parameters, self._session)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._log_in()
            answer = self._post(method, parameters, self._session)
        return self._result(method, answer)

    def version(self) -> str:
        """The server's series, such as "8.2"; needs no login."""
        root, _, _ = self.url.rpartition("/")
        return str(self._result("common.server.version", self._post("common.server.version", [], "", f"{root}/rpc/")))

    def _log_in(self) -> None:
        self._session, self.context = "", {}
        answer = self._post("common.db.login", [self._user, {"password": self._password()}], "")
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise LockedOut(f"Tryton does not let {self._user!r} in: wrong user or password, or the user is no longer active")
        found = self._result("common.db.login", answer)
        if not isinstance(found, list) or len(found) < 2:
            raise Away("Tryton answered a login with something else: is this its address?")
        token = base64.b64encode(f"{self._user}:{found[0]}:{found[1]}".encode()).decode()
        self._session = f"Session {token}"
        preferences = self.call("model.res.user.get_preferences", True)
        self.context = {name: preferences[name] for name in ("company", "groups", "employee", "language") if preferences.get(name)}
        self.context["_skip_warnings"] = True  # questions to a person at a screen: may this be dated in the future? …

    def _post(self, method: str, parameters: list[Any], session: str, url: str = "") -> httpx.Response:
        body = json.dumps({"id": next(self._numbers), "method": method, "params": parameters}, default=_encode)
        headers = {"Content-Type": "application/json", "Authorization": session} if session else {"Content-Type": "application/json"}
        try:
            return self._http.post(url or f"{self.url}/rpc/", content=body, headers=headers)
        except httpx.TimeoutException:
            raise Away(f"Tryton did not answer {method} in time") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Away(f"Tryton cannot be reached at {self.url}: {type(error).__name__} {error}") from None

    def _result(self, method: str, answer: httpx.Response) -> Any:
        if answer.status_code != httpx.codes.OK:
            raise _by_status(method, answer)
        if "json" not in answer.headers.get("content-type", ""):
            kind = answer.headers.get("content-type", "nothing")
            raise Away(f"{self.url} answered {method} with {kind} instead of JSON: a proxy, a maintenance page, or not Tryton's address")
        try:
            content = json.loads(answer.content, object_hook=_decode)
        except ValueError:
            raise Away(f"{self.url} answered {method} with JSON that is cut or broken") from None
        if not isinstance(content, dict):
            raise Away(f"{self.url} answered {method} with other JSON than Tryton's")
        if content.get("error"):
            raise _by_error(method, content["error"])
        return content.get("result")


def _by_status(method: str, answer: httpx.Response) -> OutsideError:
    code = answer.status_code
    if code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return LockedOut(f"Tryton forbids {method} (HTTP {code}): the user lacks access to it")
    if code == httpx.codes.NOT_FOUND:
        return Away(f"no such database at {answer.url} (HTTP 404)")
    if code in (httpx.codes.BAD_REQUEST, httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.METHOD_NOT_ALLOWED):
        return Failed(f"Tryton did not understand {method} (HTTP {code})")
    return Away(f"Tryton answered {method} with HTTP {code}")


def _by_error(method: str, error: Any) -> OutsideError:
    """Tryton tells [its exception's name, arguments]; of exceptions of Python [text, trace]."""
    name = error[0] if isinstance(error, list) and error else error
    told = error[1] if isinstance(error, list) and len(error) > 1 else ""
    if name == Concurrency:
        return Away(f"Tryton: {method} met another change of the same record")
    if name == Login:
        return LockedOut("Tryton asks for another way to log in")
    text = " ".join(str(part) for part in told if part) if isinstance(told, list) else str(told)
    if name in (UserError, UserWarning_):
        refusal = f"Tryton refuses {method}: {text[:SHOWN]}"
        return LockedOut(refusal) if "not allowed" in text and "resource" in text else Refused(refusal)
    return Failed(f"Tryton failed in {method}: {str(name)[:SHOWN]}")


def _encode(value: Any) -> Any:
    if isinstance(value, Decimal):
        return {"__class__": "Decimal", "decimal": str(value)}
    if isinstance(value, dt.datetime):
        names = ("year", "month", "day", "hour", "minute", "second", "microsecond")
        return {"__class__": "datetime", **{name: getattr(value, name) for name in names}}
    if isinstance(value, dt.date):
        return {"__class__": "date", "year": value.year, "month": value.month, "day": value.day}
    raise TypeError(f"{type(value).__name__} has no place in JSON-RPC")


def _decode(found: dict[str, Any]) -> Any:
    kind = found.get("__class__")
    if kind == "Decimal":
        return Decimal(found["decimal"])
    if kind == "datetime":
        names = ("year", "month", "day", "hour", "minute", "second", "microsecond")
        year, month, day, hour, minute, second, microsecond = (int(found[name]) for name in names)
        return dt.datetime(year, month, day, hour, minute, second, microsecond, tzinfo=dt.UTC)
    if kind == "date":
        return dt.date(found["year"], found["month"], found["day"])
    return found
