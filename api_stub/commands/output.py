"""What commands print: JSON for machines on standard output, Rich for people, news on standard error."""

from __future__ import annotations

import json
import sys
from enum import IntEnum
from typing import Annotated, Any

import typer
from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
NamespaceOption = Annotated[str, typer.Option("--namespace", "-n", help="Whose memories.")]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Exit(IntEnum):
    """Exit codes; they stand in the README."""

    OK = 0
    PARTLY = 1  # it worked, but some were rejected, dead, late or different
    USAGE = 2  # a bad argument
    NO_STACK = 3  # no stack runs, or a server cannot be reached
    NOT_FOUND = 4
    NOT_YET = 5  # not searchable yet, or nobody answered in time
    REFUSED = 6  # a bad setting, or the cleanup's brake


def print_json(data: Any) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def plain(content: str) -> str:
    """Return a memory on one line for a table, without characters that would change the terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in content).split())
    shown = line if len(line) <= 300 else f"{line[:299]}…"
    return shown.replace("[", r"\[")
