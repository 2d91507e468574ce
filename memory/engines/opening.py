"""Chooses the engine: what the settings demand, else the fastest one here whose vectors are near-exact."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from memory.engine_choice import problem_of_engine, problem_of_precision
from memory.engines import cpu, openvino_engine
from memory.engines.exporting import export
from memory.engines.exports import ExportCache, key_of
from memory.engines.near_exact import INT8_MEAN, NEAR_EXACT
from memory.engines.openvino_engine import OpenVinoEngine
from memory.engines.source import content_hash, locate
from memory.engines.torch_engine import TorchEngine
from memory.engines.torch_model import TorchModel
from memory.errors import SettingsError

if TYPE_CHECKING:
    from memory.engine_choice import EngineChoice
    from memory.engines.engine import Engine
    from memory.engines.exports import Entry, Export

log = structlog.get_logger(__name__)


class _Unusable(Exception):
    """OpenVINO cannot run this model here as it was asked to; says why."""


@dataclass(slots=True)
class _Source:
    """A model that is loaded with torch once, when it is needed."""

    name: str
    loaded: TorchModel | None = None

    def load(self) -> TorchModel:
        self.loaded = self.loaded or TorchModel(self.name)
        return self.loaded


def open_engine(name: str, choice: EngineChoice) -> Engine:
    """Load a model into the engine of choice.

    Raises:
        SettingsError: the model cannot be loaded, or not in this way; says what is missing or allowed.

    """
    check_choice(choice)
    if choice.use_gpu:
        return TorchEngine(TorchModel(name, use_gpu=True), precision=choice.precision)
    source = _Source(name)
    if choice.engine != "torch":
        try:
            return _open_openvino(source, choice)
        except _Unusable as error:
            if choice.is_openvino_demanded:
                raise SettingsError(_refusal(choice, str(error))) from error
            log.info("torch_embeds", model=name, reason=str(error))
    _set_torch_threads(choice.n_threads)
    return TorchEngine(source.load())


def check_choice(choice: EngineChoice) -> None:
    """Refuse an engine, or a precision, that nothing here could offer.

    Raises:
        SettingsError: names the variable, its value and what is allowed.

    """
    problem = problem_of_engine(choice.engine, use_gpu=choice.use_gpu)
    if problem:
        message = f"EMBEDDING_ENGINE = {choice.engine!r}: must be {problem}"
        raise SettingsError(message)
    problem = problem_of_precision(choice.precision, choice.engine, use_gpu=choice.use_gpu)
    if problem:
        message = f"EMBEDDING_PRECISION = {choice.precision!r}: must be {problem}"
        raise SettingsError(message)


def _open_openvino(source: _Source, choice: EngineChoice) -> Engine:
    if not openvino_engine.is_installed():
        raise _Unusable("OpenVINO is not installed")
    if choice.precision == "bfloat16" and not cpu.has_bfloat16():
        raise _Unusable(f"this processor has none of {', '.join(cpu.BF16_FLAGS)}")
    int8 = choice.precision == "int8"
    entry = _cached(source, choice, int8=int8)
    if entry is None:
        return _open_without_cache(source, choice, int8=int8)
    return _open_entry(entry, choice)


def _cached(source: _Source, choice: EngineChoice, *, int8: bool) -> Entry | None:
    """Return the export from the cache, made if need be; `None` where the cache cannot be written."""
    kind = "int8" if int8 else "float32"
    key = key_of(_content(source), openvino_engine.version(), cpu.signature(), kind)
    try:
        return ExportCache(choice.cache).get(key, make=lambda folder: _make(source, folder, int8=int8))
    except OSError as error:
        log.info("model_not_cached", directory=str(choice.cache), reason=str(error))
        return None


def _content(source: _Source) -> str:
    """Hash what the model is: its files, or its weights where only loading tells which files they are."""
    directory = Path(locate(source.name))
    if not any((directory / name).is_file() for name in ("modules.json", "config.json")):
        return source.load().digest
    try:
        return content_hash(directory)
    except OSError as error:
        raise _Unusable(f"its files cannot be read: {error}") from error


def _open_without_cache(source: _Source, choice: EngineChoice, *, int8: bool) -> Engine:
    """Export into a directory that is gone as soon as it is read: the next start takes as long."""
    try:
        with tempfile.TemporaryDirectory(prefix="memory-model-") as name:
            cache = ExportCache(Path(name))
            return _open_entry(cache.get("model", make=lambda f: _make(source, f, int8=int8)), choice)
    except OSError as error:
        raise _Unusable(
            f"neither {choice.cache} nor a temporary directory can be written: {error}"
        ) from error


def _make(source: _Source, folder: Path, *, int8: bool) -> Export:
    if int8 and not openvino_engine.can_quantise():
        raise _Unusable("NNCF is not installed, which makes int8 of a model: pip install 'everkept[int8]'")
    return export(source.load(), folder, int8=int8)


def _open_entry(entry: Entry, choice: EngineChoice) -> Engine:
    if entry.export.refused:
        raise _Unusable(f"the model cannot be exported: {entry.export.refused}")
    return OpenVinoEngine(
        entry.directory,
        precision=_precision(entry.export, choice),
        dim=entry.export.dim,
        digest=entry.export.digest,
        pad_id=entry.export.pad_id,
        n_threads=choice.n_threads,
    )


def _precision(found: Export, choice: EngineChoice) -> str:
    """Return the fastest precision that was asked for and came near enough."""
    wanted = ["bfloat16", "float32"] if choice.precision == "auto" else [choice.precision]
    for precision in wanted:
        bound = INT8_MEAN if precision == "int8" else NEAR_EXACT
        if found.cosines.get(precision, -1) >= bound:
            return precision
    near = ", ".join(f"{name} {cosine:.5f}" for name, cosine in found.cosines.items())
    raise _Unusable(f"its vectors are not near enough to torch's float32 (cosine {near})")


def _refusal(choice: EngineChoice, reason: str) -> str:
    if choice.precision in {"bfloat16", "int8"}:
        return f"EMBEDDING_PRECISION = {choice.precision!r}: must be auto or float32 here: {reason}"
    return f"EMBEDDING_ENGINE = {choice.engine!r}: must be auto or torch here: {reason}"


def _set_torch_threads(n_threads: int) -> None:
    if n_threads:
        import torch  # noqa: PLC0415 (about to be needed)

        torch.set_num_threads(n_threads)
