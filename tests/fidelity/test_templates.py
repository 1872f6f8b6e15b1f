"""Chat templates through libcommon: the prompt a model was trained to read, and its answers taken apart again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from minerva._core import ChatTemplate, Model, RenderedPrompt, Sampler
from minerva.engine.params import SamplingParams
from minerva.errors import ModelLoadError, RequestError
from tests.conftest import LLAMA_TREE
from tests.core.driving import PROMPT, Driver

TEMPLATES = LLAMA_TREE / "models" / "templates"

SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "Bye"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "Its name."}},
            "required": ["city"],
        },
    },
}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def model(load_model: Callable[..., Any]) -> Model:
    """BOS `<s>`, EOS `</s>`, and a tokeniser that puts the BOS itself: a template's own is left out."""
    return load_model()


@pytest.fixture(scope="module")
def template(model: Model) -> Callable[[str], ChatTemplate]:
    made: dict[str, ChatTemplate] = {}

    def of(name: str) -> ChatTemplate:
        if name not in made:
            made[name] = ChatTemplate(model, (TEMPLATES / f"{name}.jinja").read_text())
        return made[name]

    return of


def turns(begin: str, end: str, assistant: str = "assistant") -> str:
    """SYSTEM and TALK where each turn is `begin` (with a role), its text, `end`."""
    said = [("system", "Be brief."), ("user", "Hi"), (assistant, "Hello!"), ("user", "Bye")]
    return "".join(begin.format(role) + text + end for role, text in said) + begin.format(assistant)


CHATML = turns("<|im_start|>{}\n", "<|im_end|>\n")
LLAMA3 = turns("<|start_header_id|>{}<|end_header_id|>\n\n", "<|eot_id|>").replace(
    "Be brief.", "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nBe brief."
)
PROMPTS = {
    "Qwen-Qwen2.5-7B-Instruct": CHATML,
    "Qwen-Qwen3-0.6B": CHATML,
    "Qwen-QwQ-32B": CHATML + "<think>\n",
    "Qwen3-Coder": CHATML,
    "Qwen3.5-4B": CHATML + "<think>\n",
    "LFM2-8B-A1B": CHATML,
    "MiMo-VL": CHATML,
    "meta-llama-Llama-3.1-8B-Instruct": LLAMA3,
    "meta-llama-Llama-3.2-3B-Instruct": LLAMA3,
    "meta-llama-Llama-3.3-70B-Instruct": LLAMA3,
    "mistralai-Mistral-Nemo-Instruct-2407": "[INST]Hi[/INST]Hello!</s>[INST]Be brief.\n\nBye[/INST]",
    "Mistral-Small-3.2-24B-Instruct-2506":
        "[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST]Hello!</s>[INST]Bye[/INST]",
    "unsloth-mistral-Devstral-Small-2507":
        "[SYSTEM_PROMPT]Be brief.[/SYSTEM_PROMPT][INST]Hi[/INST]Hello!</s>[INST]Bye[/INST]",
    # No role for a system prompt: it goes into the first user turn.
    "google-gemma-2-2b-it": turns("<start_of_turn>{}\n", "<end_of_turn>\n", "model").replace(
        "<start_of_turn>system\nBe brief.<end_of_turn>\n<start_of_turn>user\n", "<start_of_turn>user\nBe brief.\n"),
    "google-gemma-4-31B-it": turns("<|turn>{}\n", "<turn|>\n", "model").replace("Be brief.", "<|think|>\nBe brief."),
    "microsoft-Phi-3.5-mini-instruct": turns("<|{}|>\n", "<|end|>\n"),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B":
        "Be brief.<｜User｜>Hi<｜Assistant｜>Hello!<｜end▁of▁sentence｜><｜User｜>Bye<｜Assistant｜><think>\n",
    "deepseek-ai-DeepSeek-V3.1":
        "Be brief.<｜User｜>Hi<｜Assistant｜><think></think>Hello!<｜end▁of▁sentence｜><｜User｜>Bye<｜Assistant｜>"
        "<think>",
    "ibm-granite-granite-4.0": turns("<|start_of_role|>{}<|end_of_role|>", "<|end_of_text|>\n"),
    "Kimi-K2-Instruct": turns("<|im_{0}|>{0}<|im_middle|>", "<|im_end|>"),
    "GLM-4.6": "[gMASK]<sop><|system|>\nBe brief.<|user|>\nHi<|assistant|>\n<think></think>\nHello!<|user|>\nBye"
        "<|assistant|>",
    "llama-cpp-rwkv-world": "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello!\n\nUser: Bye\n\nAssistant: <think>",
}  # fmt: skip


