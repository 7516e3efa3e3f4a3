"""Local stand-ins for the Hub, for HF_ENDPOINT: `serve` serves folders as revisions of one dataset, and
`HubStandIn` takes pushes.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from urllib.parse import unquote, urlsplit

from hub_answers import HubHandler
from hub_repositories import StoredRepository


def commit_of(revision: str) -> str:
    """The commit that the stand-in has for a revision."""
    return hashlib.sha1(revision.encode()).hexdigest()


@contextmanager
def serve(repository: str, revisions: dict[str, Path]) -> Iterator[str]:
    """Serves the revisions of a dataset; yields the address to set HF_ENDPOINT to."""
    folders = revisions | {commit_of(revision): folder for revision, folder in revisions.items()}

    class Handler(_Handler):
        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            api, files = f"/api/datasets/{repository}", f"/datasets/{repository}/resolve/"
            if path == api:
                path = f"{api}/revision/main"
            if path.startswith(f"{api}/revision/"):
                self.describe(path.rsplit("/", 1)[-1])
            elif path.startswith(f"{api}/tree/"):
                self.list_folder(*path.removeprefix(f"{api}/tree/").partition("/")[::2])
            elif path.startswith(files):
                self.send_part(*path.removeprefix(files).partition("/")[::2])
            else:
                self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        def describe(self, revision: str) -> None:
            if revision not in folders:
                return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            sha = commit_of(revision) if revision in revisions else revision
            self.send(200, json.dumps({"id": repository, "sha": sha, "siblings": []}).encode())

        def list_folder(self, revision: str, name: str) -> None:
            folder = folders[revision] / name
            if not folder.is_dir():
                return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            entries = [_entry(path, folders[revision]) for path in sorted(folder.iterdir())]
            self.send(200, json.dumps(entries).encode())

        def send_part(self, revision: str, name: str) -> None:
            if revision not in folders:
                return self.send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            commit = {"X-Repo-Commit": commit_of(revision) if revision in revisions else revision}
            file = folders[revision] / name
            if not file.is_file():
                return self.send(404, b"", {"X-Error-Code": "EntryNotFound"} | commit)
            content, wanted = file.read_bytes(), self.headers.get("Range")
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "Accept-Ranges": "bytes"} | commit
            if wanted is None:
                return self.send(200, content, headers)
            first, last = wanted.removeprefix("bytes=").split("-")
            part = content[int(first) : int(last) + 1]
            place = {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"}
            self.send(206, part, headers | place)

    with _running(Handler) as port:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _running(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """A server of its own thread; yields its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for the acknowledgement of its headers

    def answer(self) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self.answer()

    def do_HEAD(self) -> None:
        self.answer()

    def log_message(self, *arguments: object) -> None:
        pass

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _entry(path: Path, root: Path) -> dict:
    return {
        "type": "directory" if path.is_dir() else "file",
        "oid": hashlib.sha1(str(path).encode()).hexdigest(),
        "size": 0 if path.is_dir() else path.stat().st_size,
        "path": str(path.relative_to(root)),
    }


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that fit.

    Args:
        request: regular expression for `METHOD /path`.
        times: how often.
        kind: "request" drops the connection before the request is heard, "answer" drops it when it has been
            acted upon, and a number answers with that status.
        passes: requests that fit and are let through first.
    """

    request: str
    times: int = 1
    kind: str | int = "request"
    passes: int = 0


@dataclass(frozen=True)
class Heard:
    """A request that was heard in full."""

    method: str
    path: str
    body_bytes: int
    authorized: bool


class HubStandIn:
    """As much of the Hub as a push and a load need.

    Args:
        writers: the user by token; may write to what is named after the user.
        readers: the same, of tokens that may only read.
        part_bytes: files by LFS above this size are sent in several parts.
    """

    def __init__(
        self,
        writers: dict[str, str],
        readers: dict[str, str] | None = None,
        part_bytes: int = 2**20,
    ) -> None:
        self.writers, self.readers, self.part_bytes = writers, readers or {}, part_bytes
        self.repositories: dict[tuple[str, str], StoredRepository] = {}
        self.objects: dict[str, bytes] = {}
        self.parts: dict[tuple[str, int], bytes] = {}
        self.faults: list[Fault] = []
        self.heard: list[Heard] = []
        self.lock = Lock()
        self.port = 0

    @contextmanager
    def running(self) -> Iterator[str]:
        """Yields the address to set HF_ENDPOINT to."""
        with _running(type("Handler", (HubHandler,), {"hub": self})) as self.port:
            yield f"http://127.0.0.1:{self.port}"

    def fault(self, request: str) -> str | int | None:
        """What is to go wrong with a request, if anything."""
        with self.lock:
            for each in self.faults:
                if each.times and re.search(each.request, request):
                    if each.passes:
                        each.passes -= 1
                        return None
                    each.times -= 1
                    return each.kind
        return None

    def hear(self, method: str, path: str, body_bytes: int, authorized: bool) -> None:
        """Notes a request."""
        self.heard.append(Heard(method, path, body_bytes, authorized))

    def count(self, request: str) -> int:
        """How many requests were heard that fit `METHOD /path`."""
        return sum(bool(re.search(request, f"{each.method} {each.path}")) for each in self.heard)
