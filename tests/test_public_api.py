"""The package's surface: the names it promises, and what importing it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import minerva
from minerva import errors

DOCUMENTED = {
    "LLM",
    "AsyncLLM",
    "Chunk",
    "Completion",
    "ContextLengthError",
    "EngineError",
    "InvalidModelError",
    "MinervaError",
    "ModelLoadError",
    "OverloadedError",
    "RequestError",
    "__version__",
}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60).stdout


def test_the_public_names_are_exactly_the_documented_ones() -> None:
    assert set(minerva.__all__) == DOCUMENTED
    assert sorted(minerva.__all__) == sorted(set(minerva.__all__)), "no name twice"
    for name in minerva.__all__:
        assert getattr(minerva, name) is not None


def test_nothing_else_is_there_without_an_underscore_but_modules() -> None:
    public = run(
        "import minerva, types\n"
        "print(*(n for n, v in vars(minerva).items() if not n.startswith('_') and not isinstance(v, types.ModuleType)))"
    )
    assert (
        set(public.split()) - {"annotations", "TYPE_CHECKING", "Any", "PackageNotFoundError", "version"} <= DOCUMENTED
    )


def test_every_public_class_says_what_it_is() -> None:
    for name in DOCUMENTED - {"__version__"}:
        made = getattr(minerva, name)
        if not (inspect.isclass(made) and issubclass(made, minerva.MinervaError)) or made is minerva.MinervaError:
            assert made.__doc__, name


def test_importing_minerva_loads_no_native_code() -> None:
    heavy = run(
        "import sys, minerva, minerva.errors\n"
        "print([m for m in ('minerva._core', 'numpy', 'aiohttp', 'minerva.engine.engine') if m in sys.modules])"
    )
    assert heavy.strip() == "[]"


def test_the_first_use_of_llm_loads_it() -> None:
    assert run("import sys, minerva\nminerva.LLM\nprint('minerva._core' in sys.modules)").strip() == "True"


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="Llama"):
        minerva.Llama  # noqa: B018


def test_one_handler_catches_every_error_and_each_knows_its_status() -> None:
    for error in errors.BY_NAME.values():
        assert issubclass(error, minerva.MinervaError)
        assert 400 <= error.status < 600
        assert error.code
        assert error.code in (errors.__doc__ or "") or error.code == "config_error"


def test_the_version_is_that_of_the_installed_package() -> None:
    from importlib.metadata import version

    assert minerva.__version__ == version("minerva-llm")
