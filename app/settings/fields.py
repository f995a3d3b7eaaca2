"""Every setting with its default, unit and meaning, by group."""

from typing import Annotated

import msgspec


class Doc(msgspec.Struct, frozen=True):
    """Unit and meaning of a setting; `secret` keeps its value out of every listing, `zero` says that 0 has a sense."""

    meaning: str
    unit: str = ""
    secret: bool = False
    zero: bool = False


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    # The engines, the service itself and its log.
    database_url: Annotated[str, Doc("PostgreSQL 15-18; empty: the embedded engine of the data folder", "URL")] = ""
    database_owner_url: Annotated[
        str, Doc("the same as the owner of its tables, for `tranche migrate`; empty: TRANCHE_DATABASE_URL", "URL")
    ] = ""
    database_replica_url: Annotated[
        str, Doc("a streaming replica of it, for lists, exports, and reads while it is away; empty: none", "URL")
    ] = ""
    redis_url: Annotated[str, Doc("Redis 6.2+ or Valkey; empty: the embedded engine of the data folder", "URL")] = ""
    data_dir: Annotated[str, Doc("where `tranche up` keeps engines, data and its key", "path")] = ".tranche"
    engine_user: Annotated[str, Doc("as root, the system user of the engines; created if missing", "name")] = "tranche"
    secret_key: Annotated[
        str,
        Doc(
            "encrypts stored credentials (AES-256-GCM): 32 random bytes; of several, separated by commas, the first "
            "encrypts and all decrypt",
            "base64",
            secret=True,
        ),
    ] = ""
    url: Annotated[str, Doc("the API that the client commands talk to", "URL")] = "http://127.0.0.1:8000"
    api_key: Annotated[str, Doc("the key that the client commands send", secret=True)] = ""
    log_level: Annotated[str, Doc("debug, info, warning or error")] = "info"
    log_format: Annotated[str, Doc("json, or console for people")] = "json"
    metrics_token: Annotated[str, Doc("bearer token for /metrics of all tenants; empty: nobody", secret=True)] = ""
    metrics_destinations: Annotated[
        int,
        Doc("destinations that metrics name, as tenant/name; 0: none, their kinds alone", "destinations", zero=True),
    ] = 0
    worker_host: Annotated[str, Doc("address of a worker's probes and metrics; in a container 0.0.0.0")] = "127.0.0.1"
    worker_port: Annotated[int, Doc("port of them; 0: none", "port", zero=True)] = 0
    otlp_endpoint: Annotated[
        str, Doc("where spans are sent, as OTLP over HTTP (needs tranche[otel]); empty: nowhere", "URL")
    ] = ""
    operator_token: Annotated[str, Doc("the operator's bearer token, for /v1/tenants; empty: nobody", secret=True)] = ""

    # Connections to PostgreSQL.
    db_pool_size: Annotated[int, Doc("connections of one process to PostgreSQL", "connections")] = 10
    db_pool_share: Annotated[int, Doc("…of them that the API uses for one tenant while others wait", "connections")] = 3
    db_acquire_timeout: Annotated[float, Doc("longest wait for a free connection, then 503; docs/overload.md", "s")] = (
        5.0
    )
    db_connect_timeout: Annotated[float, Doc("longest wait for PostgreSQL to accept a connection", "s")] = 5.0
    db_statement_timeout: Annotated[float, Doc("longest run of one statement", "s")] = 15.0
    db_lock_timeout: Annotated[float, Doc("longest wait for a row lock; the items are then `retry`", "s")] = 3.0
    db_idle_in_transaction_timeout: Annotated[float, Doc("an idle open transaction is ended after", "s")] = 15.0
    db_statement_cache: Annotated[
        int, Doc("prepared statements of a connection; 0 behind PgBouncer in transaction mode", "statements", zero=True)
    ] = 256
    db_replica_pool_size: Annotated[int, Doc("connections of one API process to the replica", "connections")] = 5
    db_replica_statement_timeout: Annotated[float, Doc("longest run of one statement at the replica", "s")] = 15.0
    db_read_timeout: Annotated[
        float, Doc("reads without any answer for this long have PostgreSQL probed; if it hangs, fallbacks answer", "s")
    ] = 1.5

    # Reads while PostgreSQL is away.
    stale_seconds: Annotated[float, Doc("what was read is kept for, as a fallback; 0: not at all", "s", zero=True)] = (
        3_600.0
    )
    stale_key_seconds: Annotated[
        float, Doc("an API key may read such answers after it was last checked, for", "s", zero=True)
    ] = 900.0
    stale_memory: Annotated[int, Doc("such answers in one API process", "bytes")] = 32_000_000
    stale_redis: Annotated[int, Doc("…in Redis, encrypted and compressed, of one tenant and kind", "bytes")] = 4_000_000

    # Bodies, streams and waits: what one request, key or tenant may take.
    max_sync_items: Annotated[int, Doc("most items answered within one request", "items")] = 1_000
    max_sync_bytes: Annotated[int, Doc("largest body answered within one request", "bytes")] = 5_000_000
    max_item_bytes: Annotated[int, Doc("largest single item", "bytes")] = 65_536
    max_json_items: Annotated[int, Doc("most items of a JSON body; CSV and NDJSON: max_file_items", "items")] = 10_000
    max_file_bytes: Annotated[int, Doc("largest body that is answered with 202, inflated", "bytes")] = 1_000_000_000
    max_file_items: Annotated[int, Doc("most rows of a CSV or NDJSON body", "items")] = 20_000_000
    max_inflation: Annotated[float, Doc("a body that inflates to more times its size is refused", "times")] = 250.0
    max_atomic_items: Annotated[int, Doc("most items with atomic=true, locked by one transaction", "items")] = 100_000
    max_atomic_bytes: Annotated[int, Doc("largest body with atomic=true, inflated", "bytes")] = 32_000_000
    max_workbook_bytes: Annotated[int, Doc("largest workbook (XLSX), uncompressed", "bytes")] = 200_000_000
    workbook_memory: Annotated[int, Doc("memory of the process that reads a workbook", "bytes")] = 500_000_000
    workbook_processes: Annotated[
        int, Doc("workbooks that one API process has read at a time; more wait", "processes")
    ] = 2
    max_wait: Annotated[float, Doc("longest `Prefer: wait=N` that is honoured", "s", zero=True)] = 30.0
    import_deadline: Annotated[
        float, Doc("an import is answered within this, without the time that its body takes, or refused with 503", "s")
    ] = 20.0
    body_timeout: Annotated[float, Doc("longest time for a body to arrive, then 408", "s")] = 60.0
    receive_lease: Annotated[
        float,
        Doc("a body is abandoned, and its key is free again, if its API process sent no heartbeat for this long", "s"),
    ] = 20.0
    max_requests: Annotated[int, Doc("bodies in one API process at a time; more get 503", "requests")] = 4_000
    max_requests_tenant: Annotated[int, Doc("…of one tenant; more get 429", "requests")] = 2_000
    max_requests_key: Annotated[int, Doc("…of one API key; more get 429", "requests")] = 1_500
    body_memory: Annotated[int, Doc("bodies held by one API process, inflated; more get 503", "bytes")] = 160_000_000
    body_memory_tenant: Annotated[int, Doc("…of one tenant; more get 429", "bytes")] = 80_000_000
    body_memory_key: Annotated[int, Doc("…of one API key; more get 429", "bytes")] = 40_000_000
    max_unfinished_jobs: Annotated[int, Doc("files of one tenant that are not finished; more get 429", "jobs")] = 1_000
    max_staged_bytes: Annotated[int, Doc("size of all of them, inflated; more get 429", "bytes")] = 20_000_000_000
    max_destinations: Annotated[int, Doc("destinations of one tenant; more get 409", "destinations")] = 50
    max_streams: Annotated[int, Doc("event streams open in one API process; more get 503", "streams")] = 2_000
    max_streams_tenant: Annotated[int, Doc("…of one tenant; more get 429", "streams")] = 200
    max_waits: Annotated[int, Doc("`Prefer: wait` in one API process; more are answered at once", "requests")] = 3_000
    max_waits_tenant: Annotated[int, Doc("…of one tenant", "requests")] = 1_000

    # Rate limits: 600/60 is 600 in 60 seconds, at once or evenly; those of a key or tenant may be set with it.
    limit_key_requests: Annotated[str, Doc("requests of one API key; 0: no limit", "how many/s")] = "60000/60"
    limit_key_items: Annotated[str, Doc("items of one API key; 0: no limit", "how many/s")] = "0"
    limit_tenant_requests: Annotated[str, Doc("requests of all keys of a tenant; 0: no limit", "how many/s")] = "0"
    limit_tenant_items: Annotated[str, Doc("items of all keys of a tenant; 0: no limit", "how many/s")] = "0"
    limit_service_requests: Annotated[str, Doc("requests of all keys of all tenants; 0: no limit", "how many/s")] = "0"
    limit_service_items: Annotated[str, Doc("items of all tenants; 0: no limit", "how many/s")] = "0"
    limit_address: Annotated[
        str, Doc("requests of one address without a good key, then 429; 0: no limit", "how many/s")
    ] = "3000/60"
    trusted_proxies: Annotated[
        str, Doc("proxies that are believed which address a request comes from", "CIDR, separated by commas")
    ] = ""
    forwarded_header: Annotated[
        str, Doc("where they say so: x-forwarded-for or forwarded; they must set or remove it themselves")
    ] = "x-forwarded-for"

    # Keys, staged files and jobs.
    idempotency_retention: Annotated[float, Doc("answers are replayed for", "s", zero=True)] = 86_400.0
    idempotency_memory: Annotated[float, Doc("an expired key is refused, not rerun, for", "s", zero=True)] = 2_592_000.0
    import_chunk_items: Annotated[int, Doc("most items of a file written in one transaction", "items")] = 1_000
    import_chunk_bytes: Annotated[int, Doc("largest part of a file written in one transaction", "bytes")] = 1_000_000
    import_concurrency: Annotated[int, Doc("such transactions at a time in one worker", "transactions")] = 2
    import_attempts: Annotated[int, Doc("attempts to lock records before the items are `retry`", "attempts")] = 20
    job_retention: Annotated[float, Doc("outcomes of finished jobs' items are kept for", "s", zero=True)] = 2_592_000.0
    job_summary_retention: Annotated[
        float, Doc("a job that no version of a record names is kept for; 0: for ever", "s", zero=True)
    ] = 31_536_000.0
    history_retention: Annotated[
        float, Doc("versions of records are kept for, once superseded; 0: for ever", "s", zero=True)
    ] = 0.0
    dead_letter_retention: Annotated[float, Doc("settled dead letters are kept for; 0: for ever", "s", zero=True)] = (
        31_536_000.0
    )
    audit_retention: Annotated[float, Doc("the audit log is kept for; 0: for ever", "s", zero=True)] = 31_536_000.0
    stream_seconds: Annotated[
        float, Doc("an event stream ends after this, so that a server can stop; the client resumes it", "s")
    ] = 30.0
    stream_token_seconds: Annotated[float, Doc("a token for one job's event stream is valid for", "s")] = 3_600.0
    console: Annotated[int, Doc("serve pages for people at /console", "0-1", zero=True)] = 1
    cors_origins: Annotated[
        str,
        Doc(
            "origins whose pages may call the API from a browser, like https://app.example.com; * is any; empty: none",
            "origins, separated by commas",
        ),
    ] = ""

    # Deliveries to destinations, retries and sagas.
    chunk_size: Annotated[int, Doc("most contacts of one delivery, unless its kind takes more", "contacts")] = 100
    delivery_concurrency: Annotated[int, Doc("deliveries in flight at one destination, all workers", "deliveries")] = 8
    delivery_attempts: Annotated[int, Doc("attempts before an item is `dead`", "attempts")] = 25
    delivery_budget: Annotated[float, Doc("time from acceptance before an item is `dead`", "s")] = 86_400.0
    delivery_backoff_base: Annotated[float, Doc("first backoff is random between 0 and this", "s", zero=True)] = 1.0
    delivery_backoff_cap: Annotated[float, Doc("longest backoff", "s")] = 600.0
    delivery_lease: Annotated[float, Doc("a delivery of a dead worker is rescued after", "s")] = 30.0
    delivery_slice: Annotated[float, Doc("a worker serves one destination this long, then the next", "s")] = 1.0
    reconcile_grace: Annotated[float, Doc("between two reads that must not find an unknown item", "s", zero=True)] = 2.0
    sweep_interval: Annotated[float, Doc("how often due work without a notification is searched for", "s")] = 2.0
    crm_connect_timeout: Annotated[float, Doc("longest wait to connect to a CRM", "s")] = 3.0
    crm_total_timeout: Annotated[float, Doc("longest call to a CRM in total", "s")] = 10.0
    crm_rate: Annotated[float, Doc("calls a second to a destination, all workers; 0: no limit", "1/s", zero=True)] = 0.0
    destination_private: Annotated[
        str,
        Doc("private networks that destinations may reach nevertheless, also without TLS", "CIDR, separated by commas"),
    ] = ""
    replay_rate: Annotated[float, Doc("items a second that a retry or replay makes due", "1/s")] = 1_000.0
    saga_interval: Annotated[float, Doc("how often a waiting saga checks its condition", "s")] = 1.0
    saga_attempts: Annotated[
        int, Doc("errors of one step of a saga before it is undone, or waits for an operator", "attempts")
    ] = 20

    # Webhook endpoints and their messages.
    webhook_timeout: Annotated[float, Doc("longest call of a webhook in total", "s")] = 3.0
    webhook_waits: Annotated[str, Doc("waits between attempts, ±20 %", "s, separated by commas")] = "5,30,120,600,3600"
    webhook_standard_timeout: Annotated[float, Doc("longest call with the policy `standard`", "s")] = 15.0
    webhook_standard_waits: Annotated[
        str, Doc("the same waits for the policy `standard`: three days and three hours", "s, separated by commas")
    ] = "5,300,1800,7200,18000,36000,50400,72000,86400"
    webhook_disable_after: Annotated[float, Doc("a `standard` endpoint is disabled after failing for", "s")] = 432_000.0
    webhook_concurrency: Annotated[int, Doc("webhooks in flight in one worker", "calls")] = 20
    webhook_rotation: Annotated[float, Doc("a secret that was replaced signs as well for", "s", zero=True)] = 86_400.0
    webhook_retention: Annotated[float, Doc("settled messages are kept for", "s")] = 2_592_000.0
    webhook_private: Annotated[str, Doc("private networks that webhooks may reach", "CIDR, separated by commas")] = ""

    # Circuit breakers.
    circuit_retention: Annotated[float, Doc("changes of circuits are kept for", "s")] = 7_776_000.0
    breaker_window: Annotated[float, Doc("length of the window in which calls count", "s")] = 30.0
    breaker_min_calls: Annotated[int, Doc("fewer calls in the window never open a circuit", "calls")] = 10
    breaker_failure_rate: Annotated[float, Doc("share of failed calls that opens a circuit", "0-1")] = 0.5
    breaker_slow_rate: Annotated[float, Doc("share of slow calls that opens a circuit", "0-1")] = 0.8
    breaker_slow_call: Annotated[float, Doc("a call is slow from", "s")] = 8.0
    breaker_open: Annotated[float, Doc("first time a circuit stays open; doubles, with jitter", "s")] = 5.0
    breaker_open_cap: Annotated[float, Doc("longest time a circuit stays open", "s")] = 120.0
    breaker_probes: Annotated[int, Doc("calls let through a half-open circuit at a time", "calls")] = 2
    breaker_successes: Annotated[int, Doc("successful probes that close a circuit", "calls")] = 3
    breaker_permit: Annotated[float, Doc("a probe's permit expires by itself after", "s")] = 15.0
