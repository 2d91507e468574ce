"""What all but the model costs: enqueue to searchable with a model that costs nothing, and where it goes.

The product's own processes and supervisor run (`benchmarks.null_stack`). The baseline is the same number of
rows into a bare table of the same database by COPY (SQLite: executemany), and the vectors into a flat FAISS
index: what storing and indexing alone cost. Processor time is that of each process over all rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import sqlite3
import time
from collections.abc import Sequence

import faiss
import psycopg

from benchmarks.null_embedder import DIM, NullEmbedder
from benchmarks.rig.command import Report, command, execute, positive
from benchmarks.rig.figures import medians, timed
from benchmarks.rig.processes import processor_s, resident_mb, used_ms
from benchmarks.rig.stacks import Measured, running_measured
from benchmarks.rig.waiting import say
from memory.models import MemoryState

_CONTENT = "A memory of about the usual length, number {n} of round {round}, which says little but is said."
_LONGEST_S = 900
_N_WARM = 1000
_MAKE = "CREATE TABLE IF NOT EXISTS bare (id BIGINT PRIMARY KEY, content TEXT, embedding {bytes})"


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--memories", type=positive, default=20_000, help="of one round")
    parser.add_argument("--embed-workers", type=positive, default=1, help="processes (default 1)")
    parser.add_argument("--sqlite", action="store_true", help="SQLite instead of Postgres")
    arguments = parser.parse_args()
    execute("overhead", arguments, lambda report: _measure(report, arguments))


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    n = arguments.memories
    with running_measured(
        "null", sqlite=arguments.sqlite, n_embed_workers=arguments.embed_workers
    ) as measured:
        _round(report, measured, _texts(_N_WARM, number=-1), namespace="warm")
        before, rounds, bare = processor_s(measured.stack), [], []
        for number in range(arguments.rounds):
            texts = _texts(n, number=number)
            rounds.append(_round(report, measured, texts, namespace=str(number)))
            at = processor_s(measured.stack)
            bare.append({"baseline: bare rows and vectors/s": n / _bare_s(measured, texts)})
            before = {
                name: used + processor_s(measured.stack)[name] - at[name] for name, used in before.items()
            }
            say(f"round {number + 1}: {rounds[-1]['enqueue to searchable, memories/s']:.0f} memories/s")
        report.figures |= {
            "database": "sqlite" if arguments.sqlite else "postgres",
            "memories of one round": n,
        }
        report.figures |= {**medians(rounds), **medians(bare)}
        used = used_ms(before, processor_s(measured.stack), n=n * arguments.rounds)
        report.figures["processor ms for 1,000 memories"] = {"all": round(sum(used.values()), 1), **used}
        report.figures["resident"] = resident_mb(measured.stack)
        measured.require_equal(report)


def _texts(n: int, *, number: int) -> list[str]:
    return [_CONTENT.format(n=i, round=number) for i in range(n)]


def _round(report: Report, measured: Measured, texts: Sequence[str], *, namespace: str) -> dict[str, float]:
    drafts = [{"content": text, "namespace": namespace} for text in texts]
    started = time.perf_counter()
    receipts = measured.client.enqueue_many(drafts)
    enqueued_s = time.perf_counter() - started
    measured.wait_until_searchable(n=len(texts), timeout_s=_LONGEST_S)
    total_s = time.perf_counter() - started
    states = {outcome.state for outcome in measured.client.outcomes(receipts.receipts)}
    report.require(states == {MemoryState.SEARCHABLE}, f"round {namespace}: memories are {sorted(states)}")
    return {
        "bulk enqueue, memories/s": len(texts) / enqueued_s,
        "enqueue to searchable, memories/s": len(texts) / total_s,
    }


def _bare_s(measured: Measured, texts: Sequence[str]) -> float:
    vectors = NullEmbedder().encode(texts)
    rows = [(i, text, vector.tobytes()) for i, (text, vector) in enumerate(zip(texts, vectors, strict=True))]
    url = measured.stack.settings().database_url
    store = _into_sqlite if url.startswith("sqlite") else _into_postgres
    stored_s = store(url, rows)
    return stored_s + timed(lambda: faiss.IndexFlatIP(DIM).add(vectors))[0]


def _into_postgres(url: str, rows: Sequence[tuple[int, str, bytes]]) -> float:
    with psycopg.connect(url.replace("postgresql+psycopg", "postgresql"), autocommit=True) as connection:
        connection.execute(_MAKE.format(bytes="BYTEA"))
        started = time.perf_counter()
        with (
            connection.transaction(),
            connection.cursor().copy("COPY bare FROM STDIN (FORMAT BINARY)") as copy,
        ):
            copy.set_types(["int8", "text", "bytea"])
            for row in rows:
                copy.write_row(row)
        stored_s = time.perf_counter() - started
        connection.execute("DROP TABLE bare")
    return stored_s


def _into_sqlite(url: str, rows: Sequence[tuple[int, str, bytes]]) -> float:
    path = url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(f"{path}.bare")) as connection:
        connection.execute(_MAKE.format(bytes="BLOB"))
        started = time.perf_counter()
        with connection:
            connection.executemany("INSERT INTO bare VALUES (?, ?, ?)", rows)
        stored_s = time.perf_counter() - started
        connection.execute("DROP TABLE bare")
    return stored_s


if __name__ == "__main__":
    main()
