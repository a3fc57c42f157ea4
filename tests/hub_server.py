"""An imitation of the Hugging Face hub on this machine: what its client asks of data sets and models."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from base64 import b64decode
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
        uploaded: the files that were uploaded to the model, by their names.
        private: whether the model's repository is a private one; None where there is none yet.
    """

    endpoint: str
    ranges: list[tuple[str, int, int]] = field(default_factory=list)
    uploaded: dict[str, bytes] = field(default_factory=dict)
    private: bool | None = None


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

    with serving(Handler, hub):
        yield hub


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], hub: Hub) -> Iterator[None]:
    """Answer requests within the block, at an address of the hub's own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
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


@contextmanager
def model_hub(name: str, token: str = "") -> Iterator[Hub]:
    """Serve a model's repository, which is empty at first, and keep what is uploaded; others are not there.

    Args:
        name: such as "owner/net"; it has the revision "main" and the commit ``COMMIT``.
        token: that may write.
    """
    hub = Hub("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if found := re.fullmatch(rf"/{name}/resolve/([^/]+)/(.+)", path):
                if found[1] not in ("main", COMMIT):
                    self.answer(404, {}, "RevisionNotFound")
                elif found[2] not in hub.uploaded:
                    self.answer(404, {}, "EntryNotFound")
                else:
                    self.answer(200, hub.uploaded[found[2]])
            elif re.fullmatch(rf"/api/models/{name}(/revision/main)?", path):
                self.answer(200, {"_id": "0", "id": name, "sha": COMMIT, "private": bool(hub.private), "siblings": []})
            elif path == f"/api/models/{name}/tree/main":
                sizes = {file: len(content) for file, content in hub.uploaded.items()}
                self.answer(200, [{"type": "file", "path": file, "oid": "0", "size": n} for file, n in sizes.items()])
            else:
                self.answer(200, {}) if path == "/" else self.answer(404, {}, "RepoNotFound")

        do_HEAD = do_GET

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != f"Bearer {token}":
                self.answer(401, {"error": "Invalid credentials"})
            elif self.path == "/api/repos/create":
                there = hub.private is not None
                if not there:
                    asked = json.loads(body)
                    hub.private = asked.get("visibility") == "private" or bool(asked.get("private"))
                self.answer(409 if there else 200, {"url": f"{hub.endpoint}/{name}", "name": name, "id": "0"})
            elif self.path == f"/api/models/{name}/preupload/main":
                files = json.loads(body)["files"]
                modes = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in files]
                self.answer(200, {"files": modes})
            elif self.path == f"/api/models/{name}/commit/main":
                lines = [json.loads(line) for line in body.splitlines()]
                for each in (line["value"] for line in lines if line["key"] == "deletedFile"):
                    del hub.uploaded[each["path"]]
                files = [line["value"] for line in lines if line["key"] == "file"]
                hub.uploaded |= {each["path"]: b64decode(each["content"]) for each in files}
                found = {"commitOid": COMMIT, "commitUrl": f"{hub.endpoint}/{name}/commit/{COMMIT}"}
                self.answer(200, {"success": True, **found, "hookOutput": ""})
            elif self.path == "/api/validate-yaml":
                self.answer(200, {"errors": [], "warnings": []})
            else:
                self.answer(404, {"error": "not found"}, "RepoNotFound")

        def answer(self, status: int, found: Any, code: str = "") -> None:
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "X-Repo-Commit": COMMIT}
            headers |= {"ETag": '"' + hashlib.sha256(body).hexdigest() + '"'}
            headers |= {"X-Error-Code": code, "X-Error-Message": code} if code else {}
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with serving(Handler, hub):
        yield hub
