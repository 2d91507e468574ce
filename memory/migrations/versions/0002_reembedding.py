"""A second generation of embeddings beside the serving one, so that a model can be replaced."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("index_clock", sa.Column("next_model_fingerprint", sa.Text()))
    op.add_column("index_clock", sa.Column("next_model_dim", sa.Integer()))
    op.create_table(
        "next_embeddings",
        sa.Column(
            "memory_id",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("model_fingerprint", sa.Text(), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["memory_id"], ["memories.id"], name=op.f("fk_next_embeddings_memory_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("memory_id", name=op.f("pk_next_embeddings")),
    )
