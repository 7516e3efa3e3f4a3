"""Brings a repository of the Hub to exactly the given files, in one commit."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HFValidationError, HTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash

from hub_cards.push_errors import PushError, may_pass, told_in_sentences, without_credentials
from hub_cards.xet import lfs_where_no_xet

TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
OF_THE_HUB = (".gitattributes",)
WAITS_S = (1.0, 4.0, 15.0)

Files = Mapping[str, Path | bytes]


@dataclass(frozen=True)
class Destination:
    """Where files are published.

    Args:
        repo_id: ORG/NAME.
        repo_type: model or dataset.
        public: whether everybody may see it.
        tag: names the commit as a release.

    Raises:
        PushError: a name or tag that the Hub refuses.
    """

    repo_id: str
    repo_type: str
    public: bool = False
    tag: str | None = None

    def __post_init__(self) -> None:
        check_repo_name(self.repo_id)
        if self.tag is not None and (not TAG.fullmatch(self.tag) or ".." in self.tag):
            raise PushError(f"The tag {self.tag!r} is refused by the Hub: name it like v0.1.0.")


@dataclass(frozen=True)
class HubState:
    """What a repository holds before a push.

    Args:
        head: its newest commit.
        private: whether it is.
        files: by path; without what the Hub itself writes.
        tags: their commits.
        read: gives a file's bytes.
    """

    head: str
    private: bool
    files: dict[str, RepoFile]
    tags: dict[str, str]
    read: Callable[[str], bytes]


@dataclass(frozen=True)
class Published:
    """What a push did.

    Args:
        url: of the repository.
        commit: its newest commit.
        sent, removed: paths of the files that differed.
        private: whether the repository is.
        tag: the release, if there is one.
    """

    url: str
    commit: str
    sent: tuple[str, ...]
    removed: tuple[str, ...]
    private: bool
    tag: str | None

    def __str__(self) -> str:
        seen = "private" if self.private else "public"
        tag = "" if self.tag is None else f", release {self.tag}"
        place = f"{self.url} ({seen}) at commit {self.commit[:12]}{tag}"
        if not self.sent and not self.removed:
            return f"Nothing changed: {place}."
        removed = f", {len(self.removed)} removed" if self.removed else ""
        return f"Published {place}: {len(self.sent)} files new or changed{removed}."


def check_repo_name(repo_id: str) -> None:
    """Raises PushError unless the Hub takes the name and it has an owner."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PushError(f"The Hub refuses the name {repo_id!r}. {error}") from error
    if "/" not in repo_id:
        raise PushError(f"{repo_id!r} has no owner: name the repository as ORG/NAME.")


def check_login(repo_id: str) -> None:
    """Raises PushError unless the Hub takes the name and knows who pushes: to ask before a long training."""
    check_repo_name(repo_id)
    with told_in_sentences(repo_id):
        HfApi().whoami()


def publish(
    destination: Destination, files: Files, check_present: Callable[[HubState], None], message: str
) -> Published:
    """Makes the repository hold these files and no others; it is made, private, where there is none.

    What has arrived is not sent again: after a broken connection the state of the repository is read anew,
    and only what differs is sent. One that is to be public is made so after its files have arrived.

    Args:
        destination: the repository.
        files: by path, files or their bytes.
        check_present: raises PushError for a repository that holds something else.
        message: of the commit.

    Raises:
        PushError: the Hub, the way to it, or `check_present` refuses; nothing is published then.
    """
    push = _Push(HfApi(), destination, files, check_present, message)
    with told_in_sentences(destination.repo_id):
        for wait_s in WAITS_S:
            try:
                return push.attempt()
            except (OSError, HTTPError, RuntimeError) as error:
                if not may_pass(error):
                    raise
                time.sleep(wait_s)
        return push.attempt()


