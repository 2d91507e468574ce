"""`memory up` with a model that costs nothing: the product's own processes, back in two seconds when killed.

`python -m benchmarks.null_stack up [--embed-workers N] [--model synthetic]` runs it in the foreground, in
MEMORY_HOME. The processes are started by its supervisor as `… null_stack embed --name NAME` and
`… null_stack indexer`. With `--model synthetic` only the embed workers are spared the model: the indexer
embeds queries with the real one, in an index of vectors that look like its own.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from api_stub.home import hold_home
from api_stub.stack.local import Programs, local_stack
from benchmarks.null_embedder import NullEmbedder
from benchmarks.synthetic_embedder import SyntheticEmbedder
from indexer.app import run_indexer
from memory.process import run_process
from memory.settings import Settings
from workers.app import run_embed_worker

_ROOT = Path(__file__).parent.parent
_PROGRAMS = {
    "null": Programs(embed=("benchmarks.null_stack", "embed"), indexer=("benchmarks.null_stack", "indexer")),
    "synthetic": Programs(embed=("benchmarks.null_stack", "embed", "--model", "synthetic")),
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("process", choices=("up", "embed", "indexer"))
    parser.add_argument("--name", default="embed-1", help="of an embed worker")
    parser.add_argument("--embed-workers", type=int, default=1)
    parser.add_argument("--model", choices=("null", "synthetic"), default="null")
    arguments = parser.parse_args(argv)
    if arguments.process == "embed":
        return run_process(arguments.name, lambda settings: _embed(settings, arguments))
    if arguments.process == "indexer":
        return run_process("indexer", lambda settings: run_indexer(settings, load=lambda _: NullEmbedder()))
    return run_process("up", lambda settings: _up(settings, arguments))


def _embed(settings: Settings, arguments: argparse.Namespace) -> int:
    return run_embed_worker(
        settings,
        name=arguments.name,
        load=lambda _: (
            NullEmbedder() if arguments.model == "null" else SyntheticEmbedder.of_home(settings.home)
        ),
    )


def _up(settings: Settings, arguments: argparse.Namespace) -> int:
    os.umask(0o077)
    os.environ["PYTHONPATH"] = str(_ROOT)  # its children start in MEMORY_HOME
    with hold_home(settings.home):
        supervisor = local_stack(
            settings,
            n_embed_workers=arguments.embed_workers,
            say=_say,
            programs=_PROGRAMS[arguments.model],
            # Only what kills it again and again would wait longer; see benchmarks/chaos.
            longest_pause_s=0.25,
        )
        return supervisor.run(on_ready=lambda: _say("ready"))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
