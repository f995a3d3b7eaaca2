"""Settings are named, explained and refused in words that name the variable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import SettingsError
from app.settings import PREFIX, Settings, check_names, load, table

_DEFAULTS = Settings()
_NUMBERS = [name for name in Settings.__struct_fields__ if not isinstance(getattr(_DEFAULTS, name), str)]
_ZERO_HAS_A_SENSE = {
    "console",
    "db_statement_cache",
    "max_wait",
    "idempotency_retention",
    "idempotency_memory",
    "delivery_backoff_base",
    "reconcile_grace",
    "job_retention",
    "job_summary_retention",
    "history_retention",
    "dead_letter_retention",
    "audit_retention",
    "crm_rate",
    "stale_seconds",
    "stale_key_seconds",
    "webhook_rotation",
    "metrics_destinations",
    "worker_port",
}


def test_without_variables_the_defaults_hold() -> None:
    assert load({}) == _DEFAULTS
    assert load({"PATH": "/bin", "TRANCHE_URL": "  "}) == _DEFAULTS


def test_a_variable_sets_its_field() -> None:
    """Of the type that the field has; white space around a value is not part of it."""
    env = {"TRANCHE_DB_POOL_SIZE": "20", "TRANCHE_DB_LOCK_TIMEOUT": " 0.5 ", "TRANCHE_LOG_FORMAT": "console"}
    settings = load(env)
    assert (settings.db_pool_size, settings.db_lock_timeout, settings.log_format) == (20, 0.5, "console")


def test_variables_of_others_are_left_alone() -> None:
    """Kubernetes makes TRANCHE_PORT=tcp://… for a service of that name."""
    assert load({"TRANCHE_PORT": "tcp://10.0.0.1:8000"}) == _DEFAULTS


@pytest.mark.parametrize("name", _NUMBERS)
def test_every_number_has_a_unit(name: str) -> None:
    """Nobody must guess whether a timeout is in seconds."""
    (row,) = (row for row in table(_DEFAULTS) if row.variable == PREFIX + name.upper())
    assert row.unit


def test_every_setting_is_listed_with_its_meaning() -> None:
    rows = table(_DEFAULTS)
    assert [row.variable for row in rows] == [PREFIX + name.upper() for name in Settings.__struct_fields__]
    assert all(len(row.meaning) > 5 for row in rows)
    assert all(row.value == row.default for row in rows)


@pytest.mark.parametrize("name", _NUMBERS)
@pytest.mark.parametrize("value", ["many", "-1", "nan", "inf", "1e300", "1,5", "0x10", "true"])
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    variable = PREFIX + name.upper()
    with pytest.raises(SettingsError) as refused:
        load({variable: value})
    assert f"{variable}={value!r}: " in refused.value.detail
    assert "$" not in refused.value.detail


@pytest.mark.parametrize("name", _NUMBERS)
def test_zero_is_refused_where_it_would_mean_for_ever_or_never(name: str) -> None:
    """A lock_timeout of 0 waits for ever in PostgreSQL; a pool of 0 serves nobody."""
    env = {PREFIX + name.upper(): "0"}
    if name in _ZERO_HAS_A_SENSE:
        assert getattr(load(env), name) == 0
    else:
        with pytest.raises(SettingsError, match="above 0"):
            load(env)


@pytest.mark.parametrize("name", ["breaker_failure_rate", "breaker_slow_rate"])
def test_a_share_is_at_most_one(name: str) -> None:
    assert getattr(load({PREFIX + name.upper(): "1"}), name) == 1
    with pytest.raises(SettingsError):
        load({PREFIX + name.upper(): "50"})


@given(st.text(min_size=1))
def test_any_text_is_a_number_or_refused(text: str) -> None:
    try:
        settings = load({"TRANCHE_CHUNK_SIZE": text, "TRANCHE_BREAKER_OPEN": text})
    except SettingsError:
        return
    assert settings.chunk_size >= 1
    assert settings.breaker_open > 0


