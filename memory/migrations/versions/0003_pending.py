"""Finds the memories that wait for their embedding without reading all of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pending = sa.text("status = 'pending'")
    op.create_index(
        "ix_memories_pending",
        "memories",
        ["stored_at", "id"],
        postgresql_where=pending,
        sqlite_where=pending,
    )
