"""Settings: read from the environment in one place, checked when they are read, documented in one table."""

from pathlib import Path

import pytest

from cluster.settings import SettingsError, load, with_table

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def test_without_any_setting_everything_is_on_loopback_in_one_sqlite_file() -> None:
    settings = load({})
    assert (settings.host, settings.port, settings.is_sqlite) == ("127.0.0.1", 50051, True)
    assert settings.url.database == str(Path("waybill-data/waybill.db").absolute())


def test_the_environment_is_read_and_what_is_given_in_code_goes_before_it() -> None:
    settings = load({"WAYBILL_PORT": "7000", "WAYBILL_TICK_S": "0.5"}, port=7001)
    assert (settings.port, settings.tick_s) == (7001, 0.5)


def test_an_empty_variable_is_as_if_not_set() -> None:
    assert load({"WAYBILL_PORT": ""}).port == 50051


def test_a_none_given_in_code_is_as_if_not_given() -> None:
    assert load({"WAYBILL_PORT": "7000"}, port=None).port == 7000


def test_the_process_environment_is_what_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAYBILL_SHARDS", "3")
    assert load().shards == 3


def test_a_misspelt_name_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="WAYBILL_DATABSE_URL: there is no such setting"):
        load({"WAYBILL_DATABSE_URL": "sqlite:///x.db"})


def test_names_of_the_tests_are_left_alone() -> None:
    assert load({"WAYBILL_TEST_SEED": "7"}).port == 50051


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"port": "70000"}, "WAYBILL_PORT"),
        ({"port": "http"}, "WAYBILL_PORT"),
        ({"shards": "0"}, "WAYBILL_SHARDS"),
        ({"log_level": "LOUD"}, "WAYBILL_LOG_LEVEL"),
        ({"tick_s": "-1"}, "WAYBILL_TICK_S"),
        ({"tick_s": "nan"}, "WAYBILL_TICK_S"),
        ({"ring_bytes": "10"}, "WAYBILL_RING_BYTES"),
        ({"host": "0.0.0.0"}, "not loopback"),
        ({"tls_cert": "only.pem"}, "together"),
        ({"tls_cert": "no.pem", "tls_key": "no.key"}, "no such file"),
        ({"tls_client_ca": "ca.pem"}, "needs tls_cert"),
        ({"owner_timeout_s": "2", "heartbeat_s": "1"}, "three heartbeat_s"),
        ({"ray_address": "head:6379"}, "needs a PostgreSQL"),
        ({"erp_url": "https://me:pass@erp.example/db", "erp_password": "x"}, "erp_url must have no user or password"),
        ({"database_url": "mysql://localhost/x"}, "sqlite:// or postgresql://"),
        ({"database_url": "sqlite://"}, "must name a file"),
        ({"database_url": "what?"}, "is no URL"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_with_the_setting_named(given: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        load({}, **given)


def test_the_doors_may_leave_loopback_with_tls(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("PEM")
    settings = load({}, host="0.0.0.0", tls_cert=tmp_path / "cert.pem", tls_key=tmp_path / "key.pem")
    assert settings.host == "0.0.0.0"


def test_a_plain_postgresql_url_gets_the_installed_driver() -> None:
    settings = load({}, database_url="postgresql://ann:secret@db/waybill")
    assert settings.url_text == "postgresql+psycopg://ann:secret@db/waybill"
    assert not settings.is_sqlite


@pytest.mark.parametrize("url", ["postgresql://ann:secret@db/waybill", "mysql://ann:secret@db/waybill", "ann:secret"])
def test_a_password_is_never_shown(url: str) -> None:
    try:
        shown = repr(load({}, database_url=url))
    except SettingsError as error:
        shown = str(error)
    assert "secret" not in shown


def test_the_table_in_the_operations_page_is_current() -> None:
    page = OPERATIONS.read_text(encoding="utf-8")
    assert with_table(page) == page, "run: python -m cluster.settings docs/operations.md"