@pytest.mark.parametrize("name", list(PROMPTS))
def test_a_conversation_becomes_the_prompt_the_model_was_trained_on(
    template: Callable[[str], ChatTemplate], name: str
) -> None:
    fixed = {"date_string": json.dumps("26 Jul 2024")}
    rendered = template(name).render({"messages": [SYSTEM, *TALK], "template_kwargs": fixed})
    assert rendered.prompt.decode() == PROMPTS[name]
    assert rendered.grammar is None


def test_every_template_of_the_tree_renders_a_plain_conversation(template: Callable[[str], ChatTemplate]) -> None:
    names = sorted(path.stem for path in TEMPLATES.glob("*.jinja"))
    assert len(names) > 60
    for name in names:
        prompt = template(name).render({"messages": [SYSTEM, *TALK]}).prompt.decode()
        places = [prompt.find(text) for text in ("Hi", "Hello!", "Bye")]
        assert -1 not in places, name
        assert "Be brief." in prompt, name
        assert prompt.rfind("Hello!") < prompt.rfind("Bye"), name


def test_the_models_own_template_is_used_when_none_is_given(model: Model) -> None:
    own = ChatTemplate(model)
    assert "<|im_start|>" in own.source
    assert own.render({"messages": [SYSTEM, *TALK]}).prompt.decode() == CHATML


def test_without_a_generation_prompt_the_prompt_ends_with_the_last_turn(
    template: Callable[[str], ChatTemplate],
) -> None:
    rendered = template("Qwen-Qwen3-0.6B").render({"messages": TALK, "add_generation_prompt": False})
    assert rendered.prompt.endswith(b"Bye<|im_end|>\n")


def test_thinking_can_be_switched_off_where_the_template_can(template: Callable[[str], ChatTemplate]) -> None:
    off = template("Qwen-Qwen3-0.6B").render({"messages": TALK, "enable_thinking": False})
    assert off.prompt.endswith(b"<|im_start|>assistant\n<think>\n\n</think>\n\n")
    off = template("deepseek-ai-DeepSeek-V3.1").render({"messages": TALK, "enable_thinking": False})
    assert off.prompt.decode().endswith("<｜Assistant｜></think>") or off.prompt.endswith(b"<think></think>")


def test_text_parts_are_text(template: Callable[[str], ChatTemplate]) -> None:
    parts = [{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}]
    prompt = template("Qwen-Qwen2.5-7B-Instruct").render({"messages": parts}).prompt.decode()
    assert "Hel" in prompt
    assert "lo<|im_end|>" in prompt


def test_what_a_template_refuses_is_the_callers_error(template: Callable[[str], ChatTemplate]) -> None:
    swapped = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(RequestError, match="alternate") as refused:
        template("mistralai-Mistral-Nemo-Instruct-2407").render({"messages": swapped})
    assert refused.value.param == "messages"


@pytest.mark.parametrize(
    "messages",
    [[{"role": "user"}], [{"content": "x"}], ["hello"], [{"role": "user", "content": 5}], {"role": "user"}, "\ud800"],
    ids=["no content", "no role", "no dict", "a number", "no list", "half a character"],
)
def test_messages_of_a_wrong_shape_are_the_callers_error(
    template: Callable[[str], ChatTemplate], messages: Any
) -> None:
    with pytest.raises(RequestError) as refused:
        template("Qwen-Qwen3-0.6B").render({"messages": messages})
    assert refused.value.param == "messages"


def test_a_template_that_does_not_parse_is_an_error_when_the_model_is_loaded(model: Model) -> None:
    with pytest.raises(ModelLoadError, match="template"):
        ChatTemplate(model, "{% for message in messages %}")


HERMES = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
CODER = "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n</function>\n</tool_call>"
CALL_JSON = '{"name": "get_weather", "parameters": {"city": "Paris"}}'

