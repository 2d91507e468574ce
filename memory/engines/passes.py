"""Takes texts through an engine: cut into word pieces once, sorted by length, in passes of equal cost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from memory.errors import ServerAway
from memory.token_batches import token_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from memory.engines.engine import Engine, Vectors


@dataclass(frozen=True, slots=True)
class _Cut:
    """Some texts, cut into word pieces."""

    lengths: list[int]
    rows: Sequence[Any]
    counts: list[int]  # how many rows each text has become


class Passes:
    """The passes of one engine, for any number of threads, which take turns pass by pass.

    Args:
        engine: runs them.
        batch_tokens: word pieces of one pass, padding included; 0: what is fastest for this engine.

    """

    def __init__(self, engine: Engine, *, batch_tokens: int = 0) -> None:
        self._engine = engine
        self._batch_tokens = batch_tokens
        self._tokenizing = threading.Lock()  # some tokenizers must not be used by two threads at once
        self._running = threading.Lock()
        self._telling = threading.local()

    def vectors(self, texts: list[str], *, max_rows: int, on_pass: Callable[[], None]) -> Vectors:
        """Return float32 (len(texts), d), in input order, rows of any length: of the first window of each.

        `on_pass` is called after each pass, while nothing is held: it may itself embed, and is then not
        called for the passes within.

        Raises:
            ServerAway: the GPU has no memory left, not even for one text.

        """
        return self._run(texts, max_rows=max_rows, on_pass=on_pass, whole=False)[0]

    def windows(
        self, texts: list[str], *, max_rows: int, on_pass: Callable[[], None]
    ) -> tuple[Vectors, list[int]]:
        """Return float32 (w, d), in input order, and how many of these rows each text has: its windows.

        Otherwise as `vectors`.
        """
        return self._run(texts, max_rows=max_rows, on_pass=on_pass, whole=True)

    def _run(
        self, texts: list[str], *, max_rows: int, on_pass: Callable[[], None], whole: bool
    ) -> tuple[Vectors, list[int]]:
        found, counts = [np.empty((0, self._engine.dim), dtype=np.float32)], list[int]()
        max_tokens = self._batch_tokens or self._engine.batch_tokens
        for cut in self._cut(texts, whole=whole):
            vectors = np.empty((len(cut.rows), self._engine.dim), dtype=np.float32)
            for places in token_batches(cut.lengths, max_tokens=max_tokens, max_rows=max_rows):
                vectors[places] = self._pass([cut.rows[place] for place in places], on_pass)
            found.append(vectors)
            counts.extend(cut.counts)
        return np.concatenate(found), counts

    def _cut(self, texts: list[str], *, whole: bool) -> Iterator[_Cut]:
        """Yield chunk after chunk; the next one is cut while the passes of this one run."""
        chunk = self._engine.chunk
        if len(texts) <= chunk:
            yield self._cut_chunk(texts, whole=whole)
            return
        starts = range(0, len(texts), chunk)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenizer") as executor:
            next_one = executor.submit(self._cut_chunk, texts[:chunk], whole=whole)
            for following in (*starts[1:], None):
                cut = next_one.result()
                if following is not None:
                    some = texts[following : following + chunk]
                    next_one = executor.submit(self._cut_chunk, some, whole=whole)
                yield cut

    def _cut_chunk(self, texts: list[str], *, whole: bool) -> _Cut:
        with self._tokenizing:
            tokenized = self._engine.tokenize(texts)
            if not whole or not tokenized.full:
                return _Cut(tokenized.lengths, tokenized.rows, [1] * len(texts))
            windows = {place: self._engine.split(texts[place]) for place in tokenized.full}
            of_long = self._engine.tokenize([window for some in windows.values() for window in some])
        lengths, rows, counts = list[int](), list[Any](), list[int]()
        begin = 0
        for place in range(len(texts)):
            n = len(windows.get(place, ()))
            lengths.extend(of_long.lengths[begin : begin + n] if n else [tokenized.lengths[place]])
            rows.extend(of_long.rows[begin : begin + n] if n else [tokenized.rows[place]])
            counts.append(n or 1)
            begin += n
        return _Cut(lengths, rows, counts)

    def _pass(self, rows: list[Any], on_pass: Callable[[], None]) -> Vectors:
        """Pass these through the model together; in halves where the GPU has too little memory for that."""
        try:
            with self._running:
                vectors = self._engine.run(rows)
        except Exception as error:
            if not self._engine.is_out_of_memory(error):
                raise
            if len(rows) == 1:
                message = f"the GPU has no memory left for one text: {error}"
                raise ServerAway(message) from error
        else:
            self._tell(on_pass)
            return vectors
        self._engine.free_memory()  # here, where the failed pass's tensors are no longer held by its error
        middle = len(rows) // 2
        return np.concatenate([self._pass(rows[:middle], on_pass), self._pass(rows[middle:], on_pass)])

    def _tell(self, on_pass: Callable[[], None]) -> None:
        if getattr(self._telling, "now", False):
            return
        self._telling.now = True
        try:
            on_pass()
        finally:
            self._telling.now = False
