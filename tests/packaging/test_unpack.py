"""`vendor/llama.cpp/unpack.py`: what it brings, and what it says when it cannot."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.packaging.workshop import INSIDE, Workshop

PATCH = """\
--- a/src/one.cpp
+++ b/src/one.cpp
@@ -1,3 +1,4 @@
 first
+between
 second
 third
"""


def test_the_tree_is_unpacked_without_what_is_never_built(workshop: Workshop) -> None:
    workshop.use({"src/one.cpp": b"first\n", "tests/big.cpp": b"", "docs/a.md": b"", "ggml/tests/kept.cpp": b""})
    assert workshop.unpack().returncode == 0
    found = {path.relative_to(workshop.tree).as_posix() for path in workshop.tree.rglob("*") if path.is_file()}
    assert found == {"CMakeLists.txt", "src/one.cpp", "ggml/tests/kept.cpp", ".minerva-stamp"}


def test_a_second_run_does_nothing(workshop: Workshop) -> None:
    workshop.use({"src/one.cpp": b"first\n"})
    workshop.unpack()
    (workshop.tree / "src/one.cpp").write_text("edited")
    workshop.environment["MINERVA_LLAMA_CPP_SDIST"] = "/nowhere"
    assert workshop.unpack().returncode == 0
    assert (workshop.tree / "src/one.cpp").read_text() == "edited"


def test_a_new_patch_unpacks_again_and_leaves_the_times_of_the_rest(workshop: Workshop) -> None:
    workshop.use({"src/one.cpp": b"first\nsecond\nthird\n", "src/two.cpp": b"two\n"})
    workshop.unpack()
    before = {name: (workshop.tree / name).stat().st_mtime_ns for name in ("src/one.cpp", "src/two.cpp")}
    workshop.patch("0001-between.patch", PATCH)
    assert workshop.unpack().returncode == 0
    assert (workshop.tree / "src/one.cpp").read_text() == "first\nbetween\nsecond\nthird\n"
    assert (workshop.tree / "src/one.cpp").stat().st_mtime_ns > before["src/one.cpp"]
    assert (workshop.tree / "src/two.cpp").stat().st_mtime_ns == before["src/two.cpp"]


def test_patches_are_applied_in_order_of_name(workshop: Workshop) -> None:
    workshop.use({"src/one.cpp": b"first\nsecond\nthird\n"})
    second = PATCH.replace(
        "@@ -1,3 +1,4 @@\n first\n+between\n second", "@@ -1,4 +1,5 @@\n first\n between\n+then\n second"
    )
    workshop.patch("0002-then.patch", second)
    workshop.patch("0001-between.patch", PATCH)
    assert workshop.unpack().returncode == 0
    assert (workshop.tree / "src/one.cpp").read_text() == "first\nbetween\nthen\nsecond\nthird\n"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("first\nSECOND\nthird\n", id="the context changed"),
        pytest.param("a new line\nfirst\nsecond\nthird\n", id="the place moved"),
        pytest.param("first\nbetween\nsecond\nthird\n", id="upstream has it already"),
        pytest.param(None, id="the file is gone"),
    ],
)
def test_a_patch_that_no_longer_applies_stops_the_build(workshop: Workshop, source: str | None) -> None:
    workshop.use({} if source is None else {"src/one.cpp": source.encode()})
    workshop.patch("0001-between.patch", PATCH)
    assert "0001-between.patch does not apply to the vendored llama.cpp" in workshop.refusal()


def test_a_patch_that_is_none_stops_the_build(workshop: Workshop) -> None:
    workshop.use({"src/one.cpp": b"first\n"})
    workshop.patch("0001-empty.patch", "nothing here\n")
    assert "0001-empty.patch" in workshop.refusal()


def test_a_given_archive_with_another_hash(workshop: Workshop) -> None:
    workshop.use({})
    pin = json.loads((workshop.root / "pin.json").read_text())
    (workshop.root / "pin.json").write_text(json.dumps(pin | {"sha256": "0" * 64}))
    assert "the pin says 000" in workshop.refusal()


def test_a_download_with_another_hash(workshop: Workshop) -> None:
    archive = workshop.archive({INSIDE + "CMakeLists.txt": b""})
    workshop.pin(archive)
    archive.write_bytes(archive.read_bytes() + b"\0")
    workshop.environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(archive.parent)}
    assert "does not have the pinned sha256: do not use it" in workshop.refusal()


def test_no_network_says_what_to_do(workshop: Workshop) -> None:
    workshop.pin(workshop.archive({}))
    workshop.environment |= {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": "http://127.0.0.1:1/simple",
        "PIP_RETRIES": "0",
    }
    line = workshop.refusal()
    assert "cannot download llama-cpp-python 0.0.1" in line
    assert "MINERVA_LLAMA_CPP_DIR" in line
    assert "MINERVA_LLAMA_CPP_SDIST" in line


def test_a_given_archive_that_is_not_there(workshop: Workshop) -> None:
    workshop.pin(workshop.archive({}))
    workshop.environment["MINERVA_LLAMA_CPP_SDIST"] = "/nowhere.tar.gz"
    assert "MINERVA_LLAMA_CPP_SDIST names /nowhere.tar.gz, which is no file" in workshop.refusal()


def test_an_archive_of_something_else(workshop: Workshop) -> None:
    archive = workshop.archive({"other-1.0/setup.py": b""})
    workshop.pin(archive)
    workshop.environment["MINERVA_LLAMA_CPP_SDIST"] = str(archive)
    assert "carries no vendor/llama.cpp" in workshop.refusal()


def test_nothing_is_written_outside_the_tree(workshop: Workshop, tmp_path: Path) -> None:
    workshop.use(
        {"../../escaped": b"", "src/../../escaped": b"", "src/out/escaped": b"real"},
        links={INSIDE + "src/out": str(tmp_path / "elsewhere"), INSIDE + "src/link.cpp": "/etc/passwd"},
    )
    assert workshop.unpack().returncode == 0
    assert [path.relative_to(workshop.tree).as_posix() for path in tmp_path.rglob("escaped") if path.is_file()] == [
        "src/out/escaped"
    ]
    assert not (workshop.tree / "src/link.cpp").exists()
