"""Our patches, against the files that they change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.packaging.workshop import VENDOR, Workshop

patch_ng = pytest.importorskip("patch_ng")

TREE = VENDOR / "tree"
PATCHES = sorted((VENDOR / "patches").glob("*.patch"))


@pytest.fixture
def pristine(tmp_path: Path) -> dict[str, bytes]:
    """The files that our patches change, as upstream has them: the vendored ones with the patches taken back."""
    if not (TREE / ".minerva-stamp").is_file():
        pytest.skip("built from a tree that was given")
    root = tmp_path / "pristine"
    names = {
        item.target.decode().removeprefix("b/") for patch in PATCHES for item in patch_ng.fromfile(str(patch)).items
    }
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TREE / name, root / name)
    for patch in reversed(PATCHES):
        assert patch_ng.fromfile(str(patch)).revert(strip=1, root=str(root)), patch.name
    return {name: (root / name).read_bytes() for name in names}


def test_every_patch_applies_and_gives_the_vendored_tree(workshop: Workshop, pristine: dict[str, bytes]) -> None:
    assert PATCHES
    workshop.use(pristine)
    for patch in PATCHES:
        workshop.patch(patch.name, patch.read_bytes())
    done = workshop.unpack()
    assert done.returncode == 0, done.stderr
    for name, upstream in pristine.items():
        assert (workshop.tree / name).read_bytes() == (TREE / name).read_bytes() != upstream


def test_a_changed_upstream_stops_the_build_with_the_name_of_the_patch(
    workshop: Workshop, pristine: dict[str, bytes]
) -> None:
    workshop.use({name: b"// upstream added a line\n" + content for name, content in pristine.items()})
    for patch in PATCHES:
        workshop.patch(patch.name, patch.read_bytes())
    assert f"{PATCHES[0].name} does not apply" in workshop.refusal()
