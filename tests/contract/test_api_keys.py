"""Keys of the HTTP API: made once, found by what they are, revoked for good."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from memory.api_keys import KeyScope, hash_of, key_draft, parts_of
from memory.database import Database
from memory.errors import InvalidMemory, NotFound
from memory.schema import api_keys
from memory.store.api_keys import ApiKeys

DRAFT = key_draft(name="Inês", scopes=["read"], namespaces=["ines", "home", "ines"], requests_a_minute=7)


def test_a_key_is_found_by_its_text_and_nothing_else(database: Database) -> None:
    keys = ApiKeys(database)
    made, text = keys.create(DRAFT)
    assert keys.find(text) == made
    assert (made.name, made.scopes, made.namespaces) == ("Inês", {KeyScope.READ}, ("home", "ines"))
    assert (made.requests_a_minute, made.revoked_at) == (7, None)
    other = keys.create(DRAFT)[1]
    wrong = text[: -len(other.split("_", 2)[2])] + other.split("_", 2)[2]
    for guess in (
        wrong,
        text[:-1],
        text + "A",
        text.upper(),
        "",
        "mem__",
        "mem_" + "0" * 12 + "_" + "A" * 43,
    ):
        assert keys.find(guess) is None


def test_the_secret_is_stored_nowhere(database: Database) -> None:
    _, text = ApiKeys(database).create(DRAFT)
    parts = parts_of(text)
    assert parts
    with database.read() as connection:
        row = connection.execute(select(api_keys)).one()
    assert row.secret_hash == hash_of(parts[1])
    assert parts[1] not in repr(tuple(row))


def test_a_revoked_key_opens_nothing_and_stays_in_the_list(database: Database) -> None:
    keys = ApiKeys(database)
    made, text = keys.create(DRAFT)
    kept, other = keys.create(DRAFT)
    revoked = keys.revoke(made.id)
    assert revoked.revoked_at is not None
    assert keys.revoke(made.id) == revoked
    assert keys.find(text) is None
    assert keys.find(other) == kept
    assert {key.id: key.revoked_at is None for key in keys.list()} == {made.id: False, kept.id: True}
    with pytest.raises(NotFound, match="no key with id 'nobody'"):
        keys.revoke("nobody")


def test_a_key_may_do_what_it_was_made_for_where_it_was_made_for(database: Database) -> None:
    bound, _ = ApiKeys(database).create(DRAFT)
    everywhere, _ = ApiKeys(database).create(
        key_draft(name="root", scopes=["admin", "write"], namespaces=None)
    )
    assert bound.may(KeyScope.READ, "ines")
    assert not bound.may(KeyScope.READ, "rui")
    assert not bound.may(KeyScope.WRITE, "ines")
    assert everywhere.may(KeyScope.ADMIN, "rui")
    assert not everywhere.may(KeyScope.READ, "rui")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scopes": ["root"]}, "scope = 'root': must be one of read, write, admin"),
        ({"scopes": []}, "scopes = "),
        ({"namespaces": []}, "namespaces = "),
        ({"namespaces": [" "]}, "namespace = ' '"),
        ({"name": ""}, "name = ''"),
        ({"requests_a_minute": 0}, "requests_a_minute = 0"),
    ],
)
def test_a_bad_draft_is_refused(fields: dict[str, object], message: str) -> None:
    good = {"name": "x", "scopes": ["read"], "namespaces": ["a"]}
    with pytest.raises(InvalidMemory, match=message):
        key_draft(**{**good, **fields})  # type: ignore[arg-type]
