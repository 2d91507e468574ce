"""What is imported, one file or folder format after the other, as raw memories and flaws."""

from __future__ import annotations

import sys
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import is_zipfile

from ingest.chat_logs.formats import READERS, Detected, Found, detect, reader_named
from ingest.chat_logs.memories import MessageMemories
from ingest.chat_logs.reader import Reader, ReadOptions
from ingest.chat_logs.trees import Member, Tree, UnreadableMember, open_tree
from ingest.growing import whole_lines
from ingest.importance import guessed_importance
from ingest.jsonl import JSONL
from memory.errors import InvalidMemory
from memory.messages import DEFAULT_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from ingest.chat_logs.messages import Flaw, Kind
    from memory.messages import RawMemory

STDIN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What a person says about what is to be imported."""

    imported_at: datetime  # the instant of messages that have none
    read: ReadOptions = field(default_factory=ReadOptions)
    include: tuple[Kind, ...] = ()  # besides what was shown as a message
    format: str | None = None  # what every file is said to be
    guesses_importance: bool = False  # of messages, by `guessed_importance`
    is_growing: bool = False  # whether files are read up to their last whole line, again and again


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One file, or one folder format, that is read in one go."""

    name: str
    key: str  # another one when the content has changed
    format: str
    reason: str  # to think that it is of this format
    n_bytes: int
    memories: Callable[[], Iterator[RawMemory | Flaw]]
    n_read_bytes: Callable[[], int]  # by now


@contextmanager
def opened(path: str, options: ImportOptions) -> Iterator[tuple[list[Input], tuple[Flaw, ...]]]:
    """Open a file, folder or zip (`-` is standard input, of JSONL): what it holds, and what was passed over.

    Raises:
        InvalidMemory: there is nothing at `path`, or nothing in a known format, or the format is unknown.

    """
    if path == STDIN:
        if options.is_growing:
            raise InvalidMemory(field="PATH", value=path, allowed="a file, to be followed")
        reader = _forced(options) or JSONL
        member = Member(
            name=STDIN, shown=STDIN, n_bytes=0, stamp=0, opener=lambda: nullcontext(sys.stdin.buffer)
        )
        yield [_input(Tree(shown=STDIN, members=(member,)), reader, (member,), "as it was said", options)], ()
        return
    try:
        with open_tree(Path(path)) as tree:
            detected = _detected(tree, options)
            if options.is_growing:
                tree, detected = _growing(Path(path), tree, detected)  # noqa: PLW2901
            yield list(_inputs(tree, detected, options)), detected.flaws
    except UnreadableMember as error:
        raise InvalidMemory(field="PATH", value=path, allowed=f"a chat log, or memories: {error}") from error


def _growing(path: Path, tree: Tree, detected: Detected) -> tuple[Tree, Detected]:
    """Let the only member be read up to its last whole line, whatever its size is by then."""
    found = detected.found[0]
    if not path.is_file() or is_zipfile(path):
        raise UnreadableMember("only a file can be followed")
    if not found.reader.is_lines:
        raise UnreadableMember(f"only a file of lines can be followed, and this is a {found.reader.title}")
    member = replace(tree.members[0], n_bytes=0, stamp=0, opener=lambda: whole_lines(path))
    found = replace(found, members=(member,))
    return replace(tree, members=(member,)), replace(detected, found=(found,))


def _detected(tree: Tree, options: ImportOptions) -> Detected:
    """Find the formats, or take the one that was said. Raises UnreadableMember where there is nothing."""
    reader = _forced(options) or (JSONL if options.is_growing and _is_empty(tree) else None)
    if reader is None:
        detected = detect(tree)
    else:
        members = tuple(reader.gather(tree)) or tree.members
        found = Found(reader=reader, members=members, reason="as it was said")
        detected = Detected(found=(found,) if members else (), flaws=tree.flaws)
    if not detected.found:
        raise UnreadableMember(detected.flaws[0].reason if detected.flaws else "there is nothing in it")
    return detected


def _is_empty(tree: Tree) -> bool:
    return sum(member.n_bytes for member in tree.members) == 0


def _forced(options: ImportOptions) -> Reader | None:
    if options.format is None:
        return None
    if reader := reader_named(options.format):
        return reader
    names = ", ".join(reader.name for reader in READERS)
    raise InvalidMemory(field="format", value=options.format, allowed=f"one of {names}")


def _inputs(tree: Tree, detected: Detected, options: ImportOptions) -> Iterator[Input]:
    for found in detected.found:
        if found.reader.gather(tree):  # its files are read together
            yield _input(tree, found.reader, found.members, found.reason, options)
        else:
            for member in found.members:
                yield _input(tree, found.reader, (member,), found.reason, options)


def _input(
    tree: Tree, reader: Reader, members: tuple[Member, ...], reason: str, options: ImportOptions
) -> Input:
    def memories() -> Iterator[RawMemory | Flaw]:
        converter = MessageMemories(
            reader.name,
            namespace=options.read.namespace or DEFAULT_NAMESPACE,
            max_content_bytes=options.read.max_content_bytes,
            imported_at=options.imported_at,
            include=options.include,
            importance=guessed_importance if options.guesses_importance else None,
        )
        return converter.memories(reader.read(tree, members, options.read))

    name = members[0].shown if len(members) == 1 else tree.shown
    n_bytes = sum(member.n_bytes for member in members)
    stamp = max(member.stamp for member in members)
    return Input(
        name=name,
        key=f"{name} {n_bytes} {stamp} {reader.name} {_others(options)}",
        format=reader.name,
        reason=reason,
        n_bytes=n_bytes,
        memories=memories,
        n_read_bytes=lambda: sum(member.reading.n_bytes(of=member.n_bytes) for member in members),
    )


def _others(options: ImportOptions) -> str:
    return f"{sorted(options.include)} {options.guesses_importance} {options.read}"


def share_read(inputs: Iterable[Input]) -> float:
    """Return how much of all inputs was read by now, 0..1, by their bytes; 1 where they have none."""
    sizes = [(source.n_read_bytes(), source.n_bytes) for source in inputs]
    n_bytes = sum(size for _, size in sizes)
    return sum(n_read for n_read, _ in sizes) / n_bytes if n_bytes else 1.0
