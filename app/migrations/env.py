"""Alembic's entry: one transaction over all pending revisions, on the connection that `app.migrations.runner` holds."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=None,
    version_table="schema_version",
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
