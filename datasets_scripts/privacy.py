"""Keyed hashes for identifiers: the same key gives the same hash; without the key no guess can be tested.

HMAC-SHA256 (RFC 2104). A plain hash of a hospital number is undone by hashing all numbers there are; with a
key of 32 random bytes, kept outside the data set, it is not.
"""

import hashlib
import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

HASH_CHARACTERS = 16
KEY_BYTES = 32


def keyed_hash(key: bytes, kind: str, identifier: str) -> str:
    """16 hexadecimal characters for an identifier of a kind (`scan`, `patient`); kinds never share a hash."""
    message = f"{kind}:{identifier}".encode()
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:HASH_CHARACTERS]


def key_fingerprint(key: bytes) -> str:
    """Tells whether two runs used one key, and nothing about the key."""
    return keyed_hash(key, "key", "fingerprint")


def read_or_create_key(key_file: Path, output_dir: Path) -> bytes:
    """The key in this file; a new one, readable by its owner alone, where there is no file.

    Raises:
        ValueError: the file lies inside the data set, or holds no key.
    """
    if key_file.resolve().is_relative_to(output_dir.resolve()):
        raise ValueError(
            f"The key file {key_file} lies inside the data set and would be published with it; "
            "keep it elsewhere."
        )
    if not key_file.exists():
        _create_key(key_file)
    return _read_key(key_file)


def _create_key(key_file: Path) -> None:
    """Writes a new key, complete or not at all; a key that another process writes first stays."""
    aside = key_file.with_name(f".{key_file.name}.{secrets.token_hex(4)}.partial")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_bytes(KEY_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(aside, key_file)
    finally:
        aside.unlink()


def _read_key(key_file: Path) -> bytes:
    try:
        key = bytes.fromhex(key_file.read_text().strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(
            f"{key_file} holds no key of {2 * KEY_BYTES} hexadecimal characters; name another file."
        )
    return key
