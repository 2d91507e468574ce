"""The catalogue behaves like a plain mapping of id to group, whatever is done to it and in any order."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from memory.catalogue import Catalogue, Group

ids = st.integers(0, 40) | st.sampled_from([2**31, 2**40, 2**63 - 1])
namespaces = st.sampled_from(["default", "a", "名前"])
types = st.sampled_from(["task", "semantic", "episodic"])
groups = st.tuples(namespaces, types)


class CatalogueMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.catalogue = Catalogue()
        self.model: dict[int, Group] = {}
        self.folder = tempfile.TemporaryDirectory()

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(entries=st.dictionaries(ids, groups, max_size=12))
    def put(self, entries: dict[int, Group]) -> None:
        self._put(entries)

    @rule(n=st.integers(1, 200), group=groups)
    def put_new_ones_behind_the_small(self, n: int, group: Group) -> None:
        start = max([i for i in self.model if i < 2**31], default=-1) + 1
        self._put(dict.fromkeys(range(start, start + n), group))

    @rule(gone=st.lists(ids, max_size=12))
    def drop(self, gone: list[int]) -> None:
        self._drop(gone)

    @rule(share=st.floats(0, 1), seed=st.integers(0, 9))
    def drop_a_share(self, share: float, seed: int) -> None:
        self._drop(random.Random(seed).sample(sorted(self.model), int(share * len(self.model))))

    def _drop(self, gone: list[int]) -> None:
        self.catalogue.drop(gone)
        for memory_id in gone:
            self.model.pop(memory_id, None)

    @rule()
    def save_and_load(self) -> None:
        path = Path(self.folder.name) / "catalogue.npz"
        self.catalogue = Catalogue.load(path, self.catalogue.save(path))

    @rule(namespace=namespaces | st.just("unknown"), wanted=st.none() | st.sets(types | st.just("unknown")))
    def select(self, namespace: str, wanted: set[str] | None) -> None:
        expected = [
            i
            for i, (ns, kind) in self.model.items()
            if ns == namespace and (wanted is None or kind in wanted)
        ]
        found = self.catalogue.select(namespace=namespace, memory_types=wanted)
        assert found.dtype == np.int64
        assert found.tolist() == sorted(expected)
        chosen = self.catalogue.choose(namespace=namespace, memory_types=wanted)
        assert (len(self.model) if chosen is None else len(chosen)) == len(expected)

    @rule(asked=st.lists(ids, max_size=12))
    def look_up(self, asked: list[int]) -> None:
        present = self.catalogue.present(asked)
        assert present.tolist() == sorted(set(asked) & set(self.model))
        assert self.catalogue.groups_of(present) == [self.model[i] for i in present.tolist()]

    @invariant()
    def it_lists_every_id_once_ascending(self) -> None:
        assert self.catalogue.ids().tolist() == sorted(self.model)
        assert len(self.catalogue) == len(self.model)

    def _put(self, entries: dict[int, Group]) -> None:
        self.catalogue.put(list(entries), list(entries.values()))
        self.model.update(entries)


def test_the_catalogue_equals_a_plain_mapping_after_anything() -> None:
    run_state_machine_as_test(
        CatalogueMachine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )
