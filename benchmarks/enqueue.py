"""How fast memories are accepted: in bulk, and one by one. The baseline is bare XADD of the same bytes.

The stack has a model that costs nothing. In bulk, the embed workers first stand still, as they do beside a
producer on another machine, then they work beside it. The baseline is pipelined by 1,000, one by one it is a
call each; it validates nothing and encodes nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import redis

from benchmarks.rig.command import Report, command, execute, positive
from benchmarks.rig.figures import in_ms, medians, timed
from benchmarks.rig.processes import processes
from benchmarks.rig.stacks import Measured, paused, running_measured
from benchmarks.rig.texts import sample_texts
from benchmarks.rig.waiting import say
from memory.messages import from_mapping, to_envelope

_BARE = "benchmark:bare"
_PIPELINED = 1000
_LONGEST_S = 900
_PAUSE_S = 0.02  # long enough that the last nudge has arrived


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--memories", type=positive, default=50_000, help="of one bulk")
    parser.add_argument("--singles", type=positive, default=200, help="of one round, one by one")
    arguments = parser.parse_args()
    execute("enqueue", arguments, lambda report: _measure(report, arguments))


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    texts = sample_texts(arguments.memories)
    singles: dict[str, list[float]] = {"paused": [], "at once": [], "bare": []}
    with running_measured("null") as measured, measured.stack.redis("ingest") as server:
        measured.client.wait(measured.client.enqueue_many(texts[:1000]), timeout_s=120)
        rounds = []
        for number in range(arguments.rounds):
            rounds.append(_bulk(measured, server, texts, number))
            say(f"round {number + 1}: {rounds[-1]['bulk, memories/s']:.0f} memories/s")
            some = texts[: arguments.singles]
            singles["paused"] += _singles(measured, some, f"paused {number}", pause_s=_PAUSE_S)
            singles["at once"] += _singles(measured, some, f"at once {number}", pause_s=0)
            singles["bare"] += _bare_singles(server, _bodies(some, number))
        report.figures |= {"memories of one bulk": len(texts), **medians(rounds)}
        report.figures["enqueue(), each after a pause and with a nudge"] = in_ms(singles["paused"])
        report.figures["enqueue(), one behind the other"] = in_ms(singles["at once"])
        report.figures["baseline: bare XADD, one behind the other"] = in_ms(singles["bare"])
        measured.require_equal(report)


def _singles(measured: Measured, texts: Sequence[str], namespace: str, *, pause_s: float) -> list[float]:
    seconds = []
    for text in texts:
        seconds.append(timed(lambda t=text: measured.client.enqueue(t, namespace=namespace))[0])
        time.sleep(pause_s)
    measured.wait_until_searchable(n=len(texts), timeout_s=_LONGEST_S)
    return seconds


def _bulk(measured: Measured, server: redis.Redis, texts: Sequence[str], number: int) -> dict[str, float]:
    n, bodies = len(texts), _bodies(texts, number)
    workers = [p.pid for name, p in processes(measured.stack).items() if name.startswith("embed-")]
    with paused(*workers):
        alone_s = _enqueue_s(measured, texts, f"alone {number}")
        bare_s, _ = timed(lambda: _bare_bulk(server, bodies))
        server.delete(_BARE)
    measured.wait_until_searchable(n=n, timeout_s=_LONGEST_S)
    beside_s = _enqueue_s(measured, texts, f"beside {number}")
    measured.wait_until_searchable(n=n, timeout_s=_LONGEST_S)
    return {
        "bulk, memories/s": n / alone_s,
        "bulk beside working workers, memories/s": n / beside_s,
        "baseline: bare pipelined XADD, memories/s": n / bare_s,
        "bulk ÷ baseline": bare_s / alone_s,
    }


def _enqueue_s(measured: Measured, texts: Sequence[str], namespace: str) -> float:
    drafts = [{"content": text, "namespace": namespace} for text in texts]
    return timed(lambda: measured.client.enqueue_many(drafts))[0]


def _bodies(texts: Sequence[str], number: int) -> list[bytes]:
    return [
        to_envelope(from_mapping({"content": t, "namespace": f"bare {number}"}, max_content_bytes=2**15))
        for t in texts
    ]


def _bare_bulk(server: redis.Redis, bodies: Sequence[bytes]) -> None:
    for start in range(0, len(bodies), _PIPELINED):
        pipeline = server.pipeline(transaction=False)
        for body in bodies[start : start + _PIPELINED]:
            pipeline.xadd(_BARE, {"m": body})
        pipeline.execute()


def _bare_singles(server: redis.Redis, bodies: Sequence[bytes]) -> list[float]:
    seconds = []
    for body in bodies:
        started = time.perf_counter()
        server.xadd(_BARE, {"m": body})
        seconds.append(time.perf_counter() - started)
    server.delete(_BARE)
    return seconds


if __name__ == "__main__":
    main()
