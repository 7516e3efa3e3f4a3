"""The repositories that the stand-in for the Hub keeps."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StoredFile:
    """A file of a commit, kept by LFS or in git itself."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def blob(self) -> str:
        """What git calls it: of LFS files, it keeps a pointer."""
        content = self.content
        if self.lfs:
            pointer = "version https://git-lfs.github.com/spec/v1"
            content = f"{pointer}\noid sha256:{self.sha256}\nsize {len(content)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class StoredRepository:
    """A repository: its commits in their order, each a whole tree of files."""

    private: bool
    commits: dict[str, dict[str, StoredFile]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return list(self.commits)[-1]

    @property
    def files(self) -> dict[str, StoredFile]:
        return self.commits[self.head]

    def add(self, files: dict[str, StoredFile], message: str) -> str:
        told = [
            self.commits and self.head,
            message,
            sorted((path, file.blob) for path, file in files.items()),
        ]
        sha = hashlib.sha1(json.dumps(told).encode()).hexdigest()
        self.commits[sha] = files
        self.messages.append(message)
        return sha

    def resolve(self, revision: str) -> str | None:
        """The commit of a branch, tag or commit."""
        if revision == "main":
            return self.head
        sha = self.tags.get(revision, revision)
        return sha if sha in self.commits else None


def described(path: str, file: StoredFile) -> dict[str, Any]:
    """A file as a listing tells of it."""
    told = {"type": "file", "oid": file.blob, "size": len(file.content), "path": path}
    lfs = {"oid": file.sha256, "size": len(file.content), "pointerSize": 134}
    return told | {"lfs": lfs} if file.lfs else told


def folders_of(files: dict[str, StoredFile], prefix: str, deep: bool) -> list[dict[str, Any]]:
    """The folders below a path, as a listing tells of them."""
    parents = {
        str(parent) for path in files for parent in Path(path).parents if str(parent).startswith(prefix)
    } - {".", prefix.rstrip("/")}
    chosen = sorted(each for each in parents if deep or "/" not in each.removeprefix(prefix))
    return [
        {"type": "directory", "oid": hashlib.sha1(each.encode()).hexdigest(), "size": 0, "path": each}
        for each in chosen
    ]
