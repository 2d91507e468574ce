"""Ids for conversations that have none: the same at each reading of the same conversation."""

from __future__ import annotations

import json

from ingest.hashed_names import HashedNames


class NamelessConversations:
    """Names the conversations of one file by how they begin, and the how-manieth of its equals it is.

    So a conversation that has grown since keeps its name, and a file that was renamed all of them.
    """

    def __init__(self) -> None:
        self._names = HashedNames()

    def name(self, opening: object) -> str:
        """Return the name of a conversation that begins so."""
        return self._names.name(json.dumps(opening, sort_keys=True, default=str).encode())
