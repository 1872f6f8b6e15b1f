"""What has happened to servers of this kind must not happen to this one.

| threat | tests |
|---|---|
| a model's chat template run in an unsandboxed Jinja | tests/fidelity/test_templates.py::test_what_a_template_refuses_is_the_callers_error, tests/fidelity/test_templates.py::test_a_template_that_does_not_parse_is_an_error_when_the_model_is_loaded, tests/faults/test_threats.py::test_a_template_reaches_nothing_of_python, tests/worker/test_supervision.py::test_a_template_that_never_ends_costs_its_own_worker_alone |
| GGUF sizes that overflow, token lengths cast to int32, tensor extents beyond the file | tests/models/test_gguf_header.py::test_absurd_numbers_anywhere, tests/models/test_gguf_header.py::test_flipped_bytes, tests/models/test_gguf_header.py::test_every_truncation_is_refused, tests/models/test_gguf_header.py::test_pipe, tests/models/test_gguf_header.py::test_device, tests/worker/test_supervision.py::test_a_file_that_is_no_model_is_the_reason_not_to_come_up, tests/worker/test_residency.py::test_a_broken_model_fails_its_own_requests_and_takes_no_place |
| a prompt that overflows the tokeniser | tests/http/test_bad_requests.py::test_ten_megabytes_of_text_are_answered, tests/faults/test_threats.py::test_a_text_longer_than_the_tokeniser_takes_is_refused_before_it |
| a negative engine parameter from JSON | tests/faults/test_threats.py::test_no_field_of_a_request_reaches_the_engine_unchecked, tests/http/test_bad_requests.py::test_the_wrong_field_is_named |
| unload races with use | tests/worker/test_residency.py::test_a_model_in_use_is_not_unloaded_and_who_needs_its_place_waits, tests/worker/test_residency.py::test_models_that_take_turns_answer_every_request_as_themselves, tests/worker/test_residency.py::test_two_requests_at_once_load_a_model_once |
| a hostile KV state file | tests/faults/test_threats.py::test_no_route_and_no_flag_reads_a_state_from_outside |
| grammar and regex recursion; grammars that fail open | tests/faults/test_threats.py::test_a_constraint_made_to_exhaust_is_refused_or_enforced, tests/http/test_constraints.py::test_a_schema_as_deep_as_the_sea_is_refused, tests/http/test_constraints.py::test_what_cannot_be_enforced_is_refused_by_name |
| ggml RPC | tests/faults/test_threats.py::test_there_is_no_rpc_in_this_build |
| bad media gives NULL; media URLs as SSRF | not built yet: tests/faults/test_threats.py::test_media_are_refused_and_their_addresses_are_not_visited |
| digest and path traversal, file probing, zip slip | tests/faults/test_threats.py::test_a_model_is_named_by_its_id_and_never_by_a_path, tests/models/test_catalogue.py::test_symlinked_folders_are_not_followed |
| token theft on redirect, pulls to anywhere | not built yet: tests/faults/test_threats.py::test_nothing_is_pulled |
| DNS rebinding; CORS that reflects any origin | tests/http/test_guards.py::test_a_rebound_name_is_refused, tests/http/test_guards.py::test_foreign_pages_get_nothing_done |
| an open server | tests/test_config.py::test_an_open_bind_needs_a_key_or_a_word |
| timing of a shared prefix cache tells one tenant what another sent | tests/http/test_queue.py::test_one_key_does_not_see_what_another_has_cached, tests/engine/test_engine.py::test_another_namespace_shares_nothing |
| one abort, out-of-memory or hang takes the server | tests/worker/test_supervision.py::test_a_worker_that_hangs_is_killed_and_replaced, tests/worker/test_supervision.py::test_a_worker_that_never_comes_up_is_given_up_with_how_it_ended, tests/worker/test_supervision.py::test_the_pauses_grow_and_requests_wait_or_are_told_for_how_long, tests/faults/test_load.py::test_a_worker_killed_under_sixteen_streams_costs_them_and_nobody_else |
| bodies, headers, connections without limit | tests/http/test_limits.py::test_a_body_without_end_is_cut_off_at_the_limit, tests/http/test_limits.py::test_headers_have_a_limit, tests/faults/test_load.py::test_connections_beyond_the_limit_are_refused_and_those_within_it_are_served, tests/faults/test_load.py::test_three_hundred_clients_on_four_slots_get_their_answer_or_429 |
| keys and prompts in logs | tests/http/test_guards.py::test_the_log_has_neither_key_nor_prompt, tests/observability/test_logging.py::test_keys_are_never_logged, tests/test_config.py::test_api_keys_plain_hashed_and_from_a_file |
"""  # noqa: E501

