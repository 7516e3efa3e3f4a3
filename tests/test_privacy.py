"""Keyed hashes: stable under a key, unlike under another, and the key itself stays out of the data set."""

import hashlib
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_scripts.privacy import KEY_BYTES, key_fingerprint, keyed_hash, read_or_create_key

KEY = bytes(range(KEY_BYTES))


def hmac_sha256(key: bytes, message: bytes) -> str:
    """RFC 2104 written out."""
    block = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).hexdigest()


@given(st.text(max_size=40))
def test_the_hash_is_hmac_sha256_of_kind_and_identifier(identifier):
    expected = hmac_sha256(KEY, f"patient:{identifier}".encode())[:16]
    assert keyed_hash(KEY, "patient", identifier) == expected


def test_key_kind_and_identifier_all_change_the_hash():
    hashes = {
        keyed_hash(KEY, "patient", "17"),
        keyed_hash(KEY, "patient", "18"),
        keyed_hash(KEY, "scan", "17"),
        keyed_hash(KEY[::-1], "patient", "17"),
        key_fingerprint(KEY),
        key_fingerprint(KEY[::-1]),
    }
    assert len(hashes) == 6


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    key_file, output_dir = tmp_path / "set.key", tmp_path / "set"
    key = read_or_create_key(key_file, output_dir)
    assert len(key) == KEY_BYTES
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert read_or_create_key(key_file, output_dir) == key
    assert read_or_create_key(tmp_path / "other.key", output_dir) != key


def test_a_key_within_the_data_set_is_refused(tmp_path):
    for key_file in (tmp_path / "set" / "my.key", tmp_path / "other" / ".." / "set" / "data" / "my.key"):
        with pytest.raises(ValueError, match="inside the data set"):
            read_or_create_key(key_file, tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("text", ["", "no key\n", "00ff\n"])
def test_a_file_that_holds_no_key_is_refused_and_kept(tmp_path, text):
    (tmp_path / "set.key").write_text(text)
    with pytest.raises(ValueError, match="holds no key"):
        read_or_create_key(tmp_path / "set.key", tmp_path / "set")
    assert (tmp_path / "set.key").read_text() == text
