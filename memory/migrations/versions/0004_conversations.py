"""Where a memory stands in its conversation, so that its neighbours are found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("memories", sa.Column("position", sa.Integer()))
    placed = sa.text("position IS NOT NULL")
    op.create_index(
        "ix_memories_conversation",
        "memories",
        ["namespace", "source", "created_at", "position", "id"],
        postgresql_where=placed,
        sqlite_where=placed,
    )
