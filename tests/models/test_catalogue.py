from __future__ import annotations

import os
from pathlib import Path

import pytest

from minerva.config import Settings
from minerva.errors import ConfigError, InvalidModelError, ModelNotFoundError
from minerva.models import metadata
from minerva.models.catalogue import Catalogue

from .gguf_bytes import gguf, key, write
from .test_gguf_header import shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "models" / "qwen" / "qwen3-0.6b-Q4_0.gguf")
    write(tmp_path / "models" / "llama.gguf")
    return tmp_path / "models"


@pytest.fixture
def embedded(tmp_path: Path) -> Path:
    return write(tmp_path / "assets" / "minerva-tiny.gguf")


def ids(catalogue: Catalogue) -> list[str]:
    return [entry.id for entry in catalogue.entries()]


def test_ids_are_paths_in_the_folder(folder: Path, embedded: Path) -> None:
    catalogue = Catalogue(folder, embedded=embedded)
    assert ids(catalogue) == ["llama", "qwen/qwen3-0.6b-Q4_0", "minerva-tiny"]
    assert [entry.source for entry in catalogue.entries()] == ["folder", "folder", "embedded"]
    entry = catalogue.get("llama")
    assert entry.path == folder / "llama.gguf"
    assert entry.created == int(entry.path.stat().st_mtime)
    assert entry.metadata.name == "Tiny"


def test_the_embedded_model_is_the_default_only_when_alone(tmp_path: Path, folder: Path, embedded: Path) -> None:
    assert Catalogue(tmp_path / "nowhere", embedded=embedded).default().id == "minerva-tiny"
    assert Catalogue(folder, embedded=embedded).default().id == "llama"


def test_no_model_at_all(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="put a GGUF file into"):
        Catalogue(tmp_path, embedded=tmp_path / "none").default()


def test_a_file_given_by_flag_is_the_default(tmp_path: Path, folder: Path, embedded: Path) -> None:
    given = write(tmp_path / "elsewhere" / "mine.gguf")
    catalogue = Catalogue(folder, [given], embedded=embedded)
    assert catalogue.default().id == "mine"
    assert ids(catalogue) == ["mine", "llama", "qwen/qwen3-0.6b-Q4_0", "minerva-tiny"]


def test_a_file_given_by_flag_that_lies_in_the_folder_is_listed_once(folder: Path, embedded: Path) -> None:
    catalogue = Catalogue(folder, [folder / "qwen" / "qwen3-0.6b-Q4_0.gguf"], embedded=embedded)
    assert ids(catalogue) == ["qwen/qwen3-0.6b-Q4_0", "llama", "minerva-tiny"]


def test_two_files_of_one_name(tmp_path: Path, folder: Path, embedded: Path) -> None:
    catalogue = Catalogue(folder, [write(tmp_path / "llama.gguf")], embedded=embedded)
    assert catalogue.get("llama").path == tmp_path / "llama.gguf"
    assert catalogue.get("llama-2").path == folder / "llama.gguf"


@pytest.mark.parametrize(
    "name", ["qwen/qwen3-0.6b-Q4_0", "QWEN/Qwen3-0.6B-q4_0", "llama:latest", "Llama:latest", "gpt-4", "mine", "default"]
)
def test_names_that_find_a_model(folder: Path, embedded: Path, name: str) -> None:
    aliases = {"gpt-4": "qwen/qwen3-0.6b-q4_0", "mine": "default"}
    found = Catalogue(folder, aliases=aliases, embedded=embedded).get(name).id
    assert found == ("qwen/qwen3-0.6b-Q4_0" if name[0] in "qQg" else "llama")


def test_aliases_are_shown_with_their_model(folder: Path, embedded: Path) -> None:
    catalogue = Catalogue(folder, aliases={"a": "llama", "b": "default", "c": "gone"}, embedded=embedded)
    assert catalogue.get("llama").aliases == ("a", "b")


@pytest.mark.parametrize(
    "name", ["", "gone", "../llama", "qwen/../llama", "/etc/passwd", "llama.gguf", "x" * 10_000, "\0", "c", "loop"]
)
def test_names_that_find_nothing(folder: Path, embedded: Path, name: str) -> None:
    catalogue = Catalogue(folder, aliases={"c": "gone", "loop": "loop"}, embedded=embedded)
    with pytest.raises(ModelNotFoundError, match=r"known: llama, qwen/qwen3-0.6b-Q4_0, minerva-tiny") as caught:
        catalogue.get(name)
    assert caught.value.param == "model"
    assert len(caught.value.message) < 400