# An answer as the model writes it (its template may have begun it), then the content and the reasoning in it.
ANSWERS: dict[str, tuple[str, str, str]] = {
    "Qwen-Qwen2.5-7B-Instruct": ("Let me look.\n" + HERMES, "Let me look.", ""),
    "Qwen-Qwen3-0.6B": ("<think>\nHm.\n</think>\n\nLet me look.\n" + HERMES, "Let me look.", "Hm."),
    "Qwen-QwQ-32B": ("Hm.\n</think>\n\n" + HERMES, "", "Hm."),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": (HERMES, "", ""),
    "ibm-granite-granite-4.0": (HERMES, "", ""),
    "Qwen3-Coder": ("Let me look.\n" + CODER, "Let me look.", ""),
    "Qwen3.5-4B": ("Hm.\n</think>\n\n" + CODER, "", "Hm."),
    "meta-llama-Llama-3.1-8B-Instruct": (CALL_JSON, "", ""),
    "meta-llama-Llama-3.3-70B-Instruct": (CALL_JSON, "", ""),
    "mistralai-Mistral-Nemo-Instruct-2407": (
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "123456789"}]', "", ""),
    "unsloth-mistral-Devstral-Small-2507": ('[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}', "", ""),
    "deepseek-ai-DeepSeek-V3.1": (
        "Hm.</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"
        '{"city": "Paris"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>', "", "Hm."),
    "Kimi-K2-Instruct": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>"
        '{"city": "Paris"}<|tool_call_end|><|tool_calls_section_end|>', "", ""),
    "openai-gpt-oss-120b": (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary to=functions.get_weather "
        '<|constrain|>json<|message|>{"city": "Paris"}', "", "Hm."),
    "GLM-4.6": (
        "\n<think>Hm.</think>\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
        "</tool_call>", "", "Hm."),
    "CohereForAI-c4ai-command-r7b-12-2024-tool_use": (
        '<|START_THINKING|>Hm.<|END_THINKING|><|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "get_weather", '
        '"parameters": {"city": "Paris"}}\n]<|END_ACTION|>', "", "Hm."),
    "LFM2-8B-A1B": ('<|tool_call_start|>[get_weather(city="Paris")]<|tool_call_end|>', "", ""),
    "MiniMax-M2": (
        'Hm.\n</think>\n\n<minimax:tool_call>\n<invoke name="get_weather">\n<parameter name="city">Paris</parameter>\n'
        "</invoke>\n</minimax:tool_call>", "", "Hm."),
    "google-gemma-4-31B-it": ('<|tool_call>call:get_weather{city:<|"|>Paris<|"|>}<tool_call|>', "", ""),
}  # fmt: skip
HIDDEN = {"deepseek-ai-DeepSeek-V3.1"}
"""Their templates have no place for tools: libcommon knows how they are called, the caller says what there is."""


def read(rendered: RenderedPrompt, pieces: list[str]) -> tuple[str, str, dict[int, dict[str, str]]]:
    parser = rendered.parser()
    assert parser is not None
    content, reasoning, calls = "", "", {}
    for delta in [*(parser.push(piece) for piece in pieces), parser.push("", last=True)]:
        content += delta["content"]
        reasoning += delta["reasoning"]
        for call in delta["tool_calls"]:
            seen = calls.setdefault(call["index"], {"name": "", "arguments": ""})
            seen["name"] += call["name"]
            seen["arguments"] += call["arguments"]
    return content, reasoning, calls


