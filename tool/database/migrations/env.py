"""Runs the steps on the connection that `tool.database.migrate` opened."""

from alembic import context

from tool.database.versions import UPGRADING

context.configure(
    connection=context.config.attributes["connection"],
    transaction_per_migration=True,
    version_table=UPGRADING,
)
with context.begin_transaction():
    context.run_migrations()
