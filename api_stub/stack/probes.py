"""Whether a server on 127.0.0.1 answers: asked anew each time, and given up within a second."""

from __future__ import annotations

import select
import socket
import time
from http.client import HTTPConnection, HTTPException

import psycopg
from psycopg import pq

_TIMEOUT_S = 0.9


def redis_answers(*, port: int, password: str) -> bool:
    """Say whether a PING is answered. While the server still loads its data it refuses."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S / 3) as connection:
            connection.sendall(b"AUTH %s\r\nPING\r\n" % password.encode())
            with connection.makefile("rb") as replies:
                return [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
    except OSError:
        return False


def http_answers(*, port: int, path: str) -> bool:
    """Say whether a GET is answered with 200."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def postgres_answers(conninfo: str) -> bool:
    """Say whether a connection is accepted. psycopg.connect would not give up before two seconds."""
    deadline = time.monotonic() + _TIMEOUT_S
    connection = pq.PGconn.connect_start(conninfo.encode())
    try:
        status = int(pq.PollingStatus.WRITING)
        while status in (pq.PollingStatus.READING, pq.PollingStatus.WRITING):
            if not _wait_for_turn(connection, status=status, timeout_s=deadline - time.monotonic()):
                return False
            status = connection.connect_poll()
    except (psycopg.OperationalError, OSError):
        return False
    else:
        return status == pq.PollingStatus.OK
    finally:
        connection.finish()


def _wait_for_turn(connection: pq.abc.PGconn, *, status: int, timeout_s: float) -> bool:
    sockets = [connection.socket]
    reading, writing = (sockets, []) if status == pq.PollingStatus.READING else ([], sockets)
    return any(select.select(reading, writing, [], max(0.0, timeout_s)))
