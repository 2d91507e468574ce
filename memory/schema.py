"""The tables, for Postgres and SQLite alike. The migrations build them; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB

if TYPE_CHECKING:
    from sqlalchemy import Dialect

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Instant(TypeDecorator[datetime]):
    """An aware UTC instant. Postgres: timestamptz. SQLite, which has no zones: naive, in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive instants; hand UTC to the driver."""
        if value is None:
            return None
        if value.tzinfo is None:
            message = f"naive datetime {value!r}"
            raise ValueError(message)
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 (the signature is SQLAlchemy's)
        """Give an aware UTC instant."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite only numbers rows by itself where the key is exactly INTEGER.
_BigKey = BigInteger().with_variant(Integer, "sqlite")
_Json = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")

memories = Table(
    "memories",
    metadata,
    Column("id", _BigKey, primary_key=True, autoincrement=True),
    Column("namespace", Text, nullable=False),
    Column("uid", Text, nullable=False),
    Column("content", Text),
    Column("type", String(16), nullable=False),
    Column("source", Text, nullable=False),
    Column("metadata", _Json),
    Column("importance", Double),
    Column("created_at", Instant, nullable=False),
    Column("stored_at", Instant, nullable=False),
    Column("last_access_at", Instant),
    Column("embedding", LargeBinary),  # float32 little-endian, a vector of length 1 a window
    Column("model_fingerprint", Text),
    Column("status", String(8), nullable=False),  # ready, or pending until it has an embedding
    Column("version", Integer, nullable=False),
    Column("deleted_at", Instant),  # a tombstone: content, metadata and embedding are gone
    Column("position", Integer),  # in the conversation that its source names
    UniqueConstraint("namespace", "uid"),
    CheckConstraint("deleted_at IS NOT NULL OR content IS NOT NULL", name="live_has_content"),
    CheckConstraint(
        "deleted_at IS NOT NULL OR status <> 'ready' OR embedding IS NOT NULL", name="ready_has_embedding"
    ),
    CheckConstraint("importance IS NULL OR importance BETWEEN 0 AND 1", name="importance_range"),
    CheckConstraint("status IN ('ready', 'pending', 'failed')", name="known_status"),
    sqlite_autoincrement=True,  # an id is never used again, so no old vector can meet a new row
)

Index(
    "ix_memories_unimportant",
    memories.c.importance,
    memories.c.created_at,
    postgresql_where=memories.c.deleted_at.is_(None),
    sqlite_where=memories.c.deleted_at.is_(None),
)

Index(
    "ix_memories_pending",
    memories.c.stored_at,
    memories.c.id,
    postgresql_where=memories.c.status == "pending",
    sqlite_where=memories.c.status == "pending",
)

# Neighbours in a conversation: by date, and where dates are the same, by position.
Index(
    "ix_memories_conversation",
    memories.c.namespace,
    memories.c.source,
    memories.c.created_at,
    memories.c.position,
    memories.c.id,
    postgresql_where=memories.c.position.is_not(None),
    sqlite_where=memories.c.position.is_not(None),
)

# One row. `head` is the newest event's number: taking it under the row's lock, last in the
# transaction, makes numbers gap-free and in commit order, which a database sequence does not.
index_clock = Table(
    "index_clock",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("head", BigInteger, nullable=False),
    Column("lineage", String(36), nullable=False),  # names this database's history
    Column("model_fingerprint", Text),  # the model of every ready vector
    Column("model_dim", Integer),
    Column("next_model_fingerprint", Text),  # the model of the generation that is being made
    Column("next_model_dim", Integer),
    CheckConstraint("id = 1", name="one_row"),
    postgresql_with={"fillfactor": 10},
)

# Embeddings of a model that is to replace the serving one, or just did: a memory's vector is the one
# here if its model is the clock's, else the one in its row. So the switch is one update of the clock.
next_embeddings = Table(
    "next_embeddings",
    metadata,
    Column(
        "memory_id",
        _BigKey,
        ForeignKey("memories.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("model_fingerprint", Text, nullable=False),
    Column("embedding", LargeBinary, nullable=False),  # float32 little-endian, as above
)

index_events = Table(
    "index_events",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("memory_id", BigInteger, nullable=False, index=True),
    Column("op", String(1), nullable=False),
    Column("at", Instant, nullable=False),
    CheckConstraint("op IN ('+', '-')", name="known_op"),
)

# One row. What the owner of the index has applied and saved; `epoch` fences earlier owners.
index_state = Table(
    "index_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, nullable=False),
    Column("owner", Text),
    Column("applied_seq", BigInteger, nullable=False),
    Column("snapshot", Text),
    Column("snapshot_seq", BigInteger, nullable=False),
    Column("snapshot_at", Instant),
    Column("updated_at", Instant),
    CheckConstraint("id = 1", name="one_row"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", _BigKey, primary_key=True, autoincrement=True),
    Column("entry_id", Text, nullable=False, unique=True),  # lane and id on the stream
    Column("namespace", Text),
    Column("uid", Text),
    Column("body", LargeBinary, nullable=False),  # the bytes as they were on the stream
    Column("reason", Text, nullable=False),
    Column("n_deliveries", Integer, nullable=False),
    Column("at", Instant, nullable=False),
    Index(None, "namespace", "uid"),
    sqlite_autoincrement=True,
)

job_runs = Table(
    "job_runs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("last_start_at", Instant),
    Column("last_ok_at", Instant),
    Column("lease_until", Instant),
    Column("owner", Text),
    Column("last_result", Text),
)

associations = Table(
    "associations",
    metadata,
    Column("id", _BigKey, primary_key=True, autoincrement=True),
    Column("from_id", BigInteger, ForeignKey("memories.id", ondelete="CASCADE"), nullable=False),
    Column("to_id", BigInteger, ForeignKey("memories.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("type", Text, nullable=False),
    Column("strength", Double, nullable=False),
    Column("metadata", _Json),
    Column("created_at", Instant, nullable=False),
    UniqueConstraint("from_id", "to_id", "type"),
    CheckConstraint("from_id <> to_id", name="no_self_loop"),
    CheckConstraint("strength BETWEEN 0 AND 1", name="strength_range"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),  # random, and a part of the key
    Column("name", Text, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False),  # SHA-256 of the other part, which nobody can guess
    Column("scopes", _Json, nullable=False),
    Column("namespaces", _Json),  # NULL: all of them
    Column("requests_a_minute", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("revoked_at", Instant),
)
