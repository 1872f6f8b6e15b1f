"""What the README names exists. (CI runs its test command.)"""

from __future__ import annotations

import re
from pathlib import Path

from minerva.config import Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()


def test_every_flag_of_the_table_is_a_flag() -> None:
    table = re.findall(r"^\| (`-.*?) \|", TEXT, re.MULTILINE)
    flags = {flag for row in table for flag in re.findall(r"`(-[\w-]+)`", row)}
    assert "--ctx-size" in flags
    known: set[str] = set()
    for field in Settings.model_fields.values():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        known.update(str(flag) for flag in extra["flags"])  # type: ignore[union-attr]
    assert flags <= known


def test_every_link_into_the_tree_leads_to_a_file() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_ci_finds_the_test_command() -> None:
    assert re.search(r"<!-- test command -->\n```sh\n.+\n```", TEXT)
