"""The catalogue's file is believed only where its parts fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from memory.catalogue import Catalogue
from memory.errors import IndexRefused

GROUPS = [("default", "task"), ("default", "semantic")]


@pytest.mark.parametrize(
    "columns",
    [
        {"ids": [1, 2], "codes": [0]},
        {"ids": [1], "codes": [0, 1]},
        {"ids": [2, 1], "codes": [0, 0]},
        {"ids": [1, 1], "codes": [0, 1]},
        {"ids": [1, 2], "codes": [0, 2]},
        {"ids": [1, 2], "codes": [0, -1]},
        {"ids": [1, 2]},
        {"codes": [0, 1]},
    ],
    ids=str,
)
def test_columns_that_do_not_fit_each_other_are_refused(tmp_path: Path, columns: dict[str, Any]) -> None:
    path = tmp_path / "catalogue.npz"
    np.savez(path, **{name: np.array(values) for name, values in columns.items()})
    with pytest.raises(IndexRefused, match=r"catalogue\.npz: "):
        Catalogue.load(path, GROUPS)


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexRefused, match=r"catalogue\.npz"):
        Catalogue.load(tmp_path / "catalogue.npz", GROUPS)


def test_a_file_that_holds_python_objects_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.npz"
    np.savez(path, ids=np.array([{"an": "object"}]), codes=np.array([0]))
    with pytest.raises(IndexRefused, match="allow_pickle"):
        Catalogue.load(path, GROUPS)


def test_putting_a_known_id_changes_its_group() -> None:
    catalogue = Catalogue()
    catalogue.put([1, 2], [GROUPS[0], GROUPS[0]])
    catalogue.put([1], [GROUPS[1]])
    assert catalogue.select(namespace="default", memory_types=["semantic"]).tolist() == [1]
    assert catalogue.select(namespace="default", memory_types=None).tolist() == [1, 2]


def test_ids_given_in_any_order_keep_their_groups() -> None:
    catalogue = Catalogue()
    catalogue.put([9, 3], [GROUPS[0], GROUPS[1]])
    assert catalogue.select(namespace="default", memory_types=["task"]).tolist() == [9]
