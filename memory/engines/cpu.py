"""What this processor can do, as Linux tells it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
BF16_FLAGS = ("avx512_bf16", "amx_bf16")


@cache
def _first_core(path: Path) -> dict[str, str]:
    """Read what is said of the first core; nothing where Linux does not say it in these words."""
    if not path.is_file():
        return {}
    first = path.read_text(errors="replace").split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def has_bfloat16(path: Path = _CPUINFO) -> bool:
    """Return whether it multiplies bfloat16 in hardware. Otherwise that is emulated, slower than float32."""
    flags = _first_core(path).get("flags", "").split()
    return any(flag in flags for flag in BF16_FLAGS)


def signature(path: Path = _CPUINFO) -> str:
    """Name the kind of processor, 12 hex digits: another kind may round in another way."""
    core = _first_core(path)
    kind = "\n".join(core.get(name, "") for name in ("model name", "cpu family", "model", "flags"))
    return hashlib.sha256(kind.encode()).hexdigest()[:12]
