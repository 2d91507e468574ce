"""What Alembic runs: every migration in the one transaction that the caller opened."""

from __future__ import annotations

from alembic import context

from memory.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
context.run_migrations()
