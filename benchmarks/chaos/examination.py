"""What became of every memory: the ledger against the rows and the index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.chaos.ledger import Ending, Known, Ledger
from memory.store.rows import Key

_N_EXAMPLES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRow:
    """One row, as far as it is examined."""

    key: Key
    memory_id: int
    content: str | None
    revision: int = 0
    live: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a pipeline holds when nothing is under way any more."""

    rows: list[StoredRow]
    in_index: Counter[int] | None  # how often it holds each id; None: there is no index
    dead: Counter[Key] = field(default_factory=Counter)


@dataclass
class Findings:
    """What is wrong, in numbers and examples. All but the first five must be 0."""

    acknowledged: int = 0
    indeterminate_found: int = 0
    indeterminate_missing: int = 0
    dead_letters: int = 0
    poison: int = 0  # dead letters that are expected
    lost: int = 0
    duplicated: int = 0
    resurrected: int = 0
    drifted: int = 0
    unexpected: int = 0  # rows, dead letters or errors that nothing explains
    examples: list[str] = field(default_factory=list)

    def add(self, what: str, example: object, *, n: int = 1) -> None:
        """Count `n` of what is wrong, named by its field."""
        setattr(self, what, getattr(self, what) + n)
        if len(self.examples) < _N_EXAMPLES:
            self.examples.append(f"{what}: {example}")

    @property
    def wrong(self) -> dict[str, int]:
        """What must be 0, and is not."""
        must_be_0 = ("lost", "duplicated", "resurrected", "drifted", "unexpected")
        return {name: n for name in must_be_0 if (n := getattr(self, name))}


def examine(ledger: Ledger, contents: Contents) -> Findings:
    """Compare what is known with what is there."""
    findings = Findings(acknowledged=ledger.count(Ending.ACKNOWLEDGED))
    rows: dict[Key, list[StoredRow]] = {}
    for row in contents.rows:
        rows.setdefault(row.key, []).append(row)
    for key, known in ledger.memories.items():
        _examine_one(key, known, rows.pop(key, []), contents, findings)
    for key in rows:
        findings.add("unexpected", f"{key} has a row, and nobody enqueued it")
    for example in ledger.resurrected:
        findings.add("resurrected", example)
    for error in ledger.unexpected:
        findings.add("unexpected", error)
    _examine_index(contents, findings)
    _examine_dead_letters(ledger, contents.dead, findings)
    return findings


def _examine_one(
    key: Key, known: Known, rows: list[StoredRow], contents: Contents, findings: Findings
) -> None:
    if len(rows) > 1:
        findings.add("duplicated", f"{key} has {len(rows)} rows", n=len(rows) - 1)
    row = rows[0] if rows else None
    if known.enqueued is Ending.INDETERMINATE:
        findings.indeterminate_found += row is not None
        findings.indeterminate_missing += row is None
    if known.enqueued is Ending.FAILED and row:
        findings.add("unexpected", f"{key} has a row, and its enqueue failed")
    if known.must_be_gone and row and row.live:
        findings.add("resurrected", f"{key} lives, and its deletion was acknowledged")
    elif problem := _problem(known, row, contents):
        findings.add("lost", f"{key} {problem}")


def _problem(known: Known, row: StoredRow | None, contents: Contents) -> str | None:
    """Say how a memory is lost, `None` where it is not. One that is a dead letter is counted there."""
    if row is None:
        is_missing = known.enqueued is Ending.ACKNOWLEDGED and not contents.dead[_key_of(known)]
        return "has neither a row nor a dead letter" if is_missing else None
    if not row.live:
        return "is deleted, and nobody deleted it" if known.must_live else None
    if row.content not in known.contents:
        return f"has the content {row.content!r}, not one of {sorted(known.contents)}"
    if row.revision not in known.revisions:
        return f"is of revision {row.revision}, not one of {sorted(known.revisions)}"
    if contents.in_index is not None and not contents.in_index[row.memory_id]:
        return "is not in the index"
    return None


def _key_of(known: Known) -> Key:
    return str(known.draft["namespace"]), str(known.draft["uid"])


def _examine_index(contents: Contents, findings: Findings) -> None:
    if contents.in_index is None:
        return
    live = {row.memory_id for row in contents.rows if row.live}
    for memory_id, n in contents.in_index.items():
        if n > 1:
            findings.add("duplicated", f"id {memory_id} is {n} times in the index", n=n - 1)
        if memory_id not in live:
            findings.add("drifted", f"id {memory_id} is in the index, and not live")


def _examine_dead_letters(ledger: Ledger, dead: Counter[Key], findings: Findings) -> None:
    findings.dead_letters = dead.total()
    for uid, ending in ledger.poison.items():
        n = sum(_taken(dead, uid))
        findings.poison += n
        if n != 1 and ending is Ending.ACKNOWLEDGED:
            findings.add("lost" if n == 0 else "duplicated", f"poison {uid} has {n} dead letters")
        elif n > 1 or (n and ending is Ending.FAILED):
            findings.add("unexpected", f"poison {uid}, {ending}, has {n} dead letters")
    for key, n in (+dead).items():
        findings.add("unexpected", f"{key} has {n} dead letters", n=n)


def _taken(dead: Counter[Key], uid: str) -> Iterable[int]:
    """Yield how many dead letters a poisonous entry has, and take them out."""
    for key in [key for key in dead if key[1] == uid]:
        yield dead.pop(key)
