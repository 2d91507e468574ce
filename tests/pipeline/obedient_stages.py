"""Supervise children that obey SIGTERM, one a stage: `obedient_stages HOME NAMES [NEVER_READY]`.

A name is one letter. Each child makes a file of its name, and adds its name to the file `order` as it ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

from api_stub.stack.children import ChildSpec
from api_stub.stack.supervisor import Supervisor
from tests.pipeline.processes import python_child

_OBEDIENT = """
import pathlib, signal, sys
def leave(*_):
    with open("order", "a") as order:
        order.write("{name} ")
    sys.exit()
signal.signal(signal.SIGTERM, leave)
pathlib.Path("{name}").touch()
while True:
    signal.pause()
"""


def obedient_source(name: str) -> str:
    """A program that writes its name as it ends, when it is asked to."""
    return _OBEDIENT.format(name=name)


def obedient(name: str, *, home: Path, can_be_ready: bool = True) -> ChildSpec:
    """A child that runs this program."""
    is_ready = None if can_be_ready else lambda: False
    return python_child(name, obedient_source(name), home=home, is_ready=is_ready)


def main(home: Path, names: str, never_ready: str = "") -> int:
    stages = [[obedient(name, home=home, can_be_ready=name not in never_ready)] for name in names]
    return Supervisor(stages=stages, say=print).run(on_ready=(home / "ready").touch)


if __name__ == "__main__":
    home, *names = sys.argv[1:]
    sys.exit(main(Path(home), *names))
