"""What an engine is: it cuts texts into word pieces, and passes some of them through the model together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Tokenized:
    """Texts that are ready for a pass, in input order."""

    lengths: list[int]
    """Word pieces of each text, special ones included, as far as the model reads."""
    rows: Sequence[Any]
    """Each text as its engine wants it."""
    full: Sequence[int]
    """Places of the texts that fill all that the model reads, and may go on beyond that."""


class Engine(Protocol):
    """One model, loaded. `tokenize` and `run` may overlap; neither is called by two threads at once."""

    @property
    def name(self) -> str:
        """Name engine and precision for people: `openvino bfloat16`."""

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""

    @property
    def digest(self) -> str:
        """Hash the weights and the way a vector is made of them: 12 hex digits."""

    @property
    def family(self) -> str:
        """Name the engines whose vectors may be mixed: `float32` for all that are near-exact, or `int8`."""

    @property
    def batch_tokens(self) -> int:
        """Word pieces of one pass, padding included, at which it is fastest here."""

    @property
    def chunk(self) -> int:
        """How many texts are tokenized together, while those before them are passed."""

    def tokenize(self, texts: list[str]) -> Tokenized:
        """Cut texts into word pieces. At least one text."""

    def split(self, text: str) -> list[str]:
        """Cut a text into windows that the model reads whole, as `memory.engines.windows` does."""

    def run(self, rows: list[Any]) -> Vectors:
        """Pass these through the model together. Returns float32 (len(rows), dim), of any length."""

    def is_out_of_memory(self, error: Exception) -> bool:
        """Return whether a smaller pass could do what just failed."""

    def free_memory(self) -> None:
        """Give back what the failed pass left."""