def test_secrets_never_show() -> None:
    """Neither keys nor the passwords inside URLs; what is not secret does."""
    settings = load(
        {
            "TRANCHE_SECRET_KEY": "c2VjcmV0",
            "TRANCHE_API_KEY": "trn_c2VjcmV0",
            "TRANCHE_DATABASE_URL": "postgresql://me:c2VjcmV0@db.example:5432/app?sslmode=require",
            "TRANCHE_REDIS_URL": "rediss://:c2VjcmV0@cache.internal:6379/0",
            "TRANCHE_LOG_LEVEL": "debug",
        }
    )
    values = {row.variable: row.value for row in table(settings)}
    assert not any("c2VjcmV0" in value for value in values.values())
    assert values["TRANCHE_SECRET_KEY"] == values["TRANCHE_API_KEY"] == "***"
    assert values["TRANCHE_DATABASE_URL"] == "postgresql://me:***@db.example:5432/app?sslmode=require"
    assert values["TRANCHE_REDIS_URL"] == "rediss://:***@cache.internal:6379/0"
    assert values["TRANCHE_LOG_LEVEL"] == "debug"
    assert values["TRANCHE_URL"] == "http://127.0.0.1:8000"
    secrets = ("TRANCHE_SECRET_KEY", "TRANCHE_API_KEY")
    assert {row.value for row in table(_DEFAULTS) if row.variable in secrets} == {""}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql://db/app?user=me&password=hush&sslmode=require",
            "postgresql://db/app?user=me&password=***&sslmode=require",
        ),
        ("postgresql://me:a:b@db/app", "postgresql://me:***@db/app"),
        ("postgresql://me:p/w@db/app", "postgresql://me:***@db/app"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("postgresql://me@db:5432/app", "postgresql://me@db:5432/app"),
    ],
)
def test_passwords_in_urls(url: str, shown: str) -> None:
    values = {row.variable: row.value for row in table(Settings(database_url=url))}
    assert values["TRANCHE_DATABASE_URL"] == shown


@pytest.mark.parametrize("origins", ["app.example.com", "https://App.example.com", "https://a.example/", "https://"])
def test_an_origin_that_no_browser_sends_is_refused(origins: str) -> None:
    with pytest.raises(SettingsError, match="not an origin"):
        load({"TRANCHE_CORS_ORIGINS": origins})


def test_origins_are_a_list() -> None:
    assert load({"TRANCHE_CORS_ORIGINS": "*"}).cors_origins == "*"
    assert load({"TRANCHE_CORS_ORIGINS": "https://a.example, http://localhost:3000"}).cors_origins


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("TRANCHE_DB_POOLSIZE", "TRANCHE_DB_POOL_SIZE"),
        ("TRANCHE_LOGLEVEL", "TRANCHE_LOG_LEVEL"),
        ("TRANCHE_SECRET_KEYS", "TRANCHE_SECRET_KEY"),
        ("TRANCHE_QUITE_ANOTHER_THING", "tranche settings"),
        ("TRANCHE_FRONT_PORT", "tranche settings"),
    ],
)
def test_a_name_that_is_no_setting_is_refused_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(SettingsError) as refused:
        check_names({"PATH": "/bin", name: "20"})
    assert name in refused.value.detail
    assert near in refused.value.detail


def test_what_kubernetes_makes_for_services_is_left_alone() -> None:
    """For services named tranche, tranche-api and tranche-redis."""
    assert load({"TRANCHE_WORKER_PORT": "tcp://10.0.0.1:9100"}).worker_port == 0  # of a service, not ours
    check_names(
        {
            "TRANCHE_SERVICE_HOST": "10.0.0.1",
            "TRANCHE_SERVICE_PORT": "8000",
            "TRANCHE_SERVICE_PORT_HTTP": "8000",
            "TRANCHE_PORT": "tcp://10.0.0.1:8000",
            "TRANCHE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
            "TRANCHE_PORT_8000_TCP_PROTO": "tcp",
            "TRANCHE_PORT_8000_TCP_PORT": "8000",
            "TRANCHE_PORT_8000_TCP_ADDR": "10.0.0.1",
            "TRANCHE_API_SERVICE_HOST": "10.0.0.2",
            "TRANCHE_API_PORT_8000_TCP_ADDR": "10.0.0.2",
            "TRANCHE_REDIS_PORT": "tcp://10.0.0.3:6379",
            "TRANCHE_DB_POOL_SIZE": "20",
        }
    )


@pytest.mark.parametrize(("name", "value"), [("LOG_LEVEL", "verbose"), ("LOG_FORMAT", "text")])
def test_a_word_that_is_none_of_the_choices_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"TRANCHE_{name}='{value}': must be one of"):
        load({PREFIX + name: value})
    assert load({"TRANCHE_LOG_LEVEL": "WARNING"}).log_level == "WARNING"
