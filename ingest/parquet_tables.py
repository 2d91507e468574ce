"""The one door to pyarrow: Parquet, a memory a row, some thousand rows in memory at once."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

from ingest.chat_logs.messages import Flaw, Place
from ingest.chat_logs.reader import Reader, ReadOptions, Sample
from ingest.chat_logs.trees import UnreadableMember
from ingest.tables import fields_of, memories

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ingest.chat_logs.trees import Member, Tree
    from memory.messages import RawMemory

_ROWS_AT_ONCE = 1000
_IN_MEMORY_BYTES = 64 * 2**20
_MAGIC = "PAR1"


def _recognise(sample: Sample) -> str | None:
    return "its first four bytes" if sample.text.startswith(_MAGIC) else None


def _read(_tree: Tree, members: Sequence[Member], options: ReadOptions) -> Iterator[RawMemory | Flaw]:
    for member in members:
        try:
            with member.open() as stream, _seekable(stream) as file:
                yield from _memories(file, member, options)
        except UnreadableMember as error:
            yield Flaw(place=Place(file=member.shown), reason=str(error))


def _memories(file: IO[bytes], member: Member, options: ReadOptions) -> Iterator[RawMemory | Flaw]:
    try:
        import pyarrow as pa  # noqa: PLC0415 (an extra)
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        message = "to read Parquet, pyarrow must be installed: pip install 'everkept[parquet]'"
        raise UnreadableMember(message) from None

    def rows() -> Iterator[tuple[Place, Mapping[str, Any]]]:
        number = 0
        for batch in table.iter_batches(_ROWS_AT_ONCE, columns=wanted, use_threads=False):
            for cells in pa.Table.from_batches([batch]).cast(_to_microseconds(pa, batch.schema)).to_pylist():
                number += 1
                yield Place(file=member.shown, at=f"row {number}"), cells

    try:
        table = pq.ParquetFile(file)
        fields = fields_of(table.schema_arrow.names, options.columns)
        wanted = sorted(set(fields.values()))
        yield from memories(rows(), fields, options)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UnreadableMember(f"it is damaged, or of a kind that pyarrow cannot read: {reason}") from error


def _to_microseconds(pa: Any, schema: Any) -> Any:
    """Return the schema with times as Python has them."""

    def finest(kind: Any) -> Any:
        return pa.timestamp("us", tz=kind.tz) if pa.types.is_timestamp(kind) and kind.unit == "ns" else kind

    return pa.schema([field.with_type(finest(field.type)) for field in schema])


@contextmanager
def _seekable(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Give the stream itself, or a copy that has no name where it is a zip's: Parquet begins at its end."""
    if stream.seekable():
        yield stream
        return
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES) as copy:
        shutil.copyfileobj(stream, copy)
        copy.seek(0)
        yield copy


PARQUET = Reader(
    name="parquet",
    title="Parquet",
    looked_for="its first four bytes",
    recognise=_recognise,
    read=_read,
)
