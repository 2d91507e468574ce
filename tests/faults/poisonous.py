"""The null stack with a model that one text kills: `python -m tests.faults.poisonous up`, and what it starts.

As long as there is no file `mended` in MEMORY_HOME, a text that holds KILLER ends its process as a crash of
the model would.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from api_stub.home import hold_home
from api_stub.stack.local import Programs, local_stack
from benchmarks.null_embedder import NullEmbedder
from memory.process import run_process
from memory.settings import Settings
from workers.app import run_embed_worker

KILLER = "the text that kills"
MENDED = "mended"
_PROGRAMS = Programs(embed=("tests.faults.poisonous", "embed"), indexer=("benchmarks.null_stack", "indexer"))


class PoisonedEmbedder(NullEmbedder):
    """Kills its process at one text, until it is mended."""

    def __init__(self, home: Path) -> None:
        super().__init__()
        self._mended = home / MENDED

    def encode(self, texts: Sequence[str]) -> Any:
        if any(KILLER in text for text in texts) and not self._mended.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(texts)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("process", choices=("up", "embed"))
    parser.add_argument("--name", default="embed-1")
    arguments = parser.parse_args(argv)
    if arguments.process == "embed":
        return run_process(arguments.name, lambda settings: _embed(settings, name=arguments.name))
    return run_process("up", _up)


def _embed(settings: Settings, *, name: str) -> int:
    return run_embed_worker(settings, name=name, load=lambda _: PoisonedEmbedder(settings.home))


def _up(settings: Settings) -> int:
    with hold_home(settings.home):
        supervisor = local_stack(
            settings, n_embed_workers=1, say=sys.stderr.write, programs=_PROGRAMS, longest_pause_s=0.25
        )
        return supervisor.run(on_ready=lambda: None)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
