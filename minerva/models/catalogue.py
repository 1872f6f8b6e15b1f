"""The models that can be served, by id: from -m, from the models folder, and the embedded one.

Ids are looked up in a table that this module made by walking the folder. They are never joined to a path.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from minerva.config import DEFAULT_MODEL, Settings
from minerva.errors import ConfigError, InvalidModelError, ModelNotFoundError
from minerva.models.discovery import Signature, id_of, signature_of, walk
from minerva.models.metadata import ModelMetadata, read_metadata

EMBEDDED = Path(__file__).parent.parent / "assets" / "minerva-tiny.gguf"

Source: TypeAlias = Literal["flag", "folder", "embedded"]

_REFRESH_ON_MISS_S = 1.0


class CatalogueEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`created` is the file's modification time, in seconds since 1970."""

    id: str
    path: Path
    metadata: ModelMetadata
    created: int
    source: Source
    aliases: tuple[str, ...] = ()


class Catalogue:
    """`rejected` tells why a file that looks like a model is not listed."""

    def __init__(
        self,
        models_dir: Path,
        extra: Sequence[Path] = (),
        aliases: Mapping[str, str] | None = None,
        *,
        default: str | None = None,
        embedded: Path = EMBEDDED,
    ) -> None:
        self.models_dir = models_dir
        self.rejected: dict[Path, str] = {}
        self._extra = list(extra)
        self._aliases = dict(aliases or {})
        self._default = default
        self._embedded = embedded
        self._entries: dict[str, CatalogueEntry] = {}
        self._lowered: dict[str, CatalogueEntry] = {}
        self._refreshed = 0.0
        self._scanned: dict[Path, tuple[Signature, ModelMetadata | str]] = {}
        self.refresh()

    @classmethod
    def of(cls, settings: Settings) -> Catalogue:
        """The catalogue of a server. Raises ConfigError when `settings.model` is neither a file nor a known id."""
        named = settings.model
        if named is None:
            return cls(settings.models_dir, aliases=settings.aliases)
        flag = settings.sources.get("model", "--model")
        path = Path(named).expanduser()
        if _is_path(named, path):
            if path.is_dir():
                raise ConfigError(f"{flag} {named}: a folder; name a .gguf file, or give --models-dir", param="model")
            if not path.exists():
                raise ConfigError(f"{flag} {named}: no such file", param="model")
            return cls(settings.models_dir, [path], settings.aliases)
        catalogue = cls(settings.models_dir, aliases=settings.aliases, default=named)
        try:
            catalogue.default()
        except ModelNotFoundError as error:
            raise ConfigError(
                f"{flag} {named}: neither a file nor a known model; {error.message}", param="model"
            ) from None
        return catalogue

    def entries(self) -> list[CatalogueEntry]:
        return list(self._entries.values())

    def get(self, name: str) -> CatalogueEntry:
        """By id, then by alias, then without regard to case, then without `:latest`. Raises ModelNotFoundError."""
        entry = self._find(name)
        if entry is None and time.monotonic() - self._refreshed > _REFRESH_ON_MISS_S:
            self.refresh()
            entry = self._find(name)
        if entry is None:
            raise ModelNotFoundError(f"model {name[:200]!r} not found; known: {self._known()}", param="model")
        return entry

    def default(self) -> CatalogueEntry:
        """What is served when a request names no model: -m, else the first of the folder, else the embedded one."""
        if self._default is not None:
            entry = self._by_id(self._default) or self._by_id(self._aliases.get(self._default, ""))
            if entry is None:
                raise ModelNotFoundError(f"model {self._default!r} not found; known: {self._known()}", param="model")
            return entry
        if self._extra and self._extra[0] in self.rejected:
            raise InvalidModelError(self.rejected[self._extra[0]])
        if not self._entries:
            raise ModelNotFoundError(f"there is no model; put a GGUF file into {self.models_dir}", param="model")
        return next(iter(self._entries.values()))

    def refresh(self) -> None:
        """Look at the folder again. Files whose size and time have not changed are not read again."""
        entries: dict[str, CatalogueEntry] = {}
        rejected: dict[Path, str] = {}
        scanned: dict[Path, tuple[Signature, ModelMetadata | str]] = {}
        seen: set[Path] = set()
        for wanted, path, source in self._candidates():
            if (real := Path(os.path.realpath(path))) in seen:
                continue
            seen.add(real)
            scanned[path] = signature, result = self._scan(path)
            if isinstance(result, str):
                rejected[path] = result
                continue
            name = _free(wanted, entries)
            entries[name] = CatalogueEntry(
                id=name, path=path, metadata=result, created=signature[0][1] // 10**9, source=source
            )
        self.rejected, self._scanned = rejected, scanned
        self._publish(entries)
        self._publish(self._with_aliases(entries))
        self._refreshed = time.monotonic()

    def _publish(self, entries: dict[str, CatalogueEntry]) -> None:
        self._entries, self._lowered = entries, {name.lower(): entry for name, entry in entries.items()}

    def _candidates(self) -> Iterator[tuple[str, Path, Source]]:
        """In order of precedence: the id each file would like, the file, where it came from."""
        folder = sorted(walk(self.models_dir), key=lambda path: path.as_posix().lower())
        ids = {os.path.realpath(path): id_of(path.relative_to(self.models_dir)) for path in folder}
        for path in self._extra:
            yield ids.get(os.path.realpath(path), id_of(Path(path.name))), path, "flag"
        for path in folder:
            yield ids[os.path.realpath(path)], path, "folder"
        if self._embedded.is_file():
            yield id_of(Path(self._embedded.name)), self._embedded, "embedded"

    def _scan(self, path: Path) -> tuple[Signature, ModelMetadata | str]:
        """The metadata, or why there is none."""
        signature = signature_of(path)
        known = self._scanned.get(path)
        if known and known[0] == signature:
            return known
        try:
            metadata = read_metadata(path)
        except InvalidModelError as error:
            return signature, error.message
        if not metadata.tensor_count:
            return signature, f"{path.name}: holds a vocabulary only, no tensors"
        return signature, metadata

    def _find(self, name: str) -> CatalogueEntry | None:
        for candidate in (name, name.removesuffix(":latest")):
            entry = self._entries.get(candidate) or self._by_alias(candidate) or self._by_id(candidate)
            if entry is not None:
                return entry
        return None

    def _by_id(self, name: str) -> CatalogueEntry | None:
        return self._entries.get(name) or self._lowered.get(name.lower())

    def _by_alias(self, name: str) -> CatalogueEntry | None:
        target = DEFAULT_MODEL if name == DEFAULT_MODEL else self._aliases.get(name)
        if target is None:
            return None
        entry = self._by_id(target)
        if entry is None and target == DEFAULT_MODEL:
            with suppress(ModelNotFoundError, InvalidModelError):
                return self.default()
        return entry

    def _with_aliases(self, entries: Mapping[str, CatalogueEntry]) -> dict[str, CatalogueEntry]:
        names: dict[str, list[str]] = {}
        for alias in self._aliases:
            if entry := self._by_alias(alias):
                names.setdefault(entry.id, []).append(alias)
        return {
            name: msgspec.structs.replace(entry, aliases=tuple(names[name])) if name in names else entry
            for name, entry in entries.items()
        }

    def _known(self) -> str:
        return ", ".join([*self._entries, *self._aliases]) or "none"


def _free(wanted: str, taken: Mapping[str, CatalogueEntry]) -> str:
    """`wanted`, or with a number behind it when another file has that id."""
    lowered = {name.lower() for name in taken}
    return next(name for name in chain([wanted], (f"{wanted}-{n}" for n in count(2))) if name.lower() not in lowered)


def _is_path(named: str, path: Path) -> bool:
    return named.lower().endswith(".gguf") or named.startswith(("/", "./", "../", "~")) or path.is_file()
