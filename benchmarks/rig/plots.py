"""Pictures of figures. Needs matplotlib: the extra `bench`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.rig.command import NotPossible

_INCHES = (7.2, 4.2)
_DPI = 144


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A plot of lines over the number of memories, which has a logarithmic axis.

    Args:
        title: what is seen.
        y: what the other axis counts, with its unit.
        lines: (memories, value) by name, joined and marked.
        course: one more line, thin and unmarked, behind the others.

    """

    title: str
    y: str
    lines: Mapping[str, Sequence[tuple[int, float]]]
    course: Sequence[tuple[int, float]] = field(default=())


def check_can_plot(path: Path | None) -> None:
    """Refuse a picture that could not be made, before anything is measured.

    Raises:
        NotPossible: matplotlib is not installed, or there is no such folder.

    """
    if path is None:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise NotPossible("--plot needs matplotlib: ./run python -m pip install -e '.[bench]'")
    if not path.absolute().parent.is_dir():
        raise NotPossible(f"--plot {path}: there is no folder {path.parent}")


def draw(picture: Picture, path: Path) -> None:
    """Write the picture to `path`, as PNG or whatever its ending says."""
    from matplotlib.figure import Figure  # noqa: PLC0415 (an extra)

    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    if picture.course:
        axes.plot(
            *zip(*picture.course, strict=True), color="0.75", linewidth=1, zorder=1, label="while filling"
        )
    for name, points in picture.lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(title=picture.title, xlabel="memories", ylabel=picture.y, xscale="log", ylim=(0, None))
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path)
