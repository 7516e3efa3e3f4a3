"""What can go wrong on the way to the Hub, as sentences that say what to do."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

TOKENS = re.compile(r"\b(?:hf|api_org)_\w+")
BUSY = (408, 429, 500, 502, 503, 504)
GO_ON = (
    "Run the same command again: it goes on from what has arrived, and shows nothing before all of it has."
)


class PushError(ValueError):
    """Something that cannot be published; the text says what is wrong with it and what to do."""


@contextmanager
def told_in_sentences(repo_id: str) -> Iterator[None]:
    """Within it, what the Hub or the way to it refuses is raised as a PushError without any token."""
    try:
        yield
    except PushError:
        raise
    except (OSError, HTTPError, RuntimeError, ValueError) as error:
        # Not chained: the error of the library holds the request, whose headers hold the token.
        raise PushError(without_token(one_line(sentence(error, repo_id)))) from None


def sentence(error: Exception, repo_id: str) -> str:
    """What an error of huggingface_hub means for whoever pushes to `repo_id`."""
    is_of_the_library = isinstance(error, ValueError) and not isinstance(error, HfHubHTTPError)
    cause = error if is_of_the_library else first_cause(error)
    hub = without_credentials(constants.ENDPOINT)
    if isinstance(cause, LocalTokenNotFoundError):
        return (
            f"You are not logged in at {hub}: run `hf auth login`, or set HF_TOKEN to a token that may write."
        )
    if isinstance(cause, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set, so that nothing can be sent: unset it and push again."
    if isinstance(cause, HfHubHTTPError):
        return _refusal(cause, repo_id, hub)
    if isinstance(cause, HTTPError | ConnectionError | TimeoutError):
        # What fails in hf_xet comes as a plain ConnectionError.
        xet = (
            "" if isinstance(cause, HTTPError) else " If Xet's servers are blocked, set HF_HUB_DISABLE_XET=1."
        )
        return f"{hub} cannot be reached, or broke the connection ({type(cause).__name__}). {GO_ON}{xet}"
    return f"{repo_id} could not be pushed: {cause}"


def _refusal(error: HfHubHTTPError, repo_id: str, hub: str) -> str:
    """What an answer of the Hub means, by its status."""
    status = error.response.status_code
    if status == 401:
        return (
            f"{hub} does not take your token: log in anew with `hf auth login --force`, or set HF_TOKEN to a "
            "token that is still valid."
        )
    if status == 403:
        return (
            f"You have no permission to write to {repo_id} on {hub}: take a token with write access to it, "
            "or push to a name of your own."
        )
    if status == 404:
        return f"{hub} shows no {repo_id} to this token: check the name, and that the token may read it."
    if status == 409:
        return (
            f"{repo_id} exists on {hub}, but not for this token: ask its owner for access, or take another "
            "name."
        )
    if status == 412:
        return (
            f"Somebody else pushed to {repo_id} at the same time: look at it, then run the same command "
            "again."
        )
    if status in BUSY:
        return f"{hub} is too busy (status {status}). {GO_ON}"
    told = error.server_message or f"status {status}"
    return f"{hub} refused what was sent to {repo_id}: {told}. Correct it and push again."


def one_line(text: object) -> str:
    """A text of several lines as one."""
    return " ".join(str(text).split())


def first_cause(error: BaseException) -> BaseException:
    """The error of the connection or the Hub that an upload was wrapped around, or the error itself."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, HTTPError | OSError):
        found = found.__cause__
    return error if found is None else found


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed a little later: a broken connection, or a busy Hub."""
    cause = first_cause(error)
    if isinstance(cause, HfHubHTTPError):
        return cause.response.status_code in BUSY
    if isinstance(cause, OfflineModeIsEnabled):
        return False
    return isinstance(cause, HTTPError | ConnectionError | TimeoutError)


def without_token(text: str) -> str:
    """The text with every token in it blacked out."""
    token = get_token()
    return TOKENS.sub("<token>", text.replace(token, "<token>") if token else text)


def without_credentials(url: str) -> str:
    """The address without a user and password before its host."""
    return re.sub(r"//[^/@]*@", "//", url)
