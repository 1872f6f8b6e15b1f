"""Constrained sampling: whatever is drawn, the answer matches."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from minerva._core import Grammar, Sampler
from minerva.engine.constraints import ConstraintCompiler
from minerva.engine.messages import Constraint, ConstraintKind
from minerva.engine.params import SamplingParams
from minerva.errors import RequestError
from tests.core.driving import PROMPT, Driver

SCHEMAS: dict[str, dict[str, Any]] = {
    "person": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "role": {"enum": ["admin", "user", "gäst"]},
        },
        "required": ["name", "age", "role"],
        "additionalProperties": False,
    },
    "list": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4},
    "nested": {
        "type": "object",
        "properties": {
            "point": {"$ref": "#/$defs/point"},
            "tag": {"anyOf": [{"type": "null"}, {"const": "x"}]},
        },
        "required": ["point", "tag"],
        "additionalProperties": False,
        "$defs": {
            "point": {
                "type": "object",
                "properties": {a: {"type": "integer", "minimum": -9, "maximum": 9} for a in "xy"},
                "required": ["x", "y"],
                "additionalProperties": False,
            }
        },
    },
}

SAMPLING: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "defaults": {},
    "hot": {"temperature": 2.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0},
    "penalised": {"temperature": 1.0, "repeat_penalty": 1.5, "top_k": 40},
}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """As much of JSON Schema as the tests use."""
    if "$ref" in schema:
        return fits(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return any(fits(value, each, root) for each in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return value in schema.get("enum", [schema.get("const")])
    if schema["type"] == "object":
        return set(value) == set(schema["required"]) and all(
            fits(value[key], each, root) for key, each in schema["properties"].items()
        )
    if schema["type"] == "array":
        return schema["minItems"] <= len(value) <= schema["maxItems"] and all(
            fits(each, schema["items"], root) for each in value
        )
    if schema["type"] == "integer":
        return type(value) is int and schema["minimum"] <= value <= schema["maximum"]
    if schema["type"] == "string":
        return isinstance(value, str) and len(value) <= schema["maxLength"]
    return {"boolean": bool, "null": type(None)}[schema["type"]] is type(value)


@pytest.fixture(scope="module")
def compiler(model: Any) -> ConstraintCompiler:
    return ConstraintCompiler(model.vocab)


def constrained(
    driver: Driver, compiler: ConstraintCompiler, constraint: Constraint, seed: int, **sampling: Any
) -> str:
    """A whole answer, its tokens masked as the engine masks them; fails when it does not end."""
    allowed = compiler.compile(constraint)
    sampler = Sampler(driver.model.vocab, SamplingParams(**sampling), seed=seed, mask=allowed.mask)
    tokens, text = list(PROMPT), ""
    driver.context.remove(0)
    for _ in range(300):
        allowed.fill()
        token, piece, ending = driver.sample(0, tokens, sampler)
        assert ending >= 0, sampler.error
        text += piece
        if ending:
            return text
        allowed.accept(token)
        tokens.append(token)
    raise AssertionError(f"the answer did not end: {text}")


@pytest.mark.parametrize("name", list(SCHEMAS))
@pytest.mark.parametrize("sampling", list(SAMPLING))
def test_an_answer_under_a_schema_is_json_that_fits_it(
    make: Callable[..., Driver], compiler: ConstraintCompiler, name: str, sampling: str
) -> None:
    schema = SCHEMAS[name]
    constraint = Constraint("json_schema", json.dumps(schema))
    for seed in range(4):
        text = constrained(make(), compiler, constraint, seed, **SAMPLING[sampling])
        assert fits(json.loads(text), schema, schema), text


@pytest.mark.parametrize(
    ("kind", "source", "pattern"),
    [
        ("regex", r"[a-c]{3,5}[0-9]", r"[a-c]{3,5}[0-9]"),
        ("choice", '["yes", "no", "gäst"]', "yes|no|gäst"),
        ("grammar", 'root ::= item (", " item){2}\nitem ::= [α-ω] [東京]', r"[α-ω][東京](, [α-ω][東京]){2}"),
    ],
)
def test_an_answer_under_a_constraint_matches_it(
    make: Callable[..., Driver], compiler: ConstraintCompiler, kind: ConstraintKind, source: str, pattern: str
) -> None:
    constraint, wild = Constraint(kind, source), SAMPLING["hot"] | {"temperature": 3.0}
    texts = {constrained(make(), compiler, constraint, seed, **wild) for seed in range(8)}
    assert all(re.fullmatch(pattern, text) for text in texts), texts
    assert len(texts) > 1


@pytest.mark.parametrize(
    ("source", "pattern"),
    [
        ('root ::= "yes" | "no"', r"yes|no"),
        ("root ::= [a-c]{3,5} [0-9]", r"[a-c]{3,5}[0-9]"),
        ('root ::= item (", " item){2}\nitem ::= [α-ω] [東京]', r"[α-ω][東京](, [α-ω][東京]){2}"),
    ],
)
def test_an_answer_under_a_grammar_matches_it(make: Callable[..., Driver], source: str, pattern: str) -> None:
    driver = make()
    texts = set()
    for seed in range(8):
        sampler = Sampler(driver.model.vocab, SamplingParams(temperature=2.0), seed=seed, grammar=Grammar(source))
        _, text, ending = driver.generate(PROMPT, sampler, 64)
        assert ending == 1
        assert re.fullmatch(pattern, text), text
        texts.add(text)
    assert len(texts) > 1


def test_one_grammar_serves_many_answers(make: Callable[..., Driver]) -> None:
    driver = make()
    grammar = Grammar('root ::= "one" | "two"')
    samplers = [Sampler(driver.model.vocab, SamplingParams(), seed=i, grammar=grammar) for i in range(4)]
    assert all(driver.generate(PROMPT, sampler, 16)[1] in ("one", "two") for sampler in samplers)


@pytest.mark.parametrize(
    "source",
    ["root", 'root ::= "a', "root ::= nothing", "root ::= [a-", 'start ::= "a"', 'root ::= root "a"',
     'root ::= "a"{99999999}', "root ::= ("],
)  # fmt: skip
def test_a_grammar_that_does_not_parse_is_the_callers_error(model: Any, source: str) -> None:
    with pytest.raises(RequestError, match="grammar") as refused:
        Sampler(model.vocab, SamplingParams(), grammar=Grammar(source))
    assert refused.value.param == "grammar"


@pytest.mark.parametrize(
    ("kind", "source", "param"),
    [("json_schema", '{"type": "nonsense"}', "response_format"),
     ("json_schema", '{"$ref": "#/$defs/missing"}', "response_format"),
     ("json_schema", '{"a":' * 100 + "1" + "}" * 100, "response_format"),
     ("regex", "(", "guided_regex"), ("grammar", "root ::= (", "grammar"), ("grammar", "root ::= nothing", "grammar")],
)  # fmt: skip
def test_a_constraint_that_cannot_be_enforced_is_the_callers_error(
    compiler: ConstraintCompiler, kind: ConstraintKind, source: str, param: str
) -> None:
    with pytest.raises(RequestError) as refused:
        compiler.compile(Constraint(kind, source))
    assert refused.value.param == param
