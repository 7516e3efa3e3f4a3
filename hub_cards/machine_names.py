"""Finds what tells on whose machine a run was: names of hosts and users, and addresses."""

import getpass
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hub_cards.card_facts import MEASURED_KEYS
from hub_cards.push_errors import PushError

# What metrics.json says of a machine; a field beside these might name it.
MACHINE_KEYS = ("cpu", "cores", "gpu", "torch")
ADDRESS = re.compile(
    r"file:/[^\s\"')]*"
    r"|\w+://[^/\s@]+@[^/\s\"')]*"  # a user, perhaps with a password, before the host
    r"|(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.])"
    r"|(?<![\w.])[\w-]+(?:\.[\w-]+)*\.(?:local|localdomain|lan|internal|intranet|corp)(?![\w(])",
    re.IGNORECASE,
)
# They tell nobody's name.
COMMON = {"localhost", "root", "user", "admin", "ubuntu", "runner", "container", "docker"}
FEWEST_LETTERS = 2


def check_measured(path: Path, contents: dict[str, Any]) -> None:
    """Raises PushError unless metrics.json has its fields and no others, which could name anything."""
    wrong = set(contents) ^ set(MEASURED_KEYS)
    if not wrong:
        machine = contents["machine"]
        wrong = {"machine"} if not isinstance(machine, dict) else set(machine) - set(MACHINE_KEYS)
    if wrong:
        raise PushError(
            f"{path}: {', '.join(sorted(wrong))} is missing or more than is published. It holds "
            f"{', '.join(MEASURED_KEYS)}, and of the machine {', '.join(MACHINE_KEYS)}: let the run write it "
            "anew."
        )


def check_names(path: Path, content: Any, machine: dict[str, Any]) -> None:
    """Raises PushError where a text names a host, an address in a network or this machine's user.

    Args:
        path: of the text, for the error.
        content: a text, or what JSON holds.
        machine: as metrics.json describes it; the names of its processor and GPU are no names of a host.
    """
    described = [machine[key] for key in ("cpu", "gpu") if machine.get(key)]
    words = names_of_this_machine(template_words())
    for text in texts_in(content):
        for name in described:
            text = text.replace(name, "")
        found = ADDRESS.search(text) or words.search(text)
        if found:
            raise PushError(
                f"{path} names {found.group()}, a host, an address or a user: leave it out, or name it "
                "otherwise."
            )


def texts_in(content: Any) -> Iterator[str]:
    """Every text in what JSON or YAML holds, the names of fields among them."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from texts_in(key)
            yield from texts_in(value)
    elif isinstance(content, list):
        for each in content:
            yield from texts_in(each)
    elif isinstance(content, str):
        yield content


def names_of_this_machine(ordinary: str) -> re.Pattern[str]:
    """Finds this host's and its user's name as words, but for those that ordinary text holds anyway."""
    host = socket.gethostname()
    names = {host, host.partition(".")[0], Path.home().name}
    with suppress(KeyError, OSError):  # an account may have no name
        names.add(getpass.getuser())
    telling = [name for name in names if len(name) >= FEWEST_LETTERS and name.casefold() not in COMMON]
    telling = [name for name in telling if not _as_words([name]).search(ordinary)]
    return _as_words(telling)


def template_words() -> str:
    """What every card says: a machine called `ultrasound` is not told by the word."""
    return " ".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.md")))


def _as_words(names: Sequence[str]) -> re.Pattern[str]:
    if not names:
        return re.compile(r"(?!)")  # nothing
    longest_first = sorted(map(re.escape, names), key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(longest_first)})(?![\w-])", re.IGNORECASE)
