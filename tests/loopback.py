"""A web service on loopback, for tests: real sockets, a log of requests, and faults on demand.

A service listens at several ports (its hosts) and is a class of `Handler` with routes. Faults are injected by
request: a status, garbage, or a connection that ends in the middle.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Request:
    """One request as it was answered. status 0: the connection was ended instead; host: number of the port."""

    method: str
    path: str
    status: int
    authorized: bool
    host: int
    body: bytes = field(repr=False, default=b"")


@dataclass
class Fault:
    """What happens to requests of `method` whose path matches, `times` times.

    Either `status` with `headers` and `body` instead of an answer, or the connection ends after `cut` bytes of the
    answer's body (of the request's body, for PUT and POST): closed, or reset, as `reset` says.
    """

    method: str
    pattern: str
    status: int = 0
    body: bytes = b""
    headers: dict = field(default_factory=dict)
    cut: int = -1
    reset: bool = True
    times: int = 1


class Refused(Exception):
    """An error that the service answers with: a status, and headers beside the message."""

    def __init__(self, status: int, message: str = "", **headers: str):
        self.status, self.message = status, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class _Ended(Exception):
    pass


class Service:
    """`with Service(handler, hosts=2) as service`; log and faults are plain lists."""

    def __init__(self, handler: type[Handler], hosts: int = 1):
        self.handler, self.ports = handler, [0] * hosts
        self.log: list[Request] = []
        self.faults: list[Fault] = []
        self._lock, self._idle, self._busy = threading.Lock(), threading.Condition(), 0
        self._servers: list[_Server] = []

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        """Listens; after a stop, at the same ports."""
        for host, port in enumerate(self.ports):
            server = _Server(("127.0.0.1", port), type("Handler", (self.handler,), {"service": self, "host": host}))
            self.ports[host] = server.server_address[1]
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            self._servers.append(server)

    def stop(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
            server.hang_up()
        self._servers.clear()

    def address(self, host: int = 0) -> str:
        return f"http://127.0.0.1:{self.ports[host]}"

    def fault(self, method: str, pattern: str, **how) -> None:
        self.faults.append(Fault(method, pattern, **how))

    def fresh(self) -> None:
        """Forgets log and faults."""
        self.log.clear()
        self.faults.clear()

    def said(self, method: str = "", pattern: str = "") -> list[Request]:
        """Requests of the log by method and path, once all that have begun are answered."""
        with self._idle:
            assert self._idle.wait_for(lambda: not self._busy, timeout=30), "a request is still being answered"
        return [r for r in list(self.log) if r.method.startswith(method) and re.search(pattern, r.path)]

    @contextmanager
    def busy(self) -> Iterator[None]:
        with self._idle:
            self._busy += 1
        try:
            yield
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def take_fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault in self.faults:
                if fault.times and fault.method == method and re.search(fault.pattern, path):
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    """One that ends its open connections with itself."""

    daemon_threads = True

    def __init__(self, *arguments):
        self.connections: list[socket.socket] = []
        super().__init__(*arguments)

    def get_request(self):
        connection, address = super().get_request()
        self.connections.append(connection)
        return connection, address

    def hang_up(self) -> None:
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection. routes: (method, path as a regular expression, host, what to call with its groups)."""

    service: Service
    host = 0
    routes: list[tuple[str, str, int, Callable]] = []  # noqa: RUF012
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        with self.service.busy():
            self._handle(urlsplit(self.path).path)

    do_HEAD = do_POST = do_PUT = do_GET

    def _handle(self, path: str) -> None:
        fault = self.service.take_fault(self.command, path)
        self.body, self.status, self.cut = b"", 0, -1
        try:
            length = int(self.headers.get("Content-Length") or 0)
            if fault is not None and fault.cut >= 0 and self.command in ("PUT", "POST"):
                self.rfile.read(min(length, fault.cut))
                raise _Ended
            self.body = self.rfile.read(length)
            if fault is not None and fault.cut < 0:
                self.send(fault.status, fault.body, fault.headers)
            else:
                self.cut = fault.cut if fault is not None else -1
                self._route(path)
        except Refused as refused:
            self.send(refused.status, json.dumps({"error": refused.message}).encode(), refused.headers)
        except _Ended:
            self._end(fault.reset)
        except ConnectionError:
            self.close_connection = True
        authorized = "Authorization" in self.headers
        self.service.log.append(Request(self.command, path, self.status, authorized, self.host, self.body))

    def _route(self, path: str) -> None:
        asked = "GET" if self.command == "HEAD" else self.command
        for method, pattern, host, action in self.routes:
            found = re.fullmatch(pattern, path)
            if found and (method, host) == (asked, self.host):
                action(self, **{name: unquote(value) for name, value in found.groupdict().items()})
                return
        raise Refused(404, "Not Found")

    def _end(self, reset: bool) -> None:
        """Ends the connection; the other side sees it at once."""
        self.status, self.close_connection = 0, True
        self.wfile.flush()
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def send(self, status: int, body: bytes = b"", headers: dict | None = None) -> None:
        self.status = status
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if 0 <= self.cut < len(body):
            self.wfile.write(body[: self.cut])
            raise _Ended
        self.wfile.write(body)

    def answer(self, value) -> None:
        self.send(200, json.dumps(value).encode())

    def json(self) -> dict:
        return json.loads(self.body)
