"""Where Slack exports stand in a tree: their daily files by channel, and the names of people and channels."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ingest.chat_logs.json_values import values
from ingest.chat_logs.messages import Flaw, Place
from ingest.chat_logs.reader import Sample
from ingest.chat_logs.shapes import mapping, name, sequence, text
from ingest.chat_logs.trees import UnreadableMember

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ingest.chat_logs.trees import Member

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\.json", re.ASCII)
_TS = re.compile(r"\d{9,}\.\d+", re.ASCII)
_PEOPLE = ("users.json", "org_users.json")
_CHANNELS = ("channels.json", "groups.json")
_DIRECT = ("dms.json", "mpims.json")


@dataclass(frozen=True, slots=True)
class Channel:
    """One conversation: a channel, or the direct messages of some people."""

    id: str
    title: str


@dataclass(frozen=True, slots=True)
class Names:
    """What the lists of an export say: people by id, channels by id and by folder."""

    people: dict[str, str] = field(default_factory=dict)
    channels: dict[str, Channel] = field(default_factory=dict)

    def channel_of(self, folder: str) -> Channel:
        """Return the channel of a folder; one of the folder's name where no list has it."""
        return self.channels.get(folder) or Channel(id=folder, title=folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The members of one export: its lists, and the daily files of each channel's folder, by date.

    In an organisation of several workspaces each has a folder of its own, and the people stand in a list of
    all: so lists in the folders around it count, after its own ones.
    """

    lists: tuple[Member, ...]
    folders: dict[str, list[Member]]

    def is_slack(self) -> bool:
        """Whether one of the daily files begins with a message as Slack writes it."""
        return any(_begins_with_a_message(day) for days in self.folders.values() for day in days)


def exports(members: Iterable[Member]) -> list[Export]:
    """Find every folder with folders of daily files in it."""
    lists: dict[str, list[Member]] = {}
    roots: dict[str, dict[str, list[Member]]] = {}
    for member in members:
        above, _, file = member.name.rpartition("/")
        if file in (*_PEOPLE, *_CHANNELS, *_DIRECT):
            lists.setdefault(above, []).append(member)
        elif above and _DAY.fullmatch(file):
            root, _, folder = above.rpartition("/")
            roots.setdefault(root, {}).setdefault(folder, []).append(member)
    return [
        Export(
            lists=tuple(found for place in _around(root) for found in lists.get(place, [])), folders=folders
        )
        for root, folders in roots.items()
    ]


def read_names(export: Export) -> tuple[Names, list[Flaw]]:
    """Read the lists of people and channels, and say which of them are damaged."""
    names, flaws = Names(), []
    for kinds in (_PEOPLE, (*_CHANNELS, *_DIRECT)):  # the people first: direct messages are named after them
        for member in export.lists:
            file = member.name.rpartition("/")[2]
            if file not in kinds:
                continue
            try:
                for value in values(member, "item"):
                    _add(mapping(value), names, file=file)
            except UnreadableMember as error:
                flaws.append(Flaw(place=Place(file=member.shown), reason=str(error)))
    return names, flaws


def person_name(person: dict[str, Any]) -> str | None:
    """Return how Slack shows a person of `users.json`, or of a message's `user_profile`."""
    profile = mapping(person.get("profile"))
    candidates = (
        profile.get("display_name"),
        person.get("display_name"),
        person.get("real_name"),
        profile.get("real_name"),
        person.get("name"),
    )
    return next((found for found in map(name, candidates) if found), None)


def _add(value: dict[str, Any], names: Names, *, file: str) -> None:
    if (found_id := name(value.get("id"))) is None:
        return
    if file in _PEOPLE:
        names.people.setdefault(found_id, person_name(value) or found_id)
        return
    folder = name(value.get("name")) or found_id
    people = [names.people.get(text(member), text(member)) for member in sequence(value.get("members"))]
    title = (", ".join(dict.fromkeys(people)) or folder) if file in _DIRECT else folder
    channel = Channel(id=found_id, title=title)
    names.channels.setdefault(found_id, channel)
    names.channels.setdefault(folder, channel)


def _around(folder: str) -> Iterator[str]:
    while folder:
        yield folder
        folder = folder.rpartition("/")[0]
    yield ""


def _begins_with_a_message(day: Member) -> bool:
    try:
        sample = Sample(member=day)
        return isinstance(sample.value, list) and bool(_TS.fullmatch(text(sample.first.get("ts"))))
    except UnreadableMember:
        return False
