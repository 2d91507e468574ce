"""The README's generated tables. `python -m tests.docs.tables` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

from annotated_types import Ge, Gt, Le

from api_stub.commands.output import Exit
from memory.languages import LANGUAGES
from memory.settings import Settings, default_home

README = Path(__file__).parents[2] / "README.md"

_EXITS = {
    Exit.OK: "done",
    Exit.PARTLY: "done, but something was rejected, is dead, late, different or left: the output says what",
    Exit.USAGE: "a bad argument",
    Exit.NO_STACK: "no stack runs, or a server cannot be reached",
    Exit.NOT_FOUND: "no such memory or dead letter",
    Exit.NOT_YET: "not searchable yet, or nobody answered in time: ask again",
    Exit.REFUSED: "a bad setting, or the cleanup's brake",
}


def settings_table() -> str:
    """One row a setting, from the settings themselves."""
    rows = ["| variable | default | allowed | meaning |", "|---|---|---|---|"]
    for field in Settings.model_fields.values():
        default = field.get_default(call_default_factory=True)
        shown = "—" if default is None else f"`{default}`"
        if default == default_home():
            shown = "`~/.local/share/memory`; as root `/var/lib/memory`"
        rows.append(f"| `{field.alias}` | {shown} | {_allowed(field)} | {field.description} |")
    return "\n".join(rows)


def exit_table() -> str:
    """One row an exit code."""
    return "\n".join(["| code | meaning |", "|---|---|", *(f"| {c.value} | {_EXITS[c]} |" for c in Exit)])


def with_tables(text: str) -> str:
    """The README with its tables as they should be."""
    for name, table in (("settings", settings_table()), ("exit codes", exit_table())):
        pattern = rf"(<!-- {name} -->\n).*(<!-- /{name} -->)"
        text = re.sub(pattern, lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
    return text


def _allowed(field: object) -> str:
    bounds = {type(m): m for m in getattr(field, "metadata", [])}
    low, high = bounds.get(Ge), bounds.get(Le)
    if isinstance(high, Le):
        start = f"{low.ge:,}" if isinstance(low, Ge) else "> 0" if Gt in bounds else ""
        return f"{start} to {high.le:,}"
    if field is Settings.model_fields["language"]:
        return ", ".join(f"`{language}`" for language in LANGUAGES)
    annotation = str(getattr(field, "annotation", ""))
    if "Literal" in annotation:
        return ", ".join(f"`{v}`" for v in re.findall(r"'(\w+)'", annotation))
    if "bool" in annotation:
        return "true, false"
    if "str" in annotation:
        return "URL" if str(getattr(field, "alias", "")).endswith("URL") else "a name or path"
    return "path"


if __name__ == "__main__":
    README.write_text(with_tables(README.read_text()))