def test_bad_files_are_told_and_hide_nothing(folder: Path, embedded: Path) -> None:
    write(folder / "broken.gguf", b"junk")
    write(folder / "vocabulary.gguf", gguf(tensors=[], data=0))
    (folder / "folder.gguf").mkdir()
    os.mkfifo(folder / "pipe.gguf")
    (folder / "dangling.gguf").symlink_to("gone")
    catalogue = Catalogue(folder, embedded=embedded)
    assert ids(catalogue) == ["llama", "qwen/qwen3-0.6b-Q4_0", "minerva-tiny"]
    told = {path.name: reason for path, reason in catalogue.rejected.items()}
    assert set(told) == {"broken.gguf", "vocabulary.gguf", "pipe.gguf", "dangling.gguf"}
    assert "not a GGUF file" in told["broken.gguf"]
    assert "vocabulary only" in told["vocabulary.gguf"]


def test_a_bad_file_given_by_flag_is_no_silent_default(tmp_path: Path, folder: Path, embedded: Path) -> None:
    catalogue = Catalogue(folder, [write(tmp_path / "bad.gguf", b"junk")], embedded=embedded)
    with pytest.raises(InvalidModelError, match=r"bad.gguf: not a GGUF file"):
        catalogue.default()


def test_what_is_no_model_is_passed_over(folder: Path, embedded: Path) -> None:
    write(folder / "mmproj-llama.gguf", b"junk")
    write(folder / "._llama.gguf", b"junk")
    write(folder / ".cache" / "part.gguf", b"junk")
    write(folder / "notes.txt", b"junk")
    catalogue = Catalogue(folder, embedded=embedded)
    assert not catalogue.rejected
    assert len(catalogue.entries()) == 3


def test_symlinked_folders_are_not_followed(tmp_path: Path, folder: Path, embedded: Path) -> None:
    write(tmp_path / "outside" / "secret.gguf")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "loop").symlink_to(folder)
    assert len(Catalogue(folder, embedded=embedded).entries()) == 3


def test_a_symlinked_file_is_a_model(tmp_path: Path, folder: Path, embedded: Path) -> None:
    (folder / "linked.gguf").symlink_to(write(tmp_path / "disk" / "big.gguf"))
    assert Catalogue(folder, embedded=embedded).get("linked").path == folder / "linked.gguf"


def test_split_model_is_one_entry(folder: Path, embedded: Path) -> None:
    shards(folder)
    assert ids(Catalogue(folder, embedded=embedded)) == ["big", "llama", "qwen/qwen3-0.6b-Q4_0", "minerva-tiny"]


def test_ids_need_no_escape_in_a_url(folder: Path, embedded: Path) -> None:
    write(folder / "my models" / "a?b#c é.gguf")
    assert "my-models/a-b-c" in ids(Catalogue(folder, embedded=embedded))


def test_refresh_sees_changes_and_reads_only_those(
    folder: Path, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = metadata.read_metadata
    monkeypatch.setattr("minerva.models.catalogue.read_metadata", lambda path: (read.append(path.name), real(path))[1])
    catalogue = Catalogue(folder, embedded=embedded)
    read.clear()
    catalogue.refresh()
    assert read == []
    write(folder / "new.gguf", gguf(keys=[key("general.architecture", "llama")]))
    (folder / "llama.gguf").unlink()
    catalogue.refresh()
    assert read == ["new.gguf"]
    assert list(catalogue.rejected) == [folder / "new.gguf"]
    write(folder / "new.gguf")
    catalogue.refresh()
    assert ids(catalogue) == ["new", "qwen/qwen3-0.6b-Q4_0", "minerva-tiny"]


def test_a_model_that_arrives_later_is_found_without_refresh(
    folder: Path, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(folder, embedded=embedded)
    write(folder / "late.gguf")
    monkeypatch.setattr("minerva.models.catalogue._REFRESH_ON_MISS_S", 0.0)
    assert catalogue.get("late").id == "late"


# Of settings.


def test_model_by_path_id_or_not_at_all(folder: Path) -> None:
    def default(model: str | None) -> str:
        return Catalogue.of(Settings(models_dir=folder, model=model)).default().id

    assert default(None) == "llama"
    assert default("qwen/qwen3-0.6b-q4_0") == "qwen/qwen3-0.6b-Q4_0"
    assert default(str(folder / "qwen" / "qwen3-0.6b-Q4_0.gguf")) == "qwen/qwen3-0.6b-Q4_0"


@pytest.mark.parametrize("name", ["./gone", "gone.gguf", "/tmp/gone"])
def test_model_path_that_is_not_there(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"--model {name}: no such file"):
        Catalogue.of(Settings(models_dir=folder, model=name))


def test_model_that_is_a_folder(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"a folder; name a .gguf file"):
        Catalogue.of(Settings(models_dir=folder, model=str(folder)))


def test_model_id_that_is_unknown(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"neither a file nor a known model; .*known: llama, qwen/qwen3-0.6b-Q4_0"):
        Catalogue.of(Settings(models_dir=folder, model="mistral"))
