"""What the HTTP API adds to each call, what another's memory can be told by, and 64 clients at once.

Overhead: the same call by `PipelineClient` and by `HttpClient` through `memory api`, in turn, one behind the
other; what was enqueued is searchable before the next one is.

Secrecy: how long a 404 takes for an id of another namespace, and for one that nobody has.

Load: clients of their own threads and connections, each adding a memory or searching, in turn by chance, as
fast as it is answered; first straight to the pipeline, then over HTTP. Each query is asked once. Beside them
one more client asks the query task straight away, again and again. No answer may be 5xx, and every memory
that was accepted must be there afterwards. The clients' own work is done on the same cores.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx2

from api_stub.client import MemoryClient
from benchmarks.rig.command import Report, command, execute, positive
from benchmarks.rig.figures import in_ms, quantile, rounded, timed
from benchmarks.rig.http_api import Served, new_key, serving
from benchmarks.rig.stacks import Measured, running_measured
from benchmarks.rig.texts import queries, sample_texts
from benchmarks.rig.waiting import say
from memory.models import Receipt

_NAMESPACE, _OTHERS = "corpus", "somebody else's"
_QUERY = "Where is the spare key?"
_NOBODYS = 2**52
_SHARE_ADDED = 1 / 3


def main() -> None:
    parser = command(__doc__)
    parser.add_argument("--memories", type=positive, default=10_000, help="that are there at first")
    parser.add_argument("--calls", type=positive, default=100, help="of one round, of each kind")
    parser.add_argument("--clients", type=positive, default=64, help="at once")
    parser.add_argument("--seconds", type=positive, default=60, help="of load, each way")
    parser.add_argument("--sqlite", action="store_true", help="SQLite instead of Postgres")
    arguments = parser.parse_args()
    execute("api", arguments, lambda report: _measure(report, arguments))


def _measure(report: Report, arguments: argparse.Namespace) -> None:
    with (
        running_measured("real", sqlite=arguments.sqlite) as measured,
        serving(measured) as served,
    ):
        say(f"embedding {arguments.memories:,} memories")
        handed = measured.client.enqueue_many(
            {"content": text, "namespace": _NAMESPACE} for text in sample_texts(arguments.memories)
        )
        measured.wait_until_searchable(n=len(handed), timeout_s=3600)
        report.figures["memories"] = arguments.memories
        report.figures["overhead"] = _overhead(measured, served, arguments)
        report.figures["404"] = _secrecy(measured, served, arguments)
        for way in ("straight", "over HTTP"):
            say(f"{arguments.clients} clients {way} for {arguments.seconds} s")
            report.figures[f"{arguments.clients} clients, {way}"] = _loaded(
                report, measured, served if way == "over HTTP" else None, arguments
            )
        memory = served.process.memory_info()
        report.figures["API process, RSS MB"] = round(memory.rss / 2**20)
        measured.require_equal(report)


def _overhead(measured: Measured, served: Served, arguments: argparse.Namespace) -> dict[str, Any]:
    memory_id = measured.client.list_memories(namespace=_NAMESPACE, limit=1)[0].id
    calls: Mapping[str, Callable[[MemoryClient], object]] = {
        "get": lambda client: client.get(memory_id),
        "enqueue": lambda client: client.enqueue("A word more", namespace="overhead"),
        "list, 100": lambda client: client.list_memories(namespace=_NAMESPACE),
        "search, a repeated query": lambda client: client.search(_QUERY, namespace=_NAMESPACE),
    }
    seconds: dict[tuple[str, str], list[float]] = {
        (name, way): [] for name in calls for way in ("straight", "HTTP")
    }
    with MemoryClient.from_url(served.url, key=served.key) as http:
        ways = {"straight": measured.client, "HTTP": http}
        for number in range(arguments.rounds):
            for name, call in calls.items():
                for _ in range(arguments.calls):
                    for way, client in ways.items():
                        taken_s, found = timed(lambda c=client, f=call: f(c))
                        seconds[name, way].append(taken_s)
                        if isinstance(found, Receipt):
                            measured.client.wait(found)
            say(f"round {number + 1} of {arguments.rounds}")
    figures: dict[str, Any] = {}
    for name in calls:
        straight, over_http = seconds[name, "straight"], seconds[name, "HTTP"]
        added_s = quantile(over_http, 0.5) - quantile(straight, 0.5)
        figures[name] = {
            "straight": in_ms(straight),
            "HTTP": in_ms(over_http),
            "added at p50, ms": rounded(1000 * added_s),
        }
    return figures


def _secrecy(measured: Measured, served: Served, arguments: argparse.Namespace) -> dict[str, Any]:
    key = new_key(measured, _OTHERS)
    ids = [memory.id for memory in measured.client.list_memories(namespace=_NAMESPACE, limit=1000)]
    theirs: list[float] = []
    nobodys: list[float] = []
    with _connected(served.url, key) as http:
        for n in range(arguments.rounds * arguments.calls * 4):
            for seconds, memory_id in ((theirs, ids[n % len(ids)]), (nobodys, _NOBODYS + n)):
                taken_s, answer = timed(lambda i=memory_id: http.get(f"/v1/memories/{i}"))
                assert answer.status_code == 404
                seconds.append(taken_s)
    return {"another's id": in_ms(theirs), "nobody's id": in_ms(nobodys)}


@dataclass
class _Seen:
    """What clients were answered."""

    adds: list[float] = field(default_factory=list)
    searches: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    uids: list[str] = field(default_factory=list)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def note(self, seconds: list[float], taken_s: float, status: str, *uids: str) -> None:
        with self.turn:
            seconds.append(taken_s)
            self.statuses[status] += 1
            self.uids.extend(uids)


def _loaded(
    report: Report, measured: Measured, served: Served | None, arguments: argparse.Namespace
) -> dict[str, Any]:
    seen, alone = _Seen(), _Seen()
    namespace = f"load {'HTTP' if served else 'straight'}"
    with ExitStack() as closing, ThreadPoolExecutor(arguments.clients + 1) as clients:
        straight = _straight(measured.client, namespace)
        calls = [
            _over_http(closing.enter_context(_connected(served.url, served.key)), namespace)
            if served
            else straight
            for _ in range(arguments.clients)
        ]
        until = time.monotonic() + arguments.seconds
        work = [
            clients.submit(_client, seen, until, random.Random(number), _texts(number), *both)
            for number, both in enumerate(calls)
        ]
        texts = _texts(arguments.clients)
        work.append(clients.submit(_client, alone, until, None, texts, straight[1], straight[1]))
        for one in work:
            one.result()
    bad = {status: n for status, n in seen.statuses.items() if status not in {"200", "202", "done"}}
    report.require(not bad, f"{namespace}: answers that are none: {bad}")
    measured.wait_until_searchable(n=len(seen.uids), timeout_s=600)
    lost = len(set(seen.uids)) - measured.client.counts(namespace=namespace).searchable
    report.require(lost == 0, f"{namespace}: {lost} accepted memories are not there")
    n_calls = len(seen.adds) + len(seen.searches)
    return {
        "calls/s": rounded(n_calls / arguments.seconds),
        "add": in_ms(seen.adds),
        "search": in_ms(seen.searches),
        "the query task, asked straight beside them": in_ms(alone.searches),
        "answers": dict(seen.statuses),
        "accepted memories that are not there": lost,
    }


_Call = Callable[[str], tuple[str, list[str]]]


def _client(
    seen: _Seen,
    until: float,
    chance: random.Random | None,
    texts: Iterator[str],
    add: _Call,
    search: _Call,
) -> None:
    while time.monotonic() < until:
        is_added = chance is not None and chance.random() < _SHARE_ADDED
        text = next(texts)
        taken_s, (status, uids) = timed(lambda t=text, f=add if is_added else search: f(t))
        seen.note(seen.adds if is_added else seen.searches, taken_s, status, *uids)


def _straight(client: MemoryClient, namespace: str) -> tuple[_Call, _Call]:
    def add(text: str) -> tuple[str, list[str]]:
        return "done", [client.enqueue(text, namespace=namespace).uid]

    def search(text: str) -> tuple[str, list[str]]:
        client.search(text, namespace=_NAMESPACE, limit=10)
        return "done", []

    return add, search


def _over_http(http: httpx2.Client, namespace: str) -> tuple[_Call, _Call]:
    def add(text: str) -> tuple[str, list[str]]:
        answer = http.post("/v1/memories", json={"namespace": namespace, "memories": [{"content": text}]})
        found = answer.json()["memories"] if answer.status_code == 202 else []
        return str(answer.status_code), [one["uid"] for one in found]

    def search(text: str) -> tuple[str, list[str]]:
        body = {"namespace": _NAMESPACE, "query": text, "limit": 10}
        return str(http.post("/v1/search", json=body).status_code), []

    return add, search


def _connected(url: str, key: str) -> httpx2.Client:
    return httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def _texts(client: int) -> Iterator[str]:
    """Yield texts that nobody else has: sentences that are in no memory, with a number behind."""
    sentences = queries(500)
    number = client * 1_000_000
    while True:
        yield f"{sentences[number % len(sentences)]} ({number})"
        number += 1


if __name__ == "__main__":
    main()
