"""The one table of the naive pipelines, on Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import psycopg

from benchmarks.chaos.examination import StoredRow
from benchmarks.chaos.ledger import Draft
from memory.errors import ServerAway

_TABLE = """
CREATE TABLE IF NOT EXISTS naive_memories (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text NOT NULL,
    uid text NOT NULL,
    content text NOT NULL,
    UNIQUE (namespace, uid)
)"""
_INSERT = """
INSERT INTO naive_memories (namespace, uid, content) VALUES (%(namespace)s, %(uid)s, %(content)s)
ON CONFLICT DO NOTHING"""


class Rows:
    """A connection to the table, made anew after an outage. For one thread.

    Args:
        url: of the database.
        hasty: commits do not wait for the disk. No machine fails here, so nothing is lost by that; but the
            less time an insert takes, the more of it is left for what is to be shown.

    """

    def __init__(self, url: str, *, hasty: bool = False) -> None:
        self._url = urlsplit(url)._replace(scheme="postgresql").geturl()
        self._options = "-c synchronous_commit=off" if hasty else ""
        self._connection: psycopg.Connection | None = None

    def create(self) -> None:
        with psycopg.connect(self._url) as connection:
            connection.execute(_TABLE)

    def insert(self, drafts: Sequence[Draft]) -> None:
        """Insert all of these in one transaction; a key that is there keeps its row. Raises ServerAway."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(self._url, options=self._options)
            with self._connection.transaction(), self._connection.cursor() as cursor:
                for draft in drafts:
                    values = {name: draft[name] for name in ("namespace", "uid", "content")}
                    cursor.execute(_INSERT, values)
        except psycopg.Error as error:
            self.close()
            raise ServerAway(f"database: {error}") from error

    def after(self, seq: int) -> list[int]:
        """Return the next numbers after `seq`: here is the mistake, a lower one may be committed later."""
        with psycopg.connect(self._url) as connection:
            rows = connection.execute("SELECT seq FROM naive_memories WHERE seq > %s ORDER BY seq", [seq])
            return [row[0] for row in rows]

    def all(self) -> list[StoredRow]:
        with psycopg.connect(self._url) as connection:
            rows = connection.execute("SELECT seq, namespace, uid, content FROM naive_memories").fetchall()
        return [StoredRow(key=(row[1], row[2]), memory_id=row[0], content=row[3]) for row in rows]

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
