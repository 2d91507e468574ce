"""The first tables: memories, the index's clock, events and state, dead letters, jobs, associations."""

from __future__ import annotations

from uuid import uuid4

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)
JSON = sa.JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def upgrade() -> None:
    _create_memories()
    _create_index_tables()
    _create_dead_letters()
    _create_job_runs()
    _create_associations()


def _create_memories() -> None:
    op.create_table(
        "memories",
        sa.Column("id", BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("uid", sa.Text(), nullable=False),
        sa.Column("content", sa.Text()),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("metadata", JSON),
        sa.Column("importance", sa.Double()),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("stored_at", INSTANT, nullable=False),
        sa.Column("last_access_at", INSTANT),
        sa.Column("embedding", sa.LargeBinary()),
        sa.Column("model_fingerprint", sa.Text()),
        sa.Column("status", sa.String(8), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("deleted_at", INSTANT),
        sa.CheckConstraint(
            "deleted_at IS NOT NULL OR content IS NOT NULL", name=op.f("ck_memories_live_has_content")
        ),
        sa.CheckConstraint(
            "deleted_at IS NOT NULL OR status <> 'ready' OR embedding IS NOT NULL",
            name=op.f("ck_memories_ready_has_embedding"),
        ),
        sa.CheckConstraint(
            "importance IS NULL OR importance BETWEEN 0 AND 1", name=op.f("ck_memories_importance_range")
        ),
        sa.CheckConstraint("status IN ('ready', 'pending', 'failed')", name=op.f("ck_memories_known_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_memories")),
        sa.UniqueConstraint("namespace", "uid", name=op.f("uq_memories_namespace_uid")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_memories_unimportant",
        "memories",
        ["importance", "created_at"],
        postgresql_where=sa.text("deleted_at IS NULL"),
        sqlite_where=sa.text("deleted_at IS NULL"),
    )


def _create_index_tables() -> None:
    clock = op.create_table(
        "index_clock",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("head", sa.BigInteger(), nullable=False),
        sa.Column("lineage", sa.String(36), nullable=False),
        sa.Column("model_fingerprint", sa.Text()),
        sa.Column("model_dim", sa.Integer()),
        sa.CheckConstraint("id = 1", name=op.f("ck_index_clock_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_index_clock")),
        postgresql_with={"fillfactor": 10},
    )
    op.create_table(
        "index_events",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("memory_id", sa.BigInteger(), nullable=False),
        sa.Column("op", sa.String(1), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.CheckConstraint("op IN ('+', '-')", name=op.f("ck_index_events_known_op")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_index_events")),
    )
    op.create_index(op.f("ix_index_events_memory_id"), "index_events", ["memory_id"])
    state = op.create_table(
        "index_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("applied_seq", sa.BigInteger(), nullable=False),
        sa.Column("snapshot", sa.Text()),
        sa.Column("snapshot_seq", sa.BigInteger(), nullable=False),
        sa.Column("snapshot_at", INSTANT),
        sa.Column("updated_at", INSTANT),
        sa.CheckConstraint("id = 1", name=op.f("ck_index_state_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_index_state")),
    )
    op.bulk_insert(clock, [{"id": 1, "head": 0, "lineage": str(uuid4())}])
    op.bulk_insert(state, [{"id": 1, "epoch": 0, "applied_seq": 0, "snapshot_seq": 0}])


def _create_dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("entry_id", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text()),
        sa.Column("uid", sa.Text()),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("n_deliveries", sa.Integer(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
        sa.UniqueConstraint("entry_id", name=op.f("uq_dead_letters_entry_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_dead_letters_namespace_uid"), "dead_letters", ["namespace", "uid"])


def _create_job_runs() -> None:
    op.create_table(
        "job_runs",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_start_at", INSTANT),
        sa.Column("last_ok_at", INSTANT),
        sa.Column("lease_until", INSTANT),
        sa.Column("owner", sa.Text()),
        sa.Column("last_result", sa.Text()),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_job_runs")),
    )


def _create_associations() -> None:
    op.create_table(
        "associations",
        sa.Column("id", BIG_KEY, autoincrement=True, nullable=False),
        sa.Column("from_id", sa.BigInteger(), nullable=False),
        sa.Column("to_id", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("strength", sa.Double(), nullable=False),
        sa.Column("metadata", JSON),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.CheckConstraint("from_id <> to_id", name=op.f("ck_associations_no_self_loop")),
        sa.CheckConstraint("strength BETWEEN 0 AND 1", name=op.f("ck_associations_strength_range")),
        sa.ForeignKeyConstraint(
            ["from_id"], ["memories.id"], name=op.f("fk_associations_from_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["to_id"], ["memories.id"], name=op.f("fk_associations_to_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_associations")),
        sa.UniqueConstraint("from_id", "to_id", "type", name=op.f("uq_associations_from_id_to_id_type")),
    )
    op.create_index(op.f("ix_associations_to_id"), "associations", ["to_id"])
