"""The stand-in for the Hub refuses what the Hub refuses, so that a push which passes it means something."""

import base64
import hashlib
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException

import pytest
from hub_stand_in import Fault, HubStandIn

CONTENT, NAME = b"weights" * 10, "me/model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    hub = HubStandIn({"writer": "me"}, {"reader": "other"}, part_bytes=30)
    with hub.running():
        yield hub


def ask(
    hub: HubStandIn, request: str, body: object = None, token: str | None = "writer", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of `METHOD /path`; no redirect is followed."""
    method, path = request.split(" ", 1)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    asked = urllib.request.Request(f"http://127.0.0.1:{hub.port}{path}", data, headers, method=method)
    opener = urllib.request.build_opener(NoRedirect)
    try:
        with opener.open(asked, timeout=10) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *arguments: object) -> None:
        return None


def create(hub: HubStandIn) -> None:
    asked = {"name": "model", "organization": "me", "visibility": "private"}
    assert ask(hub, "POST /api/repos/create", asked)[0] == 200


def plan(hub: HubStandIn) -> dict:
    asked = {"objects": [{"oid": SHA256, "size": len(CONTENT)}]}
    return json.loads(ask(hub, f"POST /{NAME}.git/info/lfs/objects/batch", asked)[1])["objects"][0]


def commit(hub: HubStandIn, *lines: dict, **header: str) -> int:
    told = [{"key": "header", "value": {"summary": "new", **header}}, *lines]
    body = b"\n".join(json.dumps(line).encode() for line in told)
    return ask(hub, f"POST /api/models/{NAME}/commit/main", body)[0]


def by_lfs(sha256: str = SHA256) -> dict:
    return {"key": "lfsFile", "value": {"path": "w.safetensors", "oid": sha256, "size": len(CONTENT)}}


def regular(path: str, content: bytes) -> dict:
    value = {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
    return {"key": "file", "value": value}


def send_parts(hub: HubStandIn, content: bytes) -> int:
    """Sends the content in the parts that were planned; the status of their completion."""
    upload = plan(hub)["actions"]["upload"]
    size = int(upload["header"]["chunk_size"])
    for number in range(1, len(upload["header"])):
        path = upload["header"][f"{number:05d}"].split(str(hub.port))[1]
        assert ask(hub, f"PUT {path}", content[size * (number - 1) : size * number], token=None)[0] == 200
    parts = [{"partNumber": number, "etag": "x"} for number in range(1, len(upload["header"]))]
    path = upload["href"].split(str(hub.port))[1]
    return ask(hub, f"POST {path}", {"oid": SHA256, "parts": parts}, token=None)[0]


def test_a_wrong_sha256_is_rejected(hub: HubStandIn) -> None:
    create(hub)
    assert ask(hub, f"PUT /lfs/whole/{SHA256}", CONTENT[:-1] + b"!")[0] == 422
    assert send_parts(hub, CONTENT[:-1] + b"!") == 422
    assert commit(hub, by_lfs()) == 422  # nothing of that sum has arrived
    assert ask(hub, "POST /lfs/verify", {"oid": SHA256, "size": len(CONTENT)})[0] == 404
    assert not hub.objects and len(hub.repositories["model", NAME].commits) == 1


def test_what_arrived_is_committed_and_not_asked_for_again(hub: HubStandIn) -> None:
    create(hub)
    assert send_parts(hub, CONTENT) == 200
    assert "actions" not in plan(hub)
    assert ask(hub, "POST /lfs/verify", {"oid": SHA256, "size": len(CONTENT)})[0] == 200
    assert commit(hub, by_lfs(), regular("config.json", b"{}")) == 200
    repository = hub.repositories["model", NAME]
    assert repository.files["w.safetensors"].content == CONTENT
    assert repository.files["config.json"].content == b"{}"


def test_a_commit_on_an_older_one_is_rejected(hub: HubStandIn) -> None:
    create(hub)
    first = hub.repositories["model", NAME].head
    assert commit(hub, regular("a", b"1"), parentCommit=first) == 200
    assert commit(hub, regular("a", b"2"), parentCommit=first) == 412
    assert hub.repositories["model", NAME].files["a"].content == b"1"


def test_files_are_told_as_git_and_lfs_name_them(hub: HubStandIn) -> None:
    create(hub)
    send_parts(hub, CONTENT)
    commit(hub, by_lfs(), regular("folder/a.txt", b"hello\n"))
    _, body, _ = ask(hub, f"GET /api/models/{NAME}/tree/main?recursive=true")
    told = {each["path"]: each for each in json.loads(body)}
    assert told["folder/a.txt"]["oid"] == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object's
    assert told["w.safetensors"]["lfs"]["oid"] == SHA256
    assert told["folder"]["type"] == "directory"
    _, body, _ = ask(hub, f"GET /api/models/{NAME}/tree/main")
    assert {each["path"] for each in json.loads(body)} == {".gitattributes", "folder", "w.safetensors"}


def test_files_by_lfs_come_from_another_host_which_gets_no_token(hub: HubStandIn) -> None:
    create(hub)
    send_parts(hub, CONTENT)
    commit(hub, by_lfs())
    status, _, headers = ask(hub, f"GET /{NAME}/resolve/main/w.safetensors")
    assert status == 302 and headers["X-Linked-Etag"] == f'"{SHA256}"'
    assert headers["Location"].startswith("http://localhost:")
    path = headers["Location"].split(str(hub.port))[1]
    assert ask(hub, f"GET {path}", token=None)[:2] == (200, CONTENT)
    assert ask(hub, f"GET {path}", token=None, Range="bytes=3-5")[:2] == (206, CONTENT[3:6])
    assert ask(hub, f"GET {path}")[0] == 400


@pytest.mark.parametrize(("token", "status"), [("reader", 403), ("nobody", 401), (None, 401)])
def test_who_may_not_write_is_refused(hub: HubStandIn, token: str | None, status: int) -> None:
    create(hub)
    asked = {"name": "model", "organization": "me"}
    assert ask(hub, "POST /api/repos/create", asked, token)[0] == status
    assert ask(hub, f"POST /api/models/{NAME}/commit/main", b"", token)[0] == status
    assert ask(hub, f"POST /api/models/{NAME}/tag/main", {"tag": "v1"}, token)[0] == status
    assert ask(hub, "GET /api/models/me/none", None, token)[0] == (404 if token == "reader" else 401)


def test_names_and_tags_are_given_once(hub: HubStandIn) -> None:
    create(hub)
    assert ask(hub, "POST /api/repos/create", {"name": "model", "organization": "me"})[0] == 409
    assert ask(hub, f"POST /api/models/{NAME}/tag/main", {"tag": "v1"})[0] == 200
    assert ask(hub, f"POST /api/models/{NAME}/tag/main", {"tag": "v1"})[0] == 409
    assert ask(hub, f"GET /api/models/{NAME}/revision/v1")[0] == 200
    assert ask(hub, f"GET /api/models/{NAME}/revision/v2")[0] == 404
    assert ask(hub, f"GET /{NAME}/resolve/v1/none.txt")[2]["X-Error-Code"] == "EntryNotFound"


@pytest.mark.parametrize(("kind", "acted"), [("request", False), ("answer", True)])
def test_connections_are_dropped_on_demand(hub: HubStandIn, kind: str, acted: bool) -> None:
    hub.faults.append(Fault("POST /api/repos/create", kind=kind))
    with pytest.raises((OSError, HTTPException)):
        create(hub)
    assert bool(hub.repositories) == acted
    hub.repositories.clear()
    create(hub)  # once, and no longer


def test_a_fault_lets_the_first_requests_pass(hub: HubStandIn) -> None:
    hub.faults.append(Fault("GET /api/whoami", kind=503, passes=1))
    assert [ask(hub, "GET /api/whoami-v2")[0] for _ in range(3)] == [200, 503, 200]
    assert hub.count("GET /api/whoami") == 3 and hub.heard[0].authorized


def test_its_thread_ends_with_it() -> None:
    before = threading.active_count()
    with HubStandIn({}).running():
        assert threading.active_count() > before
    assert threading.active_count() == before