from __future__ import annotations

import ast
import json
import re
import socket
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from served import Server

from minerva import _core
from minerva.config import Settings
from minerva.errors import MinervaError, RequestError
from minerva.models.catalogue import EMBEDDED, Catalogue
from minerva.models.residency import Residency
from minerva.server.app import create_app

from .conftest import HELLO, answered, worker_of

ROOT = Path(__file__).parents[2]
assert __doc__ is not None
ROWS = [line.strip("| ").split(" | ") for line in __doc__.splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize(("threat", "covered"), ROWS, ids=[threat[:40] for threat, _ in ROWS])
def test_every_threat_has_tests_that_exist(threat: str, covered: str) -> None:
    nodes = re.findall(r"(tests/\S+\.py)::(\w+)", covered)
    assert nodes
    for path, name in nodes:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}, path


def test_a_text_longer_than_the_tokeniser_takes_is_refused_before_it() -> None:
    vocab = _core.Model(str(EMBEDDED), vocab_only=True).vocab
    with pytest.raises(RequestError, match="longer than the tokeniser takes"):
        vocab.tokenize(b"x" * (_core.MAX_TEXT_BYTES + 1))


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ self.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os.system('true') }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    ],
)
def test_a_template_reaches_nothing_of_python(source: str) -> None:
    model = _core.Model(str(EMBEDDED), vocab_only=True)
    try:
        shown = _core.ChatTemplate(model, source).render({"messages": HELLO}).prompt
    except MinervaError:
        return
    for secret in (b"class", b"root:", b"uid=", b"function"):
        assert secret not in shown


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize(
    "name", ["n_ctx", "n_keep", "n_discard", "n_gpu_layers", "id_slot", "n_probs", "repeat_last_n"]
)
@pytest.mark.parametrize("value", [-1, -(2**63), 2**63])
async def test_no_field_of_a_request_reaches_the_engine_unchecked(
    server: Server, http: aiohttp.ClientSession, name: str, value: int
) -> None:
    worker = worker_of(server)
    async with http.post("/v1/chat/completions", json={"messages": HELLO, "max_tokens": 4, name: value}) as response:
        assert response.status in (200, 400)
        if response.status == 400:
            assert (await response.json())["error"]["param"] == name
    assert worker_of(server) == worker


EXHAUSTING: dict[str, Any] = {
    "nested groups": {"guided_regex": "(" * 20_000 + "a" + ")" * 20_000},
    "repeated repeats": {"guided_regex": "((((a{1,1000}){1,1000}){1,1000}){1,1000})"},
    "a huge count": {"guided_regex": "a{2000000000}"},
    "backtracking": {"guided_regex": "(a+)+(a+)+(a+)+b"},
    "left recursion": {"grammar": 'root ::= root "a" | root root'},
    "nested rules": {"grammar": "root ::= " + "(" * 20_000 + '"a"' + ")" * 20_000},
    "an endless empty loop": {"grammar": 'root ::= (""*)*'},
    "repeated rules": {"grammar": 'root ::= a{1,100000}\na ::= b{1,100000}\nb ::= "x"{1,100000}'},
    "a schema of itself": {"schema": {"$ref": "#"}},
    "a deep schema": {"schema": json.loads('{"properties":{"a":' * 150 + "{}" + "}}" * 150)},
    "a crowd of choices": {"schema": {"anyOf": [{"type": "string", "pattern": f"^{i}+$"} for i in range(3000)]}},
    "huge bounds": {"schema": {"type": "array", "minItems": 2**62, "maxItems": 2**63 - 1}},
}


