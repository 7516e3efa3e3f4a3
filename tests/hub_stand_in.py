"""A local stand-in for the Hub that serves folders as revisions of one dataset, for HF_ENDPOINT."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit


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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

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
