"""Whether a hub takes large files by Xet, which huggingface_hub takes for granted; many have LFS alone."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import HfApi, constants
from huggingface_hub.utils import build_hf_headers, get_session

NO_SUCH_PAGE = 404


@contextmanager
def lfs_where_no_xet(api: HfApi, repo_id: str, repo_type: str) -> Iterator[None]:
    """Within it, what is uploaded goes by LFS if the hub knows nothing of Xet.

    Raises:
        huggingface_hub.errors.HTTPError: the hub cannot be asked.
    """
    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = before or not has_xet(api, repo_id, repo_type)
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def has_xet(api: HfApi, repo_id: str, repo_type: str) -> bool:
    """Whether the hub has the page that hands out the tokens of Xet."""
    page = f"{api.endpoint}/api/{repo_type}s/{repo_id}/xet-write-token/main"
    return get_session().get(page, headers=build_hf_headers()).status_code != NO_SUCH_PAGE
