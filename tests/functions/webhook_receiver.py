"""A webhook as its operator writes it: the standard library and what docs/functions.md says."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.functions.https_server import NAME, Authority

PAGE = Path(__file__).parents[2] / "docs" / "functions.md"

IsGenuine = Callable[[bytes, Mapping[str, str], bytes], bool]


@dataclass
class Receiver:
    """A webhook at a port; `seen` are headers and bodies of the requests it got."""

    port: int
    is_genuine: IsGenuine
    seen: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


def documented() -> IsGenuine:
    """What the page tells receivers to run."""
    [code] = re.findall(r"```python\n([^`]*?def is_genuine[^`]*?)```", PAGE.read_text())
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)  # noqa: S102 - the page's own example
    is_genuine: IsGenuine = names["is_genuine"]
    return is_genuine


@contextlib.contextmanager
def receiving(authority: Authority, secret: bytes, name: str = NAME) -> Iterator[Receiver]:
    """An HTTPS server that allows what is genuine, with an override, unless the serial is `no`."""
    receiver = Receiver(0, documented())

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.seen.append((dict(self.headers), body))
            if receiver.is_genuine(secret, dict(self.headers), body):
                allowed = json.loads(body)["parameters"]["SerialNumber"] != "no"
                overrides = {"DeviceLocation": "Seattle"}
                answer = {"allowProvisioning": allowed, "parameterOverrides": overrides}
                self.respond(200, json.dumps(answer).encode())
            else:
                self.respond(401, b"who are you?")

        def respond(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority.issue(name))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
