"""The engine that runs any model: torch, in float32 on the CPU, in half precision on a GPU."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.engines.engine import Tokenized
from memory.engines.near_exact import CHECKED_TEXTS, NEAR_EXACT, cosines, vectors_of
from memory.engines.windows import windows
from memory.errors import SettingsError

if TYPE_CHECKING:
    from memory.engine_choice import Precision
    from memory.engines.engine import Vectors
    from memory.engines.torch_model import TorchModel

_CPU_BATCH_TOKENS = 512
_GPU_BATCH_TOKENS = 262_144  # beyond it a card that is full only gets fuller
_BYTES_A_TOKEN = 128
"""Of activations, for each of a token's `hidden_size` numbers: those of one layer, and room to spare."""


class TorchEngine:
    """A model on its device. Half precision is only for the transformer: what follows computes in float32.

    Args:
        source: the loaded model, in float32; its transformer becomes `precision`.
        precision: `auto` is float32 on the CPU; on a GPU float16, or float32 if that is not near-exact.

    Raises:
        SettingsError: the precision asked for is not near-exact with this model.

    """

    family = "float32"

    def __init__(self, source: TorchModel, *, precision: Precision = "auto") -> None:
        self._model = source.model
        self._on_gpu = self._model.device.type == "cuda"
        self._max_length = source.max_length
        self._room = source.room
        self._reads_word_pieces = source.reads_word_pieces
        self.dim = source.dim
        self.digest = source.digest
        self.precision = "float32"
        wanted = ("float16" if self._on_gpu else "float32") if precision == "auto" else precision
        if wanted != "float32":
            self._halve(wanted, demanded=precision != "auto")

    @property
    def name(self) -> str:
        """Name engine, device and precision."""
        return f"torch {self._model.device.type} {self.precision}"

    @property
    def batch_tokens(self) -> int:
        """Word pieces of one pass: few stay in a core's cache; a GPU takes what half of its room holds."""
        if not self._on_gpu:
            return _CPU_BATCH_TOKENS
        import torch  # noqa: PLC0415 (loaded by now)

        free_bytes, _total = torch.cuda.mem_get_info(self._model.device)
        return max(_CPU_BATCH_TOKENS, min(_GPU_BATCH_TOKENS, free_bytes // 2 // (_BYTES_A_TOKEN * self.dim)))

    @property
    def chunk(self) -> int:
        """How many texts are tokenized together."""
        return 1024 if self._on_gpu else 2048

    @property
    def flop_per_token(self) -> int:
        """Operations of one pass for one word piece: two for each weight that is multiplied with it.

        Attention over the other tokens is left out: under 2 % at 40 tokens, 10 % at 256.
        """
        import torch  # noqa: PLC0415 (loaded by now)

        linear = (module for module in self._model[0].modules() if isinstance(module, torch.nn.Linear))
        return 2 * sum(module.weight.numel() for module in linear)

    def tokenize(self, texts: list[str]) -> Tokenized:
        """Cut texts into word pieces, or count words where the model does something else with them."""
        if not self._reads_word_pieces:
            lengths = [1 + len(text.split()) for text in texts]
            return Tokenized(
                lengths, texts, [place for place, text in enumerate(texts) if self._may_fill(text)]
            )
        encoded = self._model.tokenizer(
            texts, padding=False, truncation="longest_first", max_length=self._max_length
        )
        names = list(encoded)
        rows = [dict(zip(names, row, strict=True)) for row in zip(*encoded.values(), strict=True)]
        lengths = [len(row["input_ids"]) for row in rows]
        full = [place for place, length in enumerate(lengths) if length >= self._max_length]
        return Tokenized(lengths, rows, full)

    def split(self, text: str) -> list[str]:
        """Cut a text into windows that the model reads whole."""
        return windows(text, self._spans(text), room=self._room) if self._room else [text]

    def _may_fill(self, text: str) -> bool:
        """Whether a text may be longer than the model reads; each word piece is of one byte at least."""
        return self._room is not None and len(text.encode()) > self._room

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """Return where each word piece begins and ends."""
        tokenizer = self._model.tokenizer
        if tokenizer.is_fast:
            encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            return list(encoded["offset_mapping"])
        return [m.span() for m in re.finditer(r"\S+", text) for _ in tokenizer.tokenize(m[0])]

    def run(self, rows: list[Any]) -> Vectors:
        """Pass these through the model together. Returns float32 (len(rows), dim), of any length."""
        import torch  # noqa: PLC0415 (loaded by now)

        with torch.inference_mode():
            if self._reads_word_pieces:
                return self._forward(rows)
            found = self._model.encode(rows, batch_size=len(rows), show_progress_bar=False)
        return np.asarray(found, dtype=np.float32)

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether the GPU has no room for a pass of this size."""
        import torch  # noqa: PLC0415 (loaded by now)

        return isinstance(error, torch.cuda.OutOfMemoryError)

    def free_memory(self) -> None:
        """Give back what torch keeps of the GPU's memory: elsewhere it lies in pieces of the wrong size."""
        import torch  # noqa: PLC0415 (loaded by now)

        torch.cuda.empty_cache()

    def _forward(self, rows: list[Any]) -> Vectors:
        padded = self._model.tokenizer.pad(rows, padding=True, return_tensors="pt")
        features: dict[str, Any] = {"modality": "text"}
        for name, tensor in padded.items():
            # Copied from pinned memory, a batch does not wait for the ones still being computed.
            there = tensor.pin_memory() if self._on_gpu else tensor
            features[name] = there.to(self._model.device, non_blocking=True)
        for n, module in enumerate(self._model):
            features = module(features)
            if n == 0 and self.precision != "float32":
                features["token_embeddings"] = features["token_embeddings"].float()
        vectors: Vectors = features["sentence_embedding"].float().cpu().numpy()
        return vectors

    def _halve(self, precision: str, *, demanded: bool) -> None:
        import torch  # noqa: PLC0415 (loaded by now)

        least = -1.0
        if self._reads_word_pieces:
            exact = vectors_of(self)
            # Kept aside: converted to half and back, the weights would no longer be the same.
            weights = {key: tensor.clone() for key, tensor in self._model[0].state_dict().items()}
            self._model[0].to(getattr(torch, precision))
            self.precision = precision
            least = float(cosines(vectors_of(self), exact).min())
            if least >= NEAR_EXACT:
                return
            self._model[0].float().load_state_dict(weights)
            self.precision = "float32"
        if demanded:
            allowed = f"must be auto or float32 for this model: cosines down to {least:.5f}"
            message = f"EMBEDDING_PRECISION = {precision!r}: {allowed}, of at least {NEAR_EXACT}"
            raise SettingsError(f"{message} on {len(CHECKED_TEXTS)} texts")
