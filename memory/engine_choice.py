"""Which engines run a model, in which precisions, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from pathlib import Path

EngineName = Literal["auto", "torch", "openvino"]
Precision = Literal["auto", "float32", "bfloat16", "float16", "int8"]

ENGINES: tuple[EngineName, ...] = get_args(EngineName)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """What the settings ask for.

    Args:
        engine: `auto` is the fastest one here whose vectors are practically those of float32.
        precision: of the arithmetic; `auto` likewise. `int8` is never chosen by `auto`.
        use_gpu: CUDA.
        n_threads: of one pass on the CPU; 0 takes all cores.
        cache: directory of exported models.

    """

    engine: EngineName = "auto"
    precision: Precision = "auto"
    use_gpu: bool = False
    n_threads: int = 0
    cache: Path

    @property
    def is_openvino_demanded(self) -> bool:
        """Whether nothing else than OpenVINO may stand in: by its name, or by what only it can do."""
        return not self.use_gpu and (self.engine == "openvino" or self.precision in {"bfloat16", "int8"})


def allowed_engines(*, use_gpu: bool) -> tuple[EngineName, ...]:
    """Return the engines that may be asked for with or without a GPU."""
    return ("auto", "torch") if use_gpu else ENGINES


def allowed_precisions(engine: EngineName, *, use_gpu: bool) -> tuple[Precision, ...]:
    """Return the precisions that this engine can compute in, `auto` among them."""
    if use_gpu:
        return ("auto", "float32", "bfloat16", "float16")
    if engine == "torch":
        return ("auto", "float32")
    return ("auto", "float32", "bfloat16", "int8")


def problem_of_engine(engine: EngineName, *, use_gpu: bool) -> str | None:
    """Say what is allowed instead of this engine; `None` where it is allowed."""
    return _problem(engine, allowed_engines(use_gpu=use_gpu), _gpu(use_gpu=use_gpu))


def problem_of_precision(precision: Precision, engine: EngineName, *, use_gpu: bool) -> str | None:
    """Say what is allowed instead of this precision; `None` where it is allowed."""
    where = f"{_gpu(use_gpu=use_gpu)} and EMBEDDING_ENGINE = {engine}"
    return _problem(precision, allowed_precisions(engine, use_gpu=use_gpu), where)


def _gpu(*, use_gpu: bool) -> str:
    return f"where USE_GPU = {use_gpu}"


def _problem(value: str, allowed: tuple[str, ...], where: str) -> str | None:
    if value in allowed:
        return None
    return f"{', '.join(allowed[:-1])} or {allowed[-1]} {where}"