@pytest.fixture(params=list(ANSWERS))
def named(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def with_tools(template: Callable[[str], ChatTemplate], named: str) -> RenderedPrompt:
    return template(named).render({"messages": QUESTION, "tools": [TOOL]})


def test_tools_are_in_the_prompt(with_tools: RenderedPrompt, named: str) -> None:
    assert (b"get_weather" in with_tools.prompt) is (named not in HIDDEN)


def test_an_answer_with_a_tool_call_is_taken_apart_the_same_whole_and_by_character(
    with_tools: RenderedPrompt, named: str
) -> None:
    text, content, reasoning = ANSWERS[named]
    for pieces in ([text], list(text), [text[:20], text[20:33], text[33:]]):
        seen, thought, calls = read(with_tools, pieces)
        assert (seen.strip(), thought.strip()) == (content, reasoning), "and no markup in either"
        assert list(calls) == [0]
        assert calls[0]["name"] == "get_weather"
        assert json.loads(calls[0]["arguments"]) == {"city": "Paris"}


def test_an_answer_without_a_call_is_content(with_tools: RenderedPrompt, named: str) -> None:
    before = {"openai-gpt-oss-120b": "<|channel|>final<|message|>"}.get(named, "")
    if with_tools.prompt.rstrip().endswith(b"<think>"):
        before = "Hm.</think>"
    seen, _, calls = read(with_tools, list(before + "It is sunny, 20 °C."))
    assert (seen.strip(), calls) == ("It is sunny, 20 °C.", {})


def test_whatever_the_model_writes_the_parser_gives_something(with_tools: RenderedPrompt, named: str) -> None:
    text, _, _ = ANSWERS[named]
    rng = random.Random(named)
    for _ in range(6):
        cuts = sorted(rng.randrange(len(text)) for _ in range(4))
        scraps = [text[: cuts[0]], text[cuts[1] : cuts[2]], text[cuts[3] :], "plain words ", "\n\n", "{", '"']
        rng.shuffle(scraps)
        read(with_tools, list("".join(scraps)))


LAZY = [name for name in ANSWERS if not name.startswith("meta-llama")]


@pytest.mark.parametrize("name", LAZY)
def test_with_tools_the_grammar_leaves_plain_text_alone(
    model: Model, template: Callable[[str], ChatTemplate], name: str
) -> None:
    auto = template(name).render({"messages": QUESTION, "tools": [TOOL]})
    assert auto.grammar is not None
    driver = Driver(model)
    free = SamplingParams(temperature=0.0)
    plain = driver.generate(PROMPT, Sampler(model.vocab, free), 16)[0]
    assert driver.generate(PROMPT, Sampler(model.vocab, free, grammar=auto.grammar), 16)[0] == plain


def test_a_required_call_is_well_formed_and_ends_the_answer(load_model: Callable[..., Any]) -> None:
    """The grammar lets a model talk before it calls: it is pushed over that edge, then left to itself."""
    model = load_model(arch="qwen2", qtype="q8_0", vocab="qwen2")  # knows ChatML's tokens
    choice = {"type": "object", "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}}, "required": ["unit"]}
    tool = {"type": "function", "function": {"name": "set_unit", "description": "", "parameters": choice}}
    source = (TEMPLATES / "Qwen-Qwen2.5-7B-Instruct.jinja").read_text()
    required = ChatTemplate(model, source).render({"messages": QUESTION, "tools": [tool], "tool_choice": "required"})
    opening = model.vocab.tokenize("<tool_call>\n")
    bias = {token: 1000.0 - 50.0 * i for i, token in enumerate(opening)} | {model.vocab.eos: 100.0}
    params = SamplingParams(logit_bias=bias, repeat_penalty=100.0, repeat_last_n=1024)  # each of them once
    driver = Driver(model)
    for seed in range(3):
        sampler = Sampler(model.vocab, params, seed=seed, grammar=required.grammar)
        _, text, ending = driver.generate(PROMPT, sampler, 300)
        assert ending == 1, text
        _, _, calls = read(required, [text])
        assert calls[0]["name"] == "set_unit"
        assert json.loads(calls[0]["arguments"])["unit"] in ("celsius", "fahrenheit")


def test_tool_choice_none_makes_no_calls_of_the_answer(template: Callable[[str], ChatTemplate]) -> None:
    none = template("Qwen-Qwen2.5-7B-Instruct").render({"messages": QUESTION, "tools": [TOOL], "tool_choice": "none"})
    _, _, calls = read(none, [HERMES])
    assert calls == {}


def test_calls_and_results_go_back_into_the_prompt(template: Callable[[str], ChatTemplate]) -> None:
    call = {
        "id": "abcdefghi",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    messages = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "20 degrees"},
    ]
    for name in ANSWERS:
        prompt = template(name).render({"messages": messages, "tools": [TOOL]}).prompt.decode()
        assert prompt.rfind("get_weather") < prompt.rfind("20 degrees"), name
        assert prompt.count("Paris") == (1 if name == "LFM2-8B-A1B" else 2), name  # LFM2's leaves the call out


def test_several_calls_in_one_answer_keep_their_order(template: Callable[[str], ChatTemplate]) -> None:
    rendered = template("Qwen-Qwen3-0.6B").render({"messages": QUESTION, "tools": [TOOL]})
    text = HERMES + "\n" + HERMES.replace("Paris", "東京")
    for pieces in ([text], list(text)):
        _, _, calls = read(rendered, pieces)
        assert [json.loads(calls[i]["arguments"])["city"] for i in (0, 1)] == ["Paris", "東京"]


def test_an_answer_without_tools_and_thinking_needs_no_parser(template: Callable[[str], ChatTemplate]) -> None:
    assert template("Qwen-Qwen2.5-7B-Instruct").render({"messages": TALK}).parser() is None
    assert template("Qwen-Qwen3-0.6B").render({"messages": TALK}).parser() is not None


def test_control_tokens_that_the_parser_reads_are_preserved(load_model: Callable[..., Any]) -> None:
    model = load_model(vocab="llama-bpe")
    source = (TEMPLATES / "meetkai-functionary-medium-v3.1.jinja").read_text()
    rendered = ChatTemplate(model, source).render({"messages": QUESTION, "tools": [TOOL]})
    assert b"<|eot_id|>" in {model.vocab.piece(token) for token in rendered.preserved_tokens}
