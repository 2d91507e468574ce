"""The vectors once more on a GPU."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

import faiss

from memory.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from memory.faiss_forms.form import Ids, Vectors

    Upload = Callable[[faiss.Index], faiss.Index]


class GpuCopy:
    """The vectors once more on a GPU, brought up to date by the first search after a change.

    A GPU's memory for work in progress serves one search at a time, so searches wait for each other.
    """

    def __init__(self, upload: Upload) -> None:
        self._upload = upload
        self._turn = threading.Lock()
        self._copy: faiss.Index | None = None  # the first `ntotal` vectors of the original, in its order

    def drop(self) -> None:
        """Forget the copy: vectors of the original are about to move."""
        with self._turn:
            self._copy = None

    def search(self, original: faiss.Index, row: Vectors, *, k: int) -> tuple[Ids, Vectors]:
        """Return the places in the original, and the scores, of the `k` nearest."""
        with self._turn:
            scores, places = self._fresh(original).search(row, k)
        return places[0], scores[0]

    def _fresh(self, original: faiss.Index) -> faiss.Index:
        copy, self._copy = self._copy, None  # one that fails halfway is made anew
        if copy is None:
            copy = self._upload(original)
        elif missing := original.ntotal - copy.ntotal:
            copy.add(original.reconstruct_n(copy.ntotal, missing))
        self._copy = copy
        return copy


def upload_to_first_gpu() -> Upload:
    """Return what copies an index to the first CUDA device.

    Raises:
        SettingsError: FAISS has no GPU support or finds no GPU; says what is missing.

    """
    if not hasattr(faiss, "StandardGpuResources"):
        message = "USE_GPU = True: must be False with faiss-cpu; for a GPU install faiss-gpu in its place"
        raise SettingsError(message)
    if not faiss.get_num_gpus():
        message = "USE_GPU = True: must be False here, faiss finds no CUDA device"
        raise SettingsError(message)
    return partial(faiss.index_cpu_to_gpu, faiss.StandardGpuResources(), 0)
