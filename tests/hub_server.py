"""An imitation of the Hugging Face hub on this machine: what its file system client asks of a data set's repository."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789" * 4


@dataclass
class Hub:
    """A running hub.

    Attributes:
        endpoint: its address.
        ranges: for each file the parts of it that were asked for, first and last byte.
    """

    endpoint: str
    ranges: list[tuple[str, int, int]] = field(default_factory=list)


@contextmanager
def hub_of(folder: Path, name: str) -> Iterator[Hub]:
    """Serve a folder's files as the data set ``name``, such as "owner/set"."""
    hub = Hub("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if found := re.fullmatch(rf"/datasets/{name}/resolve/[^/]+/(.+)", path):
                self.give(found[1])
            elif found := re.fullmatch(rf"/api/datasets/{name}/tree/[^/]+/?(.*)", path):
                self.answer(tree(folder, found[1]))
            elif re.fullmatch(rf"/api/datasets/{name}(/revision/.+)?", path):
                self.answer({"_id": "0", "id": name, "sha": COMMIT, "private": False, "siblings": []})
            else:
                self.answer({"error": "Repository not found"}, 404)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            paths = asked["paths"] if isinstance(asked["paths"], list) else [asked["paths"]]
            self.answer([entry(folder, folder / path) for path in paths if (folder / path).exists()])

        def give(self, file: str) -> None:
            """A file, or the part of it that is asked for."""
            content = (folder / file).read_bytes()
            first, last = 0, len(content) - 1
            if found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                first, last = int(found[1]), min(last, int(found[2] or last))
                hub.ranges.append((file, first, last))
            part = content[first : last + 1]
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.finish_with(part, "application/octet-stream")

        def answer(self, found: Any, status: int = 200) -> None:
            self.send_response(status)
            self.finish_with(json.dumps(found).encode(), "application/json")

        def finish_with(self, body: bytes, kind: str) -> None:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", '"' + hashlib.sha256(body).hexdigest() + '"')
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def tree(folder: Path, below: str) -> list[dict[str, Any]]:
    """All that lies below a part of the repository."""
    return [entry(folder, path) for path in sorted((folder / below).rglob("*"))]


def entry(folder: Path, path: Path) -> dict[str, Any]:
    """What the hub says of a file or directory."""
    name = path.relative_to(folder).as_posix()
    oid = hashlib.sha1(name.encode()).hexdigest()
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": oid}
    return {"type": "file", "path": name, "oid": oid, "size": path.stat().st_size}
