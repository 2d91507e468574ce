"""What the chaos benchmark calls lost, duplicated, resurrected and drifted: it must be able to fail."""

from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.chaos.examination import Contents, Findings, StoredRow, examine
from benchmarks.chaos.ledger import Ending, Ledger

ACKNOWLEDGED, FAILED, INDETERMINATE = Ending.ACKNOWLEDGED, Ending.FAILED, Ending.INDETERMINATE
KEY = ("space", "a")
ROW = StoredRow(key=KEY, memory_id=7, content="first")


def ledger(enqueued: Ending = ACKNOWLEDGED, *, deleted: Ending | None = None) -> Ledger:
    """One memory, whose operations ended so."""
    made = Ledger()
    made.note_enqueued({"namespace": "space", "uid": "a", "content": "first"}, enqueued)
    made.memories[KEY].deleted = deleted
    return made


def found(known: Ledger, *rows: StoredRow, index: dict[int, int] | None = None, **dead: int) -> Findings:
    in_index = Counter({row.memory_id: 1 for row in rows if row.live}) if index is None else Counter(index)
    letters = Counter({("space", uid): n for uid, n in dead.items()})
    return examine(known, Contents(rows=list(rows), in_index=in_index, dead=letters))


def test_a_memory_that_is_there_as_it_should_be_is_nothing_wrong() -> None:
    assert found(ledger(), ROW).wrong == {}


@pytest.mark.parametrize(
    "row",
    [
        None,
        StoredRow(key=KEY, memory_id=7, content=None, live=False),
        StoredRow(key=KEY, memory_id=7, content="other"),
        StoredRow(key=KEY, memory_id=7, content="first", revision=3),
    ],
    ids=["no row", "a tombstone", "another content", "another revision"],
)
def test_an_acknowledged_memory_without_its_row_is_lost(row: StoredRow | None) -> None:
    assert found(ledger(), *([row] if row else [])).wrong == {"lost": 1}


def test_a_row_that_the_index_does_not_hold_is_lost() -> None:
    assert found(ledger(), ROW, index={}).wrong == {"lost": 1}


def test_a_lost_update_is_lost_and_an_indeterminate_one_may_be_there_or_not() -> None:
    known = ledger()
    known.memories[KEY].note_revised("second", 1, ACKNOWLEDGED)
    assert found(known, ROW).wrong == {"lost": 1}
    known = ledger()
    known.memories[KEY].note_revised("second", 1, INDETERMINATE)
    second = StoredRow(key=KEY, memory_id=7, content="second", revision=1)
    assert found(known, ROW).wrong == found(known, second).wrong == {}


def test_two_rows_of_a_key_or_two_vectors_of_an_id_are_duplicates() -> None:
    assert found(ledger(), ROW, StoredRow(key=KEY, memory_id=8, content="first")).wrong == {"duplicated": 1}
    assert found(ledger(), ROW, index={7: 2}).wrong == {"duplicated": 1}


def test_a_deleted_memory_that_lives_is_resurrected_and_one_of_an_indeterminate_deletion_is_not() -> None:
    assert found(ledger(deleted=ACKNOWLEDGED), ROW).wrong == {"resurrected": 1}
    assert found(ledger(deleted=INDETERMINATE), ROW).wrong == {}
    assert found(ledger(deleted=FAILED), ROW).wrong == {}


def test_an_id_in_the_index_that_has_no_live_row_is_drift() -> None:
    assert found(ledger(), ROW, index={7: 1, 9: 1}).wrong == {"drifted": 1}


def test_an_indeterminate_memory_is_counted_and_a_failed_one_must_not_be_there() -> None:
    assert found(ledger(INDETERMINATE), ROW).indeterminate_found == 1
    assert found(ledger(INDETERMINATE)).indeterminate_missing == 1
    assert found(ledger(INDETERMINATE)).wrong == {}
    assert found(ledger(FAILED), ROW).wrong == {"unexpected": 1}


def test_a_row_that_nobody_enqueued_is_unexpected() -> None:
    assert found(Ledger(), ROW).wrong == {"unexpected": 1}


def test_poison_must_become_one_dead_letter_and_nothing_else_may() -> None:
    known = ledger()
    known.poison = {"p": ACKNOWLEDGED, "q": INDETERMINATE}
    assert found(known, ROW, p=1).wrong == {}
    assert found(known, ROW, p=1, q=1).wrong == {}
    assert found(known, ROW).wrong == {"lost": 1}
    assert found(known, ROW, p=2).wrong == {"duplicated": 1}
    assert found(known, p=1, a=1).wrong == {"unexpected": 1}
