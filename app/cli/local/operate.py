"""What runs in production, each alone: `serve`, `worker`, `migrate`; and `settings`, `sandbox-crm`."""

import asyncio
import json
import os
import time
from pathlib import Path

import rich_click as click

from app import settings as settings_module
from app.cli.client.progress import LINE_INTERVAL
from app.cli.command import repeated
from app.cli.local import place
from app.cli.output import json_option, show, show_table


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="Port to listen on.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1), help="Processes that serve.")
@click.option(
    "--tls-cert", type=click.Path(path_type=Path), help="Certificate with its chain (PEM): serve HTTPS alone."
)
@click.option("--tls-key", type=click.Path(path_type=Path), help="Its key (PEM), without a passphrase.")
@place.data_dir_option
@click.option("--quiet", is_flag=True, help="Do not say where it listens.")
def serve(host: str, port: int, workers: int, tls_cert: Path | None, tls_key: Path | None, quiet: bool) -> None:
    """Serve the HTTP API."""
    from app.cli.local.server import Tls, serve_http
    from app.kit.encryption import Vault
    from app.telemetry import configure
    from app.tracing.exporting import check

    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together: give both or neither")
    tls = Tls(tls_cert, tls_key) if tls_cert and tls_key else None
    settings_module.check_names()
    settings = place.find()
    Vault(settings.secret_key)  # raises: without it no destination could be added
    check(settings)
    configure(settings)
    # The processes that serve read their settings anew.
    os.environ |= {
        "TRANCHE_DATABASE_URL": settings.database_url,
        "TRANCHE_REDIS_URL": settings.redis_url,
        "TRANCHE_SECRET_KEY": settings.secret_key,
    }
    serve_http(settings, host=host, port=port, workers=workers, tls=tls, quiet=quiet)


@click.command()
@click.option("--host", help="Address of the port.  [default: TRANCHE_WORKER_HOST]")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    help="Answer probes and serve metrics there; 0: nowhere.  [default: TRANCHE_WORKER_PORT]",
)
@place.data_dir_option
@click.option("--quiet", is_flag=True, help="Do not log that it started.")
def worker(host: str | None, port: int | None, quiet: bool) -> None:
    """Run one worker, which delivers to CRMs. Start as many as you like."""
    import msgspec
    import uvloop

    from app.telemetry import configure
    from jobs.worker import run

    settings_module.check_names()
    settings = place.find()
    given = {"worker_host": host, "worker_port": port}
    settings = msgspec.structs.replace(settings, **{k: v for k, v in given.items() if v is not None})
    configure(settings)
    uvloop.run(run(settings, quiet=quiet))


@click.command()
@click.option("--timeout", "seconds", default=60.0, show_default=True, help="Seconds to wait for another migration.")
@click.option(
    "--citus", is_flag=True, help="The database is the coordinator of Citus: distribute the tables by tenant."
)
@place.data_dir_option
@json_option
def migrate(seconds: float, citus: bool) -> None:
    """Bring the database to this release's schema. Safe to start many at once.

    Runs as the owner of the tables: TRANCHE_DATABASE_OWNER_URL, or else TRANCHE_DATABASE_URL. Rows of an older release
    are copied in batches; if that is interrupted, run it again, and it continues.
    """
    from app.migrations.citus import migrate_citus
    from app.migrations.runner import migrate as run

    due = 0.0

    def report(what: str, done: int, total: int) -> None:
        nonlocal due
        if done == total or time.monotonic() >= due:
            due = time.monotonic() + LINE_INTERVAL
            click.echo(f"{what}: {done:,} of {total:,} copied", err=True)

    settings_module.check_names()
    settings = settings_module.load()
    if not settings.database_owner_url:
        settings = place.find(settings, redis=False)
    url = settings.database_owner_url or settings.database_url
    done = {"applied": [] if citus else asyncio.run(run(url, wait=seconds, report=report))}
    if citus:
        done["applied"], done["distributed"] = asyncio.run(migrate_citus(url, wait=seconds, report=report))
    lines = [f"{what}: {', '.join(names)}" for what, names in done.items() if names]
    show(done, lines or ["the schema is up to date"])


@click.command()
@json_option
def settings() -> None:
    """List every setting with default, unit and meaning."""
    rows = settings_module.table(settings_module.load())
    cells = ((r.variable, r.default, r.unit, r.meaning, r.value if r.value != r.default else "") for r in rows)
    show_table(rows, ("Variable", "Default", "Unit", "Meaning", "Now"), cells, whole="Variable")


@click.command("sandbox-crm")
@click.option(
    "--kind", default="hubspot", show_default=True, help="Which CRM to simulate: hubspot, salesforce or http."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=0, help="Port to listen on.  [default: a free one]")
@click.option("--ledger", type=click.Path(path_type=Path), help="File that keeps every effect (JSON lines).")
@repeated(
    "--field",
    "fields",
    "NAME",
    "A field that the account has beside the vendor's own; * is every name, companies.tier the field tier of companies "
    "alone (repeatable).  [default: the one with our key, as if the account had been prepared for Tranche]",
)
@click.option("--bare", is_flag=True, help="The account has the vendor's own fields alone.")
@click.option("--quiet", is_flag=True, help="Do not say where it listens.")
def sandbox_crm(
    kind: str, host: str, port: int, ledger: Path | None, fields: tuple[str, ...], bare: bool, quiet: bool
) -> None:
    """Run a sandbox CRM that speaks the real wire protocol and fails on demand.

    Like the real ones it refuses fields that the account does not have: --field declares more.

    The options that its destination needs are printed. Switch faults while it runs, e.g.:
    curl -X PUT URL/__sandbox__/faults -d '{"status":{"code":503,"seconds":30}}'
    """
    from app.sandbox import KINDS, run

    if kind not in KINDS:
        raise click.UsageError(f"there is no sandbox for {kind!r}; there are: {', '.join(KINDS)}")
    if bare and fields:
        raise click.UsageError("--bare and --field exclude one another")
    vendor = KINDS[kind]()
    declared = fields or ((vendor.key_field,) if vendor.key_field and not bare else ())
    needed = "".join(
        f" --option {name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in vendor.options.items()
    )

    def announce(url: str) -> None:
        if quiet:
            return
        click.echo(f"sandbox {kind} at {url}")
        if vendor.key_field:
            click.echo(f"fields beside the vendor's own: {', '.join(declared) or 'none'} (--field NAME declares more)")
        if needed:
            click.echo(
                f"add it with: tranche destinations add NAME --kind {kind} --base-url {url} --token pat-sandbox{needed}"
            )

    try:
        run(kind, host, port, ledger, fields=declared, announce=announce)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {host}:{port}: {error.strerror}") from error
