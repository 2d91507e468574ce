"""The one door to tokenizers: texts in, word pieces out, without torch."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from memory.engines.windows import windows

if TYPE_CHECKING:
    from pathlib import Path


class TokenIds:
    """A tokenizer with its own truncation, read from a file. Any number of threads may use it."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self.max_length = int((self._tokenizer.truncation or {})["max_length"])
        """The most ids of a text, special ones included."""
        self._room = self.max_length - self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def of(self, texts: list[str]) -> list[list[int]]:
        """Return the ids of each text, special ones included, at most as many as the model reads."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]

    @cached_property
    def _whole(self) -> Tokenizer:
        """One that cuts nothing off: 10 MB, made for the first long text. Its file may be gone by then."""
        whole = Tokenizer.from_str(self._tokenizer.to_str())
        whole.no_truncation()
        return whole

    def split(self, text: str) -> list[str]:
        """Cut a text into windows of at most so many ids."""
        encoding = self._whole.encode(text, add_special_tokens=False)
        return windows(text, encoding.offsets, room=self._room)


def write_tokenizer(serialized: str, path: Path, *, max_length: int) -> None:
    """Write a tokenizer that cuts after `max_length` ids, special ones included, and never pads.

    Args:
        serialized: as JSON, with padding and truncation of any kind.
        path: of the new file.
        max_length: at least one more than the special ones.

    """
    tokenizer = Tokenizer.from_str(serialized)
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length, strategy="longest_first")
    tokenizer.save(str(path), pretty=False)
