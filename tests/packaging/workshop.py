"""A copy of `vendor/llama.cpp` in a temporary folder, with a source distribution that the test makes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

VENDOR = Path(__file__).resolve().parents[2] / "vendor" / "llama.cpp"
INSIDE = "llama_cpp_python-0.0.1/vendor/llama.cpp/"


@dataclass
class Workshop:
    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "patches").mkdir(parents=True)
        shutil.copy(VENDOR / "unpack.py", self.root)

    @property
    def tree(self) -> Path:
        return self.root / "tree"

    def pin(self, archive: Path) -> None:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        pin = {"package": "llama-cpp-python", "version": "0.0.1", "sha256": digest, "commit": "abc"}
        (self.root / "pin.json").write_text(json.dumps(pin))

    def archive(self, files: dict[str, bytes], *, links: dict[str, str] | None = None) -> Path:
        """A source distribution with `files` under whole names; `links` are symbolic."""
        path = self.root.parent / "llama_cpp_python-0.0.1.tar.gz"
        with tarfile.open(path, "w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            for name, target in (links or {}).items():
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, target
                tar.addfile(member)
        return path

    def use(self, files: dict[str, bytes], *, links: dict[str, str] | None = None) -> None:
        """Pin an archive of `files`, given by their names inside llama.cpp, and use it without a download."""
        named = {INSIDE + name: content for name, content in {"CMakeLists.txt": b"", **files}.items()}
        archive = self.archive(named, links=links)
        self.pin(archive)
        self.environment["MINERVA_LLAMA_CPP_SDIST"] = str(archive)

    def patch(self, name: str, text: str | bytes) -> None:
        (self.root / "patches" / name).write_bytes(text if isinstance(text, bytes) else text.encode())

    def unpack(self) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MINERVA_", "PIP_"))}
        command = [sys.executable, str(self.root / "unpack.py")]
        return subprocess.run(command, env=env | self.environment, capture_output=True, text=True, check=False)

    def refusal(self) -> str:
        """The one line that it stops with. Nothing half made is left."""
        done = self.unpack()
        assert done.returncode == 1, done
        line = done.stderr.strip()
        assert line.startswith("minerva: ")
        assert "\n" not in line
        assert sorted(path.name for path in self.root.iterdir()) == ["patches", "pin.json", "unpack.py"]
        return line