class _Push:
    """One push, which may take several attempts."""

    def __init__(
        self,
        api: HfApi,
        destination: Destination,
        files: Files,
        check_present: Callable[[HubState], None],
        message: str,
    ) -> None:
        self._api, self._destination, self._files = api, destination, files
        self._check_present, self._message = check_present, message
        self._repo = {"repo_id": destination.repo_id, "repo_type": destination.repo_type}
        # What the first attempt found to differ: its commit may have arrived and its answer not.
        self._plan: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    def attempt(self) -> Published:
        """Asks who pushes, reads the repository, checks it, and sends what differs."""
        self._api.whoami()  # told apart from a repository that this token does not see
        destination, state = self._destination, self._state()
        if state.files:
            self._check_present(state)
        files = self._files
        sent = tuple(path for path, content in files.items() if _differs(content, state.files.get(path)))
        removed = tuple(sorted(set(state.files) - set(files)))
        _check_visibility(destination, state)
        _check_tag(destination, state, changes=bool(sent or removed))
        self._plan = self._plan or (sent, removed)
        head = self._commit(state, sent, removed) if sent or removed else state.head
        if destination.public and state.private:
            self._api.update_repo_settings(**self._repo, visibility="public")
        if destination.tag is not None and destination.tag not in state.tags:
            self._api.create_tag(**self._repo, tag=destination.tag, revision=head)
        prefix = "datasets/" if destination.repo_type == "dataset" else ""
        url = without_credentials(f"{self._api.endpoint}/{prefix}{destination.repo_id}")
        return Published(url, head, *self._plan, not destination.public, destination.tag)

    def _state(self) -> HubState:
        """The repository, made where there is none."""
        state = _read_state(self._api, self._repo)
        if state is None:
            self._api.create_repo(**self._repo, private=True)
            state = _read_state(self._api, self._repo)
        if state is None:
            raise PushError(
                f"{self._destination.repo_id} was made, but cannot be read: give the token read access."
            )
        return state

    def _commit(self, state: HubState, sent: tuple[str, ...], removed: tuple[str, ...]) -> str:
        """Everything in one commit; its name."""
        operations = [CommitOperationAdd(path, self._files[path]) for path in sent]
        operations += [CommitOperationDelete(path) for path in removed]
        with lfs_where_no_xet(self._api, **self._repo):
            return self._api.create_commit(
                **self._repo,
                operations=operations,
                commit_message=self._message,
                parent_commit=state.head,
            ).oid


def _read_state(api: HfApi, repo: dict[str, str]) -> HubState | None:
    """The repository as this token sees it; None where it sees none."""
    try:
        info = api.repo_info(**repo)
    except RepositoryNotFoundError:
        return None
    entries = api.list_repo_tree(**repo, recursive=True, revision=info.sha)
    files = {each.path: each for each in entries if isinstance(each, RepoFile)}
    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(**repo).tags}

    def read(path: str) -> bytes:
        with TemporaryDirectory() as folder:
            return Path(
                api.hf_hub_download(**repo, filename=path, revision=info.sha, local_dir=folder)
            ).read_bytes()

    ours = {path: file for path, file in files.items() if path not in OF_THE_HUB}
    return HubState(info.sha, bool(info.private), ours, tags, read)


def _differs(content: Path | bytes, there: RepoFile | None) -> bool:
    """Whether a file is not yet on the Hub as it is here, by size and by its SHA-256 or git's SHA-1."""
    if there is None:
        return True
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    if size != there.size:
        return True
    if there.lfs is not None:
        return CommitOperationAdd(there.path, content).upload_info.sha256.hex() != there.lfs.sha256
    return git_hash(content if isinstance(content, bytes) else content.read_bytes()) != there.blob_id


def _check_visibility(destination: Destination, state: HubState) -> None:
    if not state.private and not destination.public:
        raise PushError(
            f"{destination.repo_id} is public: pass --public to publish there for everybody, or push to "
            "another name."
        )


def _check_tag(destination: Destination, state: HubState, changes: bool) -> None:
    """A release stays what it was: its tag is not moved."""
    commit = state.tags.get(destination.tag) if destination.tag is not None else None
    if commit is not None and (changes or commit != state.head):
        raise PushError(
            f"{destination.repo_id} has a release {destination.tag} already, of other files (commit "
            f"{commit[:12]}): choose the next tag."
        )
