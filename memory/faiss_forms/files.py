"""How an index is written and read: whole, or not at all."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import faiss
import numpy as np

from memory.errors import IndexRefused
from memory.faiss_forms.inverted import ids_in, map_ids

if TYPE_CHECKING:
    from pathlib import Path

# No vector file of ours comes near it; FAISS's own limit of 1 TiB would let a torn header allocate that.
_MAX_FILE_BYTES = 64 * 2**30


def write(index: faiss.Index, target: Path) -> None:
    """Write an index to a file and flush it to the disk.

    Raises:
        OSError: the disk did not take it. What was at `target` is still there, and nothing else is.

    """
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(6)}")
    try:
        with unfinished.open("wb") as file:
            # Given a path, FAISS does not notice that the disk is full at the last of its writes.
            writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
            faiss.write_index(index, writer)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read(path: Path) -> faiss.IndexIDMap2 | faiss.IndexIVFScalarQuantizer:
    """Read what `write` wrote of a form's index.

    Raises:
        IndexRefused: there is no such file, FAISS cannot read it, or it holds another kind of index.

    """
    try:
        path.open("rb").close()  # says in plain words why it cannot
        faiss.set_deserialization_vector_byte_limit(_MAX_FILE_BYTES)
        loaded = faiss.read_index(str(path))
        if _is_exact(loaded) or _is_inverted(loaded):
            return loaded  # type: ignore[return-value]
    except (OSError, RuntimeError) as error:
        message = f"{path}: {error}"
        raise IndexRefused(message) from error
    message = f"{path}: holds a {type(loaded).__name__} that is none of ours"
    raise IndexRefused(message)


def _is_exact(loaded: faiss.Index) -> bool:
    if not isinstance(loaded, faiss.IndexIDMap2):
        return False
    loaded.check_consistency()  # as many ids as vectors, and none twice
    inner = faiss.downcast_index(loaded.index)
    return isinstance(inner, faiss.IndexFlat) and inner.metric_type == faiss.METRIC_INNER_PRODUCT


def _is_inverted(loaded: faiss.Index) -> bool:
    if not isinstance(loaded, faiss.IndexIVFScalarQuantizer):
        return False
    centres = faiss.downcast_index(loaded.quantizer)
    of_ours = (
        isinstance(centres, faiss.IndexFlat)
        and centres.metric_type == loaded.metric_type == faiss.METRIC_INNER_PRODUCT
        and centres.ntotal == loaded.nlist
        and loaded.sq.qtype == faiss.ScalarQuantizer.QT_8bit
        and loaded.by_residual
        and loaded.is_trained
    )
    if of_ours:
        ids = ids_in(loaded)
        if len(ids) != loaded.ntotal or np.any(ids[1:] == ids[:-1]):
            message = "an id twice, or not as many as it says"
            raise RuntimeError(message)
        map_ids(loaded)  # the file's own map might say anything else
    return of_ours
