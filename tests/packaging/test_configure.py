"""What the build says when something that it needs is missing. Configuration only: nothing is compiled."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")


def refusal(build: Path, *defines: str, **environment: str) -> str:
    command = ["cmake", "-S", str(ROOT), "-B", str(build), f"-DPython_EXECUTABLE={sys.executable}", *defines]
    env = {name: value for name, value in os.environ.items() if not name.startswith("MINERVA_")}
    done = subprocess.run(command, env=env | environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return " ".join(done.stderr.split())


def test_a_given_tree_that_is_none(tmp_path: Path) -> None:
    said = refusal(tmp_path / "build", f"-DMINERVA_LLAMA_CPP_DIR={tmp_path}")
    assert f"MINERVA_LLAMA_CPP_DIR is {tmp_path}, which holds no include/llama.h" in said


def test_a_given_tree_by_environment(tmp_path: Path) -> None:
    assert "which holds no include/llama.h" in refusal(tmp_path / "build", MINERVA_LLAMA_CPP_DIR=str(tmp_path))


@pytest.mark.parametrize(("variable", "language"), [("CC", "C"), ("CXX", "CXX")])
def test_a_missing_compiler(tmp_path: Path, variable: str, language: str) -> None:
    said = refusal(tmp_path / "build", **{variable: "/nowhere/compiler"})
    assert f"No {language} compiler: `apt install g++` on Debian" in said
