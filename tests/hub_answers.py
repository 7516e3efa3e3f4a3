"""How the stand-in for the Hub answers: users, repositories, uploads by LFS, commits and downloads."""

import base64
import hashlib
import json
import re
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from math import ceil
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from hub_repositories import StoredFile, StoredRepository, described, folders_of


class HubHandler(BaseHTTPRequestHandler):
    """Answers one request; the class made of it for a stand-in says which one that is."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for the acknowledgement of its headers
    hub: ClassVar[Any]

    def answer(self) -> None:
        url = urlsplit(self.path)
        self.url_path, self.query = unquote(url.path), parse_qs(url.query)
        told = f"{self.command} {self.url_path}"
        fault = self.hub.fault(told)
        self.is_mute = fault == "answer"
        if fault == "request":
            return self.drop()
        self.body = self.read_body()
        bearer = self.headers.get("Authorization", "")
        self.token = bearer.removeprefix("Bearer ")
        self.hub.hear(self.command, self.url_path, len(self.body), bool(bearer))
        if isinstance(fault, int):
            return self.send(fault, b"{}")
        for pattern, act in ROUTES:
            found = re.fullmatch(pattern, told)
            if found:
                with self.hub.lock:
                    return act(self, *found.groups())
        self.refuse(404, "EntryNotFound", "There is no such page.")

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def log_message(self, *arguments: object) -> None:
        pass

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        if self.is_mute:
            return self.drop()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def give(self, content: object) -> None:
        self.send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def refuse(self, status: int, code: str, message: str) -> None:
        told = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        self.send(status, json.dumps({"error": message}).encode(), told)

    def read_json(self) -> dict[str, Any]:
        return json.loads(self.body)

    # Who asks, and for what.

    def user(self) -> str | None:
        return (self.hub.writers | self.hub.readers).get(self.token)

    def may_write(self, name: str) -> bool:
        """Whether it is the asker's; answers the request where it is not."""
        if self.user() is None:
            self.refuse(401, "Unauthorized", "Invalid credentials in Authorization header")
        elif self.hub.writers.get(self.token) != name.split("/")[0]:
            self.refuse(403, "Forbidden", "You have no write access to this namespace")
        else:
            return True
        return False

    def seen(self, kind: str, name: str) -> StoredRepository | None:
        """The repository, as far as the asker may see it; answers the request where not."""
        repository = self.hub.repositories.get((kind, name))
        if self.token and self.user() is None:
            self.refuse(401, "Unauthorized", "Invalid credentials in Authorization header")
        elif repository is None or (repository.private and self.user() is None):
            self.refuse(404 if self.token else 401, "RepoNotFound", "Repository not found")
        else:
            return repository
        return None

    def written(self, kind: str, name: str) -> StoredRepository | None:
        """The repository, where the asker may write to it; answers the request where not."""
        repository = self.seen(kind, name)
        return repository if repository is not None and self.may_write(name) else None

    def revision(self, repository: StoredRepository, revision: str) -> str | None:
        sha = repository.resolve(revision)
        if sha is None:
            self.refuse(404, "RevisionNotFound", "Invalid rev id")
        return sha

    # Users and repositories.

    def whoami(self) -> None:
        if self.user() is None:
            return self.refuse(401, "Unauthorized", "Invalid credentials in Authorization header")
        self.give({"name": self.user(), "type": "user", "orgs": []})

    def create(self) -> None:
        asked = self.read_json()
        name = f"{asked.get('organization') or self.user()}/{asked['name']}"
        key = asked.get("type", "model"), name
        if not self.may_write(name):
            return None
        if key in self.hub.repositories:
            return self.refuse(409, "RepoExists", "You already created this repo")
        repository = StoredRepository(private=asked.get("visibility") == "private")
        repository.add({".gitattributes": StoredFile(b"*.safetensors filter=lfs\n", False)}, "initial commit")
        self.hub.repositories[key] = repository
        return self.give({"url": f"http://127.0.0.1:{self.hub.port}/{name}", "name": name})

    def change_settings(self, kind: str, name: str) -> None:
        repository = self.written(kind, name)
        if repository is not None:
            repository.private = self.read_json()["visibility"] == "private"
            self.give({})

    def describe(self, kind: str, name: str, revision: str | None) -> None:
        repository = self.seen(kind, name)
        sha = repository and self.revision(repository, revision or "main")
        if sha:
            siblings = [{"rfilename": path} for path in repository.commits[sha]]
            self.give({"id": name, "sha": sha, "private": repository.private, "siblings": siblings})

    def list_refs(self, kind: str, name: str) -> None:
        repository = self.seen(kind, name)
        if repository is not None:
            main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.head}
            tags = [
                {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": sha}
                for tag, sha in repository.tags.items()
            ]
            self.give({"branches": [main], "converts": [], "tags": tags})

    def add_tag(self, kind: str, name: str, revision: str) -> None:
        repository, tag = self.written(kind, name), self.read_json()["tag"]
        sha = repository and self.revision(repository, revision)
        if sha and tag in repository.tags:
            self.refuse(409, "TagExists", "Tag reference exists already")
        elif sha:
            repository.tags[tag] = sha
            self.give({})

    # What is read.

    def list_tree(self, kind: str, name: str, revision: str, folder: str | None) -> None:
        repository = self.seen(kind, name)
        sha = repository and self.revision(repository, revision)
        if not sha:
            return
        prefix = f"{folder}/" if folder else ""
        inside = {path: file for path, file in repository.commits[sha].items() if path.startswith(prefix)}
        if not inside:
            return self.refuse(404, "EntryNotFound", "There is no such folder.")
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries = [
            described(path, file)
            for path, file in inside.items()
            if deep or "/" not in path.removeprefix(prefix)
        ]
        self.give(folders_of(inside, prefix, deep) + entries)

    def list_paths(self, kind: str, name: str, revision: str) -> None:
        repository = self.seen(kind, name)
        sha = repository and self.revision(repository, revision)
        if sha:
            files, asked = repository.commits[sha], self.read_json()["paths"]
            found = [described(path, files[path]) for path in asked if path in files]
            self.give(found + [each for each in folders_of(files, "", True) if each["path"] in asked])

    def resolve_file(self, prefix: str | None, name: str, revision: str, path: str) -> None:
        repository = self.seen("dataset" if prefix else "model", name)
        sha = repository and self.revision(repository, revision)
        if not sha:
            return
        file, commit = repository.commits[sha].get(path), {"X-Repo-Commit": sha}
        if file is None:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"} | commit)
        if not file.lfs:
            return self.send_part(file.content, {"ETag": f'"{file.blob}"'} | commit)
        elsewhere = {"Location": f"http://localhost:{self.hub.port}/storage/{file.sha256}"}
        linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content))}
        self.send(302, b"", elsewhere | linked | commit)

    def fetch_object(self, sha256: str) -> None:
        """The store is another's host: whoever shows it the token of the Hub has leaked it."""
        if self.token:
            return self.refuse(400, "Leak", "The storage was shown a token of the Hub.")
        self.send_part(self.hub.objects[sha256], {"ETag": f'"{sha256}"'})

    def send_part(self, content: bytes, headers: dict[str, str]) -> None:
        wanted = self.headers.get("Range")
        if wanted is None:
            return self.send(200, content, headers | {"Accept-Ranges": "bytes"})
        first, last = wanted.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last) + 1 if last else None]
        place = {"Content-Range": f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"}
        self.send(206, part, headers | place)

    # What is written.

    def validate_card(self) -> None:
        content = self.read_json()["content"]
        try:
            yaml.safe_load(content.split("---")[1])
        except (yaml.YAMLError, IndexError):
            return self.send(400, json.dumps({"errors": [{"message": "bad metadata"}]}).encode())
        self.give({"errors": [], "warnings": []})

    def choose_modes(self, kind: str, name: str, _: str) -> None:
        if self.written(kind, name) is not None:
            by_lfs = (".safetensors", ".parquet", ".png")
            self.give(
                {
                    "files": [
                        {
                            "path": each["path"],
                            "uploadMode": "lfs" if each["path"].endswith(by_lfs) else "regular",
                            "shouldIgnore": False,
                        }
                        for each in self.read_json()["files"]
                    ]
                }
            )

    def plan_uploads(self, prefix: str | None, name: str) -> None:
        if self.written("dataset" if prefix else "model", name) is not None:
            planned = [self.plan_upload(each) for each in self.read_json()["objects"]]
            self.give({"transfer": "basic", "objects": planned})

    def plan_upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Where an object's bytes go, at once or in parts; nowhere if it is there."""
        sha256, size = asked["oid"], asked["size"]
        if sha256 in self.hub.objects:
            return asked
        url = f"http://127.0.0.1:{self.hub.port}/lfs"
        upload: dict[str, Any] = {"href": f"{url}/whole/{sha256}"}
        if size > self.hub.part_bytes:
            numbers = range(1, ceil(size / self.hub.part_bytes) + 1)
            parts = {f"{number:05d}": f"{url}/part/{sha256}/{number}" for number in numbers}
            upload = {
                "href": f"{url}/complete/{sha256}",
                "header": {"chunk_size": str(self.hub.part_bytes)} | parts,
            }
        return asked | {"actions": {"upload": upload, "verify": {"href": f"{url}/verify"}}}

    def keep_part(self, sha256: str, number: str) -> None:
        self.hub.parts[sha256, int(number)] = self.body
        self.send(200, b"", {"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})

    def complete(self, sha256: str) -> None:
        numbers = [each["partNumber"] for each in self.read_json()["parts"]]
        self.body = b"".join(self.hub.parts[sha256, number] for number in numbers)
        self.keep_object(sha256)

    def keep_object(self, sha256: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != sha256:
            return self.refuse(422, "WrongSha256", "The sha256 of what was sent is another.")
        self.hub.objects[sha256] = self.body
        self.give({})

    def verify(self) -> None:
        asked = self.read_json()
        if len(self.hub.objects.get(asked["oid"], b"")) != asked["size"]:
            return self.refuse(404, "ObjectNotFound", "No such object has arrived.")
        self.give({})

    def commit(self, kind: str, name: str, _: str) -> None:
        repository = self.written(kind, name)
        if repository is None:
            return
        lines = [json.loads(line) for line in self.body.splitlines()]
        header, files = lines[0]["value"], dict(repository.files)
        if header.get("parentCommit", repository.head) != repository.head:
            return self.refuse(412, "Conflict", "A commit has happened since.")
        for each in lines[1:]:
            action, value = each["key"], each["value"]
            if action == "file":
                files[value["path"]] = StoredFile(base64.b64decode(value["content"]), False)
            elif action == "lfsFile" and value["oid"] in self.hub.objects:
                files[value["path"]] = StoredFile(self.hub.objects[value["oid"]], True)
            elif action == "deletedFile":
                del files[value["path"]]
            else:
                return self.refuse(422, "NoObject", f"{value['path']} is no object that has arrived.")
        sha = repository.add(files, header["summary"])
        self.give({"commitUrl": f"http://127.0.0.1:{self.hub.port}/{name}/commit/{sha}", "commitOid": sha})


_REPO = r"/api/(model|dataset)s/([^/]+/[^/]+)"
ROUTES: tuple[tuple[str, Callable[..., None]], ...] = (
    ("GET /api/whoami-v2", HubHandler.whoami),
    ("POST /api/repos/create", HubHandler.create),
    ("POST /api/validate-yaml", HubHandler.validate_card),
    (f"GET {_REPO}(?:/revision/(.+))?", HubHandler.describe),
    (f"PUT {_REPO}/settings", HubHandler.change_settings),
    (f"GET {_REPO}/refs", HubHandler.list_refs),
    (f"POST {_REPO}/tag/(.+)", HubHandler.add_tag),
    (f"GET {_REPO}/tree/([^/]+)(?:/(.+))?", HubHandler.list_tree),
    (f"POST {_REPO}/paths-info/(.+)", HubHandler.list_paths),
    (f"POST {_REPO}/preupload/(.+)", HubHandler.choose_modes),
    (f"POST {_REPO}/commit/(.+)", HubHandler.commit),
    (r"POST /(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", HubHandler.plan_uploads),
    (r"PUT /lfs/whole/(\w+)", HubHandler.keep_object),
    (r"PUT /lfs/part/(\w+)/(\d+)", HubHandler.keep_part),
    (r"POST /lfs/complete/(\w+)", HubHandler.complete),
    (r"POST /lfs/verify", HubHandler.verify),
    (r"(?:GET|HEAD) /(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", HubHandler.resolve_file),
    (r"(?:GET|HEAD) /storage/(\w+)", HubHandler.fetch_object),
)