@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("bomb", EXHAUSTING.values(), ids=EXHAUSTING.keys())
async def test_a_constraint_made_to_exhaust_is_refused_or_enforced(
    server: Server, http: aiohttp.ClientSession, bomb: dict[str, Any]
) -> None:
    worker = worker_of(server)
    body: dict[str, Any] = {"messages": HELLO, "max_tokens": 8, **bomb}
    if schema := body.pop("schema", None):
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "bomb", "schema": schema}}
    async with http.post("/v1/chat/completions", json=body) as response:
        found = await response.json()
        if response.status == 500:  # it was found too large only while it was followed: closed all the same
            assert found["error"]["message"].startswith("the constraint cannot go on")
        else:
            assert response.status in (200, 400), found
    assert worker_of(server) == worker, "the worker has died of it"
    assert await answered(http)


def test_there_is_no_rpc_in_this_build() -> None:
    assert _core.__file__ is not None
    assert b"ggml_backend_rpc" not in Path(_core.__file__).read_bytes()
    assert not [name for name in Settings.model_fields if "rpc" in name]


@pytest.fixture
def routes(tmp_path: Path) -> set[str]:
    settings = Settings(models_dir=tmp_path)
    catalogue = Catalogue.of(settings)
    app = create_app(settings, catalogue, Residency(catalogue, settings))
    return {resource.canonical for resource in app.router.resources()}


def test_no_route_and_no_flag_reads_a_state_from_outside(routes: set[str]) -> None:
    assert not [route for route in routes if re.search("slot|save|restore|session|state", route)]
    assert not [name for name in Settings.model_fields if re.search("slot|save|session|state", name)]


def test_nothing_is_pulled(routes: set[str]) -> None:
    """When something is, its row above gets its own tests: hosts, redirects, digests, interrupted and double pulls."""
    assert not [route for route in routes if re.search("pull|push|create|blobs|copy", route)]


async def test_media_are_refused_and_their_addresses_are_not_visited(http: aiohttp.ClientSession, idle: Any) -> None:
    with socket.socket() as internal:
        internal.bind(("127.0.0.1", 0))
        internal.listen()
        internal.settimeout(0.2)
        url = f"http://127.0.0.1:{internal.getsockname()[1]}/secret.png"
        parts = [
            {"type": "image_url", "image_url": {"url": u}} for u in (url, "file:///etc/passwd", "data:image/png,x")
        ]
        parts.append({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}})
        for part in parts:
            body = {"messages": [{"role": "user", "content": [part]}], "max_tokens": 4}
            async with http.post("/v1/chat/completions", json=body) as response:
                assert response.status == 400, await response.text()
        with pytest.raises(TimeoutError):
            internal.accept()


@pytest.mark.parametrize(
    "name",
    ["../models/x", "/etc/passwd", "..%2f..%2fetc/passwd", "%2e%2e/%2e%2e/etc/passwd", "sha256-../../x", "a\x00b", "."],
)
async def test_a_model_is_named_by_its_id_and_never_by_a_path(http: aiohttp.ClientSession, name: str) -> None:
    """And whether a file is there cannot be told from the answer."""
    messages = []
    for asked in (name, str(EMBEDDED), str(EMBEDDED) + ".not-there"):
        async with http.post("/v1/chat/completions", json={"messages": HELLO, "model": asked}) as response:
            found = (await response.json())["error"]
            assert (response.status, found["code"]) == (404, "model_not_found")
            messages.append(found["message"].replace(repr(asked), "it"))
    assert len(set(messages)) == 1
    async with http.get(f"/v1/models/{name}".replace("\x00", "%00")) as response:
        assert response.status in (400, 404)
