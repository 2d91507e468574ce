"""Passes through the model: every text in exactly one, none dearer than the bound."""

from __future__ import annotations

from itertools import chain, pairwise

from hypothesis import given
from hypothesis import strategies as st

from memory.token_batches import token_batches

lengths_of = st.lists(st.integers(0, 600), max_size=60)
tokens = st.integers(1, 2048)
rows = st.integers(1, 20)


@given(lengths=lengths_of, max_tokens=tokens, max_rows=rows)
def test_every_text_is_in_exactly_one_pass(lengths: list[int], max_tokens: int, max_rows: int) -> None:
    batches = list(token_batches(lengths, max_tokens=max_tokens, max_rows=max_rows))
    assert sorted(chain.from_iterable(batches)) == list(range(len(lengths)))
    assert all(batches)


@given(lengths=lengths_of, max_tokens=tokens, max_rows=rows)
def test_no_pass_costs_more_than_allowed_but_a_single_long_text(
    lengths: list[int], max_tokens: int, max_rows: int
) -> None:
    for batch in token_batches(lengths, max_tokens=max_tokens, max_rows=max_rows):
        assert len(batch) <= max_rows
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= max_tokens


@given(lengths=lengths_of, max_tokens=tokens, max_rows=rows)
def test_the_longest_texts_come_first(lengths: list[int], max_tokens: int, max_rows: int) -> None:
    order = [lengths[i] for i in chain(*token_batches(lengths, max_tokens=max_tokens, max_rows=max_rows))]
    assert order == sorted(lengths, reverse=True)


@given(lengths=lengths_of, max_tokens=tokens, max_rows=rows)
def test_a_pass_ends_only_where_one_more_text_would_be_too_much(
    lengths: list[int], max_tokens: int, max_rows: int
) -> None:
    for batch, _ in pairwise(token_batches(lengths, max_tokens=max_tokens, max_rows=max_rows)):
        longest = max(lengths[i] for i in batch)
        assert len(batch) == max_rows or (len(batch) + 1) * longest > max_tokens
