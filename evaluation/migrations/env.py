"""Alembic environment: runs the migrations on the connection and in the transaction that the caller gives."""

from alembic import context

import clinical_data.store.tables  # noqa: F401  (registers the case tables)
import evaluation.reading.tables
import evaluation.store.tables  # noqa: F401  (registers the run tables)
from clinical_data.store.metadata import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
