"""SQL that replaces the model of every vector: a second generation of embeddings, and the switch to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import Connection, and_, delete, exists, func, not_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from memory.database import Database
from memory.errors import ModelMismatch
from memory.models import MemoryId, Seq
from memory.schema import index_clock, index_events, memories, next_embeddings
from memory.store.event_log import read_head
from memory.store.rows import INDEXED, LIVE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import numpy.typing as npt
    from sqlalchemy import ColumnElement

_CLOCK = select(index_clock.c.model_fingerprint, index_clock.c.next_model_fingerprint, index_clock.c.head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What is to be embedded."""

    memory_id: MemoryId
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some memories that were looked at, those of them to embed, and where the next look goes on."""

    ids: frozenset[MemoryId]
    contents: Sequence[Content]
    seen: Seq
    after: MemoryId


class Generations:
    """The serving generation of embeddings, and the next one while it is made. For one thread.

    The serving model is named by the clock's row, so the switch is one update of that row; every writer
    of embeddings takes that row's lock last and checks the name, so none can slip in an old vector.

    One walk over the memories by id, and beside it over the events since its start, finds everything:
    once both are at their end, nothing is left, which the switch checks by the newest event's number.
    """

    def __init__(self, database: Database, *, model_fingerprint: str, dim: int) -> None:
        self._database = database
        self._model = model_fingerprint
        self._dim = dim
        self._run = ""
        self._seen = Seq(0)
        self._after = MemoryId(0)

    def begin(self) -> bool:
        """Make this model the next one; return False where it serves already.

        What was embedded for the same model before, by a run that was cut short, stays and counts. What
        was embedded for yet another model is replaced bit by bit.
        """
        while (begun := self._try_to_begin()) is None:
            fold(self._database)
        return begun

    def n_left(self) -> int:
        """Return how many memories have no embedding of the next model yet."""
        with self._database.read() as connection:
            return connection.scalar(select(func.count()).select_from(memories).where(self._is_left())) or 0

    def next_batch(self, *, limit: int) -> Batch | None:
        """Look at up to `limit` further memories, what changed first; `None` where nothing is left."""
        with self._database.read() as connection:
            head = read_head(connection)
            events = connection.execute(
                select(index_events.c.seq, index_events.c.memory_id)
                .where(index_events.c.seq > self._seen)
                .order_by(index_events.c.seq)
                .limit(limit)
            ).all()
            if (events[-1].seq if events else head) != self._seen + len(events):
                # Events were dropped before they were looked at: everything has to be.
                self._seen, self._after, events = head, MemoryId(0), []
            if events:
                ids = sorted({MemoryId(event.memory_id) for event in events})
                seen, after = Seq(events[-1].seq), self._after
            else:
                ids = self._next_ids(connection, limit=limit)
                seen, after = self._seen, max(ids, default=self._after)
            if not ids:
                return None
            contents = self._left_of(connection, ids)
        return Batch(ids=frozenset(ids), contents=contents, seen=seen, after=after)

    def put(self, batch: Batch, embeddings: Mapping[MemoryId, npt.NDArray[np.float32]]) -> bool:
        """Keep these embeddings for the switch, and go on behind this batch.

        One whose memory's content changed meanwhile is dropped: the change is an event, looked at later.
        Each embedding is float32 (w, d), the vectors of its windows, rows of length 1.

        Returns:
            False where this model serves already, since another process made the switch.

        Raises:
            ModelMismatch: another model became the next one.

        """
        if embeddings and not self._keep(batch, embeddings):
            return False
        self._seen, self._after = batch.seen, batch.after
        return True

    def switch(self) -> bool:
        """Make the next model the serving one, at once for everybody; return False if something changed.

        Raises:
            ModelMismatch: another model became the next one.

        """
        mine = and_(index_clock.c.next_model_fingerprint == self._run, index_clock.c.head == self._seen)
        with self._database.write() as connection:
            switched = connection.execute(
                update(index_clock)
                .where(mine)
                .values(
                    model_fingerprint=self._model,
                    model_dim=self._dim,
                    # A model that served before may come back; its snapshots of then may not.
                    lineage=str(uuid4()),
                    next_model_fingerprint=None,
                    next_model_dim=None,
                )
            )
            return switched.rowcount == 1 or not self._is_next(connection)

    def _try_to_begin(self) -> bool | None:
        """Return `None` where embeddings of the serving model must be folded first."""
        with self._database.write() as connection:
            clock = connection.execute(_CLOCK.with_for_update()).one()
            if clock.model_fingerprint == self._model:
                return False
            run = clock.next_model_fingerprint
            if run is None and _some_of_next(connection, after=MemoryId(0), limit=1):
                return None
            if run is None or _model_of(run) != self._model:
                run = _new_run(self._model)
                connection.execute(
                    update(index_clock).values(next_model_fingerprint=run, next_model_dim=self._dim)
                )
        self._run, self._seen, self._after = run, Seq(clock.head), MemoryId(0)
        return True

    def _next_ids(self, connection: Connection, *, limit: int) -> list[MemoryId]:
        statement = select(memories.c.id).where(memories.c.id > self._after)
        return list(connection.scalars(statement.order_by(memories.c.id).limit(limit)))

    def _left_of(self, connection: Connection, ids: Sequence[MemoryId]) -> list[Content]:
        statement = select(memories.c.id, memories.c.content).where(memories.c.id.in_(ids), self._is_left())
        rows = connection.execute(statement.order_by(memories.c.id))
        return [Content(memory_id=MemoryId(row.id), content=row.content) for row in rows]

    def _keep(self, batch: Batch, embeddings: Mapping[MemoryId, npt.NDArray[np.float32]]) -> bool:
        with self._database.write() as connection:
            # Locked, so that an update of the content comes wholly before or wholly after.
            locked = connection.execute(
                select(memories.c.id, memories.c.content)
                .where(memories.c.id.in_(sorted(embeddings)), INDEXED)
                .order_by(memories.c.id)
                .with_for_update(read=True)
            )
            now = {row.id: row.content for row in locked}
            if not self._is_next(connection):
                return False
            rows = [
                {
                    "memory_id": content.memory_id,
                    "model_fingerprint": self._model,
                    "embedding": embeddings[content.memory_id].astype("<f4").tobytes(),
                }
                for content in batch.contents
                if content.memory_id in embeddings and now.get(content.memory_id) == content.content
            ]
            if rows:
                connection.execute(self._upsert(), rows)
        return True

    def _upsert(self) -> Any:
        dialect = sqlite if self._database.is_sqlite else postgresql
        statement = dialect.insert(next_embeddings)
        values = {name: statement.excluded[name] for name in ("model_fingerprint", "embedding")}
        return statement.on_conflict_do_update(index_elements=["memory_id"], set_=values)

    def _is_left(self) -> ColumnElement[bool]:
        made = exists().where(
            next_embeddings.c.memory_id == memories.c.id,
            next_embeddings.c.model_fingerprint == self._model,
        )
        return and_(INDEXED, not_(made))

    def _is_next(self, connection: Connection) -> bool:
        """Check that this run is to be switched to, and let nothing change that until the commit.

        Returns:
            False where its model serves already.

        Raises:
            ModelMismatch: another model became the next one.

        """
        clock = connection.execute(_CLOCK.with_for_update(read=True)).one()
        if clock.next_model_fingerprint == self._run:
            return True
        if clock.model_fingerprint == self._model:
            return False
        run = clock.next_model_fingerprint
        raise _overtaken(by=_model_of(run) if run else clock.model_fingerprint, model=self._model)


def fold(database: Database, *, at_once: int = 500) -> int:
    """Move the embeddings of the serving model that lie beside their memories' rows into them.

    What a search finds does not change by it. Killed at any point, the next call does the rest.

    Returns:
        How many embeddings were moved.

    """
    n, after = 0, MemoryId(0)
    while ids := _to_fold(database, after=after, limit=at_once):
        n, after = n + _fold(database, ids), ids[-1]
    return n


def _to_fold(database: Database, *, after: MemoryId, limit: int) -> list[MemoryId]:
    with database.read() as connection:
        if connection.execute(_CLOCK).one().next_model_fingerprint is not None:
            return []  # a generation is only begun when that before is folded
        return _some_of_next(connection, after=after, limit=limit)


def _fold(database: Database, ids: Sequence[MemoryId]) -> int:
    some = next_embeddings.c.memory_id.in_(ids)
    with database.write() as connection:
        # Memories first and the clock last, like every writer: so nobody waits in a circle.
        locked = select(memories.c.id).where(memories.c.id.in_(ids)).order_by(memories.c.id)
        connection.execute(locked.with_for_update(key_share=True))
        clock = connection.execute(_CLOCK.with_for_update(read=True)).one()
        if clock.next_model_fingerprint is not None:
            return 0
        moved = connection.execute(
            update(memories)
            .where(
                memories.c.id == next_embeddings.c.memory_id,
                next_embeddings.c.model_fingerprint == clock.model_fingerprint,
                some,
                LIVE,
            )
            .values(
                embedding=next_embeddings.c.embedding, model_fingerprint=next_embeddings.c.model_fingerprint
            )
        )
        connection.execute(delete(next_embeddings).where(some))
        return moved.rowcount


def _some_of_next(connection: Connection, *, after: MemoryId, limit: int) -> list[MemoryId]:
    statement = select(next_embeddings.c.memory_id).where(next_embeddings.c.memory_id > after)
    return list(connection.scalars(statement.order_by(next_embeddings.c.memory_id).limit(limit)))


def _new_run(model_fingerprint: str) -> str:
    """Name a run over everything, and its model.

    Another run that takes over replaces embeddings. If the first one's model then takes over again, the
    first one must notice all the same: what it made is not there any more.
    """
    return f"{model_fingerprint}#{uuid4().hex[:8]}"


def _model_of(run: str) -> str:
    return run.rpartition("#")[0]


def _overtaken(*, by: str, model: str) -> ModelMismatch:
    error = ModelMismatch(stored=by, configured=model)
    error.args = (
        f"another re-embedding, to {by}, took over from this one, to {model}, which has ended: "
        "call the one that is meant again",
    )
    return error
