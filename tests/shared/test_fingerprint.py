"""fingerprint: hashes that say what something was made from."""

import hashlib
from pathlib import Path

import peft
import torch
import transformers

from stages.shared.fingerprint import LIBRARIES, combined, library_versions, sha256


def test_the_hash_of_a_file_is_the_published_sha256(tmp_path: Path) -> None:
    file = tmp_path / "abc"
    file.write_bytes(b"abc")  # FIPS 180-4's own example
    assert sha256(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    file.write_bytes(b"")
    assert sha256(file) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_file_of_several_blocks_is_read_to_its_last_byte(tmp_path: Path) -> None:
    data = bytes(range(256)) * 12_289  # three blocks of a mebibyte and a little
    file = tmp_path / "weights"
    file.write_bytes(data)
    before = sha256(file)
    assert before == hashlib.sha256(data).hexdigest()
    file.write_bytes(data[:-1] + b"\0")
    assert sha256(file) != before


def test_parts_are_told_apart_by_order_and_by_where_they_end() -> None:
    made = [combined(parts) for parts in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"], ["ab", "c", ""])]
    assert len(set(made)) == 5
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in made)
    assert combined(iter(["ab", "c"])) == made[0]
    assert made[0] == hashlib.sha256(b"ab\0c").hexdigest()[:16]


def test_the_versions_are_those_of_the_libraries_that_are_imported() -> None:
    versions = library_versions()
    assert list(versions) == list(LIBRARIES)
    imported = {"torch": str(torch.__version__), "transformers": transformers.__version__, "peft": peft.__version__}
    assert {library: versions[library] for library in imported} == imported
