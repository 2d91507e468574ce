"""The machine that a benchmark ran on, described so that its figures can be judged."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
_PACKAGES = (
    "sentence-transformers",
    "torch",
    "transformers",
    "openvino",
    "onnxruntime",
    "faiss-cpu",
    "faiss-gpu",
    "numpy",
    "celery",
    "redis",
    "psycopg",
    "SQLAlchemy",
)
_DECISIVE = ("EMBEDDING_", "USE_GPU", "OMP_", "MKL_", "CUDA_VISIBLE")


def describe_machine() -> dict[str, Any]:
    """Return cores, processor with the flags that matter, memory, versions, commit, and settings of ours."""
    model, flags = _processor()
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model,
        "flags": [flag for flag in _FLAGS if flag in flags],
        "memory GB": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "versions": _versions(),
        "commit": _commit(),
        "environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_DECISIVE)},
    }


def load() -> list[float]:
    """Return the load average over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def _processor() -> tuple[str, set[str]]:
    facts: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        facts.setdefault(name.strip(), value.strip())
    return facts.get("model name", platform.processor()), set(facts.get("flags", "").split())


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an engine or a GPU's package that is not installed
    return found


def _commit() -> str:
    """Return the short hash, with a `+` behind it where tracked files were changed; "unknown" outside git."""
    try:
        return _git("rev-parse", "--short", "HEAD") + (
            "+" if _git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
