"""The one door to OpenVINO: a model becomes a graph, and a graph is run on the CPU, without torch.

Neither OpenVINO nor NNCF may report anything to anybody: their telemetry is kept from being imported,
and both do without it. The graph is made by OpenVINO's torch frontend itself, not by `convert_model`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.engines.engine import Tokenized
from memory.engines.token_ids import TokenIds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from memory.engines.engine import Vectors
    from memory.engines.torch_model import TorchModel

GRAPH, WEIGHTS, TOKENIZER = "graph.xml", "graph.bin", "tokenizer.json"
_TELEMETRY = "openvino_telemetry"
_HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}
"""What is not quantised is computed in this; bfloat16 there would cost more cosine than it gains time."""

_core_lock = threading.Lock()
_only_core: Any = None


class OpenVinoEngine:
    """A graph on the CPU: one stream, one pass at a time.

    Args:
        directory: holds the graph, its weights and the tokenizer.
        precision: `float32`, `bfloat16` or `int8`; for the last one the graph must be quantised.
        dim: how many numbers a vector has.
        digest: of the model that the graph was made of.
        pad_id: what fills up shorter texts; the mask hides it.
        n_threads: of one pass; 0 takes all cores.

    Raises:
        RuntimeError: OpenVINO cannot read or compile the graph.

    """

    batch_tokens = 768
    chunk = 2048

    def __init__(
        self, directory: Path, *, precision: str, dim: int, digest: str, pad_id: int, n_threads: int
    ) -> None:
        self.name = f"openvino cpu {precision}"
        self.dim = dim
        self.digest = digest
        self.family = "int8" if precision == "int8" else "float32"
        self._pad_id = pad_id
        self._tokens = TokenIds(directory / TOKENIZER)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            # Each of several processes would bind its only thread to the first core.
            "ENABLE_CPU_PINNING": False,
        }
        if n_threads:
            settings["INFERENCE_NUM_THREADS"] = n_threads
        compiled = _core().compile_model(str(directory / GRAPH), "CPU", settings)
        self._request = compiled.create_infer_request()

    def tokenize(self, texts: list[str]) -> Tokenized:
        """Cut texts into word pieces."""
        rows = self._tokens.of(texts)
        lengths = [len(row) for row in rows]
        full = [place for place, length in enumerate(lengths) if length >= self._tokens.max_length]
        return Tokenized(lengths, rows, full)

    def split(self, text: str) -> list[str]:
        """Cut a text into windows that the model reads whole."""
        return self._tokens.split(text)

    def run(self, rows: list[Any]) -> Vectors:
        """Pass these through the model together. Returns float32 (len(rows), dim), of any length."""
        ids, mask = _padded(rows, self._pad_id)
        result = self._request.infer({0: ids, 1: mask}, share_inputs=True)
        vectors: Vectors = np.array(result[0], dtype=np.float32)
        return vectors

    def is_out_of_memory(self, error: Exception) -> bool:  # noqa: ARG002 (the CPU's has no such end)
        """Return False: a smaller pass cannot do what failed here."""
        return False

    def free_memory(self) -> None:
        """Do nothing: nothing is kept."""


def is_installed() -> bool:
    """Return whether OpenVINO can be imported here."""
    return importlib.util.find_spec("openvino") is not None


def can_quantise() -> bool:
    """Return whether NNCF can be imported here."""
    return importlib.util.find_spec("nncf") is not None


def version() -> str:
    """Return OpenVINO's version with its build."""
    return str(_openvino().get_version())


def write_graph(source: TorchModel, directory: Path) -> None:
    """Make a graph of a torch model: from ids and mask to its vector, pooling included, in float32.

    Raises:
        Exception: of any kind: the model does something that cannot be traced, or has no graph.

    """
    openvino = _openvino()
    with _without_telemetry():
        from openvino.frontend import FrontEndManager  # noqa: PLC0415
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder  # noqa: PLC0415
    import torch  # noqa: PLC0415 (loaded by now)

    class Chain(torch.nn.Module):
        """The model's modules, one after the other."""

        def __init__(self) -> None:
            super().__init__()
            self.steps = source.model

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            features = {"input_ids": input_ids, "attention_mask": attention_mask, "modality": "text"}
            for step in self.steps:
                features = step(features)
            return features["sentence_embedding"]

    example = source.model.tokenizer(["two texts", "of different lengths"], padding=True, return_tensors="pt")
    inputs = {name: example[name] for name in ("input_ids", "attention_mask")}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of tracing: whether it was right is measured afterwards
        decoder = TorchScriptPythonDecoder(Chain().eval(), example_input=inputs)
        frontend = FrontEndManager().load_by_framework("pytorch")
        graph = frontend.convert(frontend.load(decoder))
    for node in graph.inputs:
        node.get_node().set_partial_shape(openvino.PartialShape([-1, -1]))
    graph.validate_nodes_and_infer_types()
    openvino.save_model(graph, str(directory / GRAPH), compress_to_fp16=False)


def quantise(exact: Path, directory: Path, *, samples: Sequence[str], pad_id: int) -> None:
    """Make an int8 graph of the exact one: weights, and activations in ranges seen on the samples.

    Raises:
        Exception: of any kind: NNCF cannot quantise this graph.

    """
    openvino = _openvino()
    with _without_telemetry():
        import nncf  # noqa: PLC0415 (two seconds of import, for an export)

    nncf.set_log_level("ERROR")
    rows = TokenIds(exact / TOKENIZER).of(list(samples))

    def as_inputs(row: list[int]) -> dict[int, Any]:
        return dict(enumerate(_padded([row], pad_id)))

    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):  # its progress bars
        graph = nncf.quantize(
            _core().read_model(str(exact / GRAPH)),
            nncf.Dataset(rows, as_inputs),
            model_type=nncf.ModelType.TRANSFORMER,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(rows),
        )
    openvino.save_model(graph, str(directory / GRAPH), compress_to_fp16=False)


def _padded(rows: list[list[int]], pad_id: int) -> tuple[Any, Any]:
    shape = (len(rows), max(map(len, rows)))
    ids, mask = np.full(shape, pad_id, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = row
        mask[n, : len(row)] = 1
    return ids, mask


def _core() -> Any:
    """Return the process's only core, which is never let go before the process ends.

    Each core gives the thread that first compiles with it another stack for its signal handlers, takes that
    memory back in the end, and then sets the stack that it found. Were there two that overlap, the second to
    go would set the memory of the first, and the next signal would kill the process.
    """
    global _only_core  # noqa: PLW0603 (a process has one)
    with _core_lock:
        if _only_core is None:
            _only_core = _openvino().Core()
        return _only_core


def _openvino() -> Any:
    with _without_telemetry():
        import openvino  # noqa: PLC0415 (a quarter of a second, paid only where texts are embedded)

    return openvino


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """Let an import find no telemetry: what asks for it then takes a stub of its own that sends nothing."""
    if _TELEMETRY in sys.modules:  # the program around us has it, and decides for itself
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]
