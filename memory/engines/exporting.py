"""Makes an export of a model: the graph, its tokenizer, and how near its vectors come to torch's."""

from __future__ import annotations

import json
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from memory.engines import openvino_engine
from memory.engines.cpu import has_bfloat16
from memory.engines.exports import Export
from memory.engines.near_exact import CHECKED_TEXTS, cosines, vectors_of
from memory.engines.openvino_engine import TOKENIZER, OpenVinoEngine
from memory.engines.token_ids import write_tokenizer
from memory.engines.torch_engine import TorchEngine

if TYPE_CHECKING:
    from memory.engines.torch_model import TorchModel

_EVERY = 4
"""Each fourth turn of the sample chat judges an int8 model; the others show the ranges of its activations."""


def export(source: TorchModel, directory: Path, *, int8: bool) -> Export:
    """Write graph and tokenizer of a model into a directory, and measure them.

    A model that cannot be exported leaves nothing but the reason.

    Raises:
        OSError: the disk does not take it.

    """
    problem = _problem(source)
    if not problem:
        try:
            return _write(source, directory, int8=int8)
        except (OSError, MemoryError):  # of the machine, not of the model: another try may succeed
            raise
        except Exception as error:  # noqa: BLE001 (a tracer and a converter, each with errors of its own)
            problem = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    for path in directory.iterdir():
        path.unlink()
    return Export(engine_version=openvino_engine.version(), refused=problem)


def _problem(source: TorchModel) -> str | None:
    """Say why it is not worth a try; `None` where it is."""
    if source.prompt:
        return "it has a prompt"
    if not source.reads_word_pieces:
        return "it is no chain of modules that begins with a transformer for text alone"
    if getattr(source.model.tokenizer, "backend_tokenizer", None) is None:
        return "its tokenizer is written in Python"
    if source.model.tokenizer.padding_side != "right" or source.model.tokenizer.truncation_side != "right":
        return "it pads or cuts texts on the left"
    return None


def _write(source: TorchModel, directory: Path, *, int8: bool) -> Export:
    tokenizer = source.model.tokenizer
    pad_id = tokenizer.pad_token_id or 0
    write_tokenizer(tokenizer.backend_tokenizer.to_str(), directory / TOKENIZER, max_length=source.max_length)
    if int8:
        with tempfile.TemporaryDirectory(dir=directory) as name:
            exact = Path(name)
            (exact / TOKENIZER).write_bytes((directory / TOKENIZER).read_bytes())
            openvino_engine.write_graph(source, exact)
            openvino_engine.quantise(exact, directory, samples=_turns()[0], pad_id=pad_id)
    else:
        openvino_engine.write_graph(source, directory)
    return Export(
        engine_version=openvino_engine.version(),
        digest=source.digest,
        dim=source.dim,
        pad_id=pad_id,
        cosines=_measure(source, directory, int8=int8, pad_id=pad_id),
    )


def _measure(source: TorchModel, directory: Path, *, int8: bool, pad_id: int) -> dict[str, float]:
    texts = _turns()[1] if int8 else CHECKED_TEXTS
    exact = vectors_of(TorchEngine(source), texts)
    found = {}
    for precision in ["int8"] if int8 else ["float32", "bfloat16"] if has_bfloat16() else ["float32"]:
        engine = OpenVinoEngine(
            directory, precision=precision, dim=source.dim, digest=source.digest, pad_id=pad_id, n_threads=1
        )
        each = cosines(vectors_of(engine, texts), exact)
        found[precision] = round(float(each.mean() if int8 else each.min()), 7)
    return found


def _turns() -> tuple[list[str], list[str]]:
    """Return the turns of the sample chat that comes with the product: those that show, those that judge."""
    lines = (files("ingest") / "samples" / "lighthouse.jsonl").read_text().splitlines()
    contents = [json.loads(line)["content"] for line in lines]
    return [text for n, text in enumerate(contents) if n % _EVERY], contents[::_EVERY]
