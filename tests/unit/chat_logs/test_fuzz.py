"""A few hundred spoilt chat logs, the same each time. `benchmarks.fuzz_chat_logs` makes any number."""

from __future__ import annotations

from benchmarks.fuzz_chat_logs import run_case


def test_of_spoilt_logs_come_only_memories_and_flaws() -> None:
    problems = [problem for seed in range(300) if (problem := run_case(seed))]
    assert not problems, "\n".join(problems)[:5000]
