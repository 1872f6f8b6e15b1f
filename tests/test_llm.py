"""`from minerva import LLM`: the engine in the caller's own process."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from minerva import (
    LLM,
    AsyncLLM,
    Completion,
    ContextLengthError,
    InvalidModelError,
    MinervaError,
    ModelLoadError,
    RequestError,
)
from minerva.errors import UnsupportedError

OPTIONS: dict[str, Any] = {"ctx_size": 512, "kv_size": 2048, "parallel": 4, "threads": 1, "gpu_layers": 0}
HELLO = [{"role": "user", "content": "Hello!"}]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def path(model_file: Callable[..., Path]) -> Path:
    return model_file(arch="qwen3", qtype="q8_0")


@pytest.fixture(scope="module")
def llm(path: Path) -> Iterator[LLM]:
    with LLM(path, check_integrity=True, **OPTIONS) as made:
        yield made
        assert idle(made)


@pytest.fixture
async def async_llm(path: Path) -> AsyncIterator[AsyncLLM]:
    async with AsyncLLM(path, check_integrity=True, **OPTIONS) as made:
        yield made


def idle(llm: LLM | AsyncLLM, seconds: float = 5.0) -> bool:
    """Whether nothing is left to run, within some time."""
    engine = llm._local._loaded.engine
    deadline = time.monotonic() + seconds
    while engine.running or engine.waiting:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def generated(llm: LLM | AsyncLLM) -> int:
    return llm._local._loaded.engine.counters.generated_tokens


# One answer


def test_chat_answers_a_conversation(llm: LLM) -> None:
    done = llm.chat(HELLO, **GREEDY)
    assert done.text
    assert (done.finish_reason, done.completion_tokens) == ("length", 24)
    prompt = llm.tokenize("<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n", add_special=True)
    assert done.prompt_tokens == len(prompt)


def test_chat_is_generate_on_the_rendered_prompt(llm: LLM) -> None:
    prompt = "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n"
    assert llm.chat(HELLO, **GREEDY).text == llm.generate(prompt, **GREEDY).text


def test_generate_takes_text_or_its_tokens(llm: LLM) -> None:
    text = "Once upon a time"
    assert llm.generate(text, **GREEDY).text == llm.generate(llm.tokenize(text, add_special=True), **GREEDY).text


def test_a_stream_is_the_same_answer_in_pieces(llm: LLM) -> None:
    whole = llm.chat(HELLO, **GREEDY)
    chunks = list(llm.chat(HELLO, stream=True, **GREEDY))
    assert len(chunks) > 5
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert [chunk.finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert (
        "".join(chunk.text for chunk in llm.generate("Hi", stream=True, **GREEDY)) == llm.generate("Hi", **GREEDY).text
    )


def test_a_stream_gives_text_while_the_answer_is_still_being_made(llm: LLM) -> None:
    stream = llm.generate("Hi", stream=True, temperature=0, max_tokens=400, ignore_eos=True)
    before = generated(llm)
    next(stream)
    assert generated(llm) - before < 400
    stream.close()


def test_a_stream_that_is_abandoned_stops_being_made(llm: LLM) -> None:
    stream = llm.generate("Hi", stream=True, temperature=0, max_tokens=450, ignore_eos=True)
    for _ in range(3):
        next(stream)
    stream.close()
    assert idle(llm)
    count = generated(llm)
    time.sleep(0.1)
    assert generated(llm) == count


def test_a_stream_that_nobody_reads_is_freed_with_its_iterator(llm: LLM) -> None:
    stream = llm.generate("Hi", stream=True, temperature=0, max_tokens=450, ignore_eos=True)
    next(stream)
    del stream
    assert idle(llm)


def test_a_seed_gives_one_text_and_no_seed_gives_many(llm: LLM) -> None:
    options = {"temperature": 1.5, "max_tokens": 12}
    assert llm.generate("Hi", seed=4, **options).text == llm.generate("Hi", seed=4, **options).text
    assert len({llm.generate("Hi", **options).text for _ in range(4)}) > 1


def test_a_stop_string_ends_the_text_before_itself(llm: LLM) -> None:
    whole = llm.generate("Hi", **GREEDY).text
    stop = whole[10:14]
    for given in (stop, [stop, "never said"]):
        done = llm.generate("Hi", stop=given, **GREEDY)
        assert (done.text, done.finish_reason) == (whole[: whole.index(stop)], "stop")


def test_logprobs_come_with_every_token(llm: LLM) -> None:
    done = llm.generate("Hi", top_logprobs=3, **GREEDY)
    assert len(done.logprobs) == 24
    for each in done.logprobs:
        assert each.logprob <= 0
        assert each.top[0].token_id == each.token_id, "greedy: the likeliest"
        assert each.logprob == pytest.approx(each.top[0].logprob)
        assert len(each.top) == 3
        assert sum(math.exp(top.logprob) for top in each.top) <= 1.0001
    assert "".join(each.token for each in done.logprobs) == done.text


def test_the_answer_ends_where_the_context_does(llm: LLM) -> None:
    done = llm.generate("Hi", temperature=0, ignore_eos=True)
    assert done.finish_reason == "length"
    assert done.prompt_tokens + done.completion_tokens == llm.n_ctx == 512


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 1}, {"temperature": 2.0, "seed": 2}], ids=str)
def test_an_answer_can_be_held_to_a_schema(llm: LLM, options: dict[str, Any]) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}, "ok": {"type": "boolean"}},
        "required": ["n", "ok"],
        "additionalProperties": False,
    }
    for done in (
        llm.chat(HELLO, json_schema=schema, max_tokens=200, **options),
        llm.generate("Give me JSON: ", json_schema=schema, max_tokens=200, **options),
    ):
        assert done.finish_reason == "stop"
        answer = json.loads(done.text)
        assert 0 <= answer["n"] <= 99
        assert answer["ok"] in (True, False)


def test_an_answer_can_be_held_to_a_choice_a_regex_or_a_grammar(llm: LLM) -> None:
    assert llm.generate("Yes or no? ", choice=["yes", "no"], seed=1).text in ("yes", "no")
    assert llm.generate("A number: ", regex="[0-9]{4}", seed=1).text.isdigit()
    assert llm.generate("Say: ", grammar='root ::= "a"{3} "b"', seed=1).text == "aaab"
    with pytest.raises(RequestError, match="exclude each other"):
        llm.generate("x", choice=["a"], regex="b")


def test_tokens_and_text_go_back_and_forth(llm: LLM) -> None:
    ids = llm.tokenize("Hello, wörld 🦙!")
    assert llm.detokenize(ids).strip() == "Hello, wörld 🦙!"
    assert llm.tokenize("Hi", add_special=True)[1:] == llm.tokenize("Hi")


def test_a_repetitive_prompt_which_invites_guessing_gives_the_text_of_a_model_that_does_not_guess(path: Path) -> None:
    prompt = "one two three four five six seven eight. " * 8
    texts = []
    for speculate in (True, False):
        with LLM(path, speculate=speculate, **OPTIONS) as made:
            texts.append(made.generate(prompt, temperature=0, max_tokens=64, repeat_penalty=1.0).text)
    same = next((i for i in range(len(texts[0])) if texts[0][:i] != texts[1][:i]), len(texts[0]))
    assert same > 20, texts


def test_a_prompt_seen_before_comes_from_the_cache_and_changes_nothing(path: Path) -> None:
    prompt = "The same long beginning, again and again. " * 10
    with LLM(path, **OPTIONS) as made:
        first = made.generate(prompt, **GREEDY)
        again = made.generate(prompt, **GREEDY)
    assert (first.cached_tokens, again.cached_tokens > 50) == (0, True)
    assert again.prompt_tokens == first.prompt_tokens
    assert again.text[:8] == first.text[:8]


# Many


def test_a_batch_of_prompts_comes_back_in_order(llm: LLM) -> None:
    prompts = [f"Number {i}:" for i in range(9)]  # more than there are slots
    together = llm.generate(prompts, **GREEDY)
    alone = [llm.generate(prompt, **GREEDY) for prompt in prompts]
    assert [done.prompt_tokens for done in together] == [done.prompt_tokens for done in alone]
    assert [done.text[:4] for done in together] == [done.text[:4] for done in alone]
    assert all(done.completion_tokens == 24 for done in together)


def test_a_batch_cannot_be_streamed(llm: LLM) -> None:
    with pytest.raises(RequestError, match="batch"):
        llm.generate(["a", "b"], stream=True)


def test_threads_share_the_engine(llm: LLM) -> None:
    expected = {i: llm.generate(f"Thread {i}", **GREEDY).text for i in range(4)}
    before = llm._local._loaded.engine.counters.steps
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda i: llm.generate(f"Thread {i % 4}", **GREEDY).text, range(16)))
    assert all(text[:4] == expected[i % 4][:4] for i, text in enumerate(texts))
    assert llm._local._loaded.engine.counters.steps - before < 16 * 24, "no step was shared"


def test_more_than_the_cache_holds_at_once_all_get_their_answer(path: Path) -> None:
    with LLM(path, ctx_size=512, kv_size=512, parallel=4, threads=1, gpu_layers=0, check_integrity=True) as small:
        done = small.generate([f"Prompt {i}: " + "word " * 60 for i in range(6)], max_tokens=150, ignore_eos=True)
        assert [each.completion_tokens for each in done] == [150] * 6


# Asynchronously


async def test_the_async_twin_gives_the_same_answers(llm: LLM, async_llm: AsyncLLM) -> None:
    assert (await async_llm.chat(HELLO, **GREEDY)).text == llm.chat(HELLO, **GREEDY).text
    done = await async_llm.generate("Hi", **GREEDY)
    assert isinstance(done, Completion)
    assert done.text == llm.generate("Hi", **GREEDY).text
    pieces = [chunk async for chunk in async_llm.stream_chat(HELLO, **GREEDY)]
    assert "".join(chunk.text for chunk in pieces) == llm.chat(HELLO, **GREEDY).text
    assert pieces[-1].finish_reason == "length"
    pieces = [chunk async for chunk in async_llm.stream_generate("Hi", **GREEDY)]
    assert "".join(chunk.text for chunk in pieces) == done.text


async def test_the_event_loop_goes_on_while_answers_are_made(async_llm: AsyncLLM) -> None:
    answers = asyncio.gather(*(async_llm.generate(f"Loop {i}", temperature=0, max_tokens=100) for i in range(6)))
    ticks = 0
    while not answers.done():
        await asyncio.sleep(0.002)
        ticks += 1
    assert len(await answers) == 6
    assert ticks > 5


async def test_a_batch_of_prompts_awaited_comes_back_in_order(async_llm: AsyncLLM) -> None:
    done = await async_llm.generate([f"{'long ' * i}prompt" for i in range(6)], **GREEDY)
    assert isinstance(done, list)
    counts = [each.prompt_tokens for each in done]
    assert counts == sorted(counts)
    assert len(set(counts)) == 6


async def test_an_async_stream_that_is_abandoned_stops_being_made(async_llm: AsyncLLM) -> None:
    stream = async_llm.stream_generate("Hi", temperature=0, max_tokens=450, ignore_eos=True)
    async for _ in stream:
        break
    await stream.aclose()
    assert await asyncio.to_thread(idle, async_llm)
    assert generated(async_llm) < 450


async def test_an_awaited_answer_that_is_cancelled_stops_being_made(async_llm: AsyncLLM) -> None:
    task = asyncio.create_task(async_llm.generate("Hi", temperature=0, max_tokens=450, ignore_eos=True))
    while generated(async_llm) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(idle, async_llm)
    assert generated(async_llm) < 450


async def test_a_time_limit_ends_the_answer(async_llm: AsyncLLM) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(async_llm.generate("Hi", max_tokens=500, ignore_eos=True), 0.02)
    assert await asyncio.to_thread(idle, async_llm)


async def test_an_async_error_is_raised_where_it_is_awaited(async_llm: AsyncLLM) -> None:
    with pytest.raises(ContextLengthError):
        await async_llm.generate("word " * 1000)
    with pytest.raises(RequestError, match="temprature"):
        await async_llm.chat(HELLO, temprature=1)


# Errors


def test_a_prompt_longer_than_the_context_names_both_counts(llm: LLM) -> None:
    text = "word " * 700
    n = len(llm.tokenize(text, add_special=True))
    with pytest.raises(ContextLengthError, match=rf"{n} tokens.*512"):
        llm.generate(text)
    with pytest.raises(ContextLengthError, match="512"):
        llm.generate([5] * 512)
    assert llm.generate([5] * 511, max_tokens=8).completion_tokens == 1


@pytest.mark.parametrize(
    ("keywords", "named"),
    [({"temprature": 0.5}, "temprature.*accepted: temperature"), ({"temperature": "hot"}, "temperature"),
     ({"top_p": 3}, "top_p"), ({"max_tokens": 0}, "max_tokens"), ({"stop": 5}, "stop"), ({"stop": [""]}, "stop"),
     ({"logit_bias": {10**8: 1.0}}, "logit_bias"), ({"seed": "x"}, "seed"),
     ({"json_schema": {"type": 3}}, "response_format"), ({"grammar": "root ::= ("}, "grammar")],
    ids=str,
)  # fmt: skip
def test_a_wrong_keyword_is_an_error_that_names_it(llm: LLM, keywords: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        llm.generate("Hi", **keywords)
    with pytest.raises(RequestError, match=named):
        llm.generate("Hi", stream=True, **keywords)


@pytest.mark.parametrize("prompt", [5, None, {"a": 1}, ["a", 5], [1.5], [[1], [2]], []], ids=str)
def test_a_prompt_of_a_wrong_type_is_an_error(llm: LLM, prompt: Any) -> None:
    with pytest.raises(RequestError, match="prompt"):
        llm.generate(prompt, max_tokens=1)


@pytest.mark.parametrize("token", [-1, 32000, 10**12])
def test_a_token_that_does_not_exist_is_an_error(llm: LLM, token: int) -> None:
    with pytest.raises(RequestError, match="token"):
        llm.generate([1, token])
    with pytest.raises(RequestError, match="token"):
        llm.detokenize([token])


def test_an_empty_conversation_is_an_error(llm: LLM) -> None:
    with pytest.raises(RequestError, match="messages"):
        llm.chat([])


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "\x1b[31m", "🦙" * 50, "</s><s>", " "])
def test_any_text_is_a_prompt(llm: LLM, text: str) -> None:
    assert llm.generate(text, max_tokens=2).completion_tokens >= 1
    assert (
        llm.chat([{"role": "user", "content": text}], max_tokens=2).completion_tokens >= 1
        if "\ud800" not in text
        else True
    )


def test_half_a_character_in_a_parameter_is_the_callers_error(llm: LLM) -> None:
    for keywords in ({"stop": "\ud800"}, {"grammar": 'root ::= "\ud800"'}, {"regex": "\ud800"}, {"choice": ["\ud800"]}):
        with pytest.raises(RequestError):
            llm.generate("Hi", max_tokens=2, **keywords)
    with pytest.raises(RequestError):
        llm.chat([{"role": "user", "content": "\ud800"}], max_tokens=2)


def test_after_errors_the_next_request_is_served(llm: LLM) -> None:
    for bad in ({"prompt": "x " * 2000}, {"prompt": "x", "top_p": 9}, {"prompt": []}):
        with pytest.raises(RequestError):
            llm.generate(**bad)
    assert llm.generate("Hi", **GREEDY).completion_tokens == 24


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 this is a zip", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 40])
def test_a_file_that_is_no_model_is_an_error_that_names_it(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "broken.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MinervaError, match=r"broken\.gguf") as refused:
        LLM(path)
    assert isinstance(refused.value, (InvalidModelError, ModelLoadError))


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError):
        LLM(tmp_path)


def test_a_truncated_model_is_an_error(path: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.gguf"
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InvalidModelError, match="half"):
        LLM(half, **OPTIONS)


@pytest.mark.parametrize("options", [{"ctx_sise": 512}, {"ctx_size": "big"}, {"threads": [1]}], ids=str)
def test_an_unknown_or_absurd_option_is_an_error_that_names_it(path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(MinervaError, match=next(iter(options))):
        LLM(path, **options)


def test_a_context_larger_than_memory_is_an_error_that_says_what_fits(path: Path) -> None:
    with pytest.raises(ModelLoadError, match="ctx"):
        LLM(path, ctx_size=10**10, gpu_layers=0)


def test_a_batch_smaller_than_the_slots_still_serves_them_all(path: Path) -> None:
    with LLM(path, **{**OPTIONS, "batch_size": 1, "parallel": 8}) as made:
        done = made.generate([f"Number {i}" for i in range(12)], max_tokens=8, ignore_eos=True)
    assert [c.completion_tokens for c in done] == [8] * 12


# The end


def test_after_close_requests_are_refused_and_close_may_come_twice(path: Path) -> None:
    made = LLM(path, **OPTIONS)
    made.close()
    made.close()
    with pytest.raises(MinervaError, match="unload"):
        made.generate("Hi")


def test_closing_ends_what_runs_with_an_error(path: Path) -> None:
    made = LLM(path, **OPTIONS)
    failed: list[Exception] = []

    def read() -> None:
        try:
            for _ in made.generate("Hi", stream=True, max_tokens=450, ignore_eos=True):
                started.set()
        except MinervaError as e:
            failed.append(e)

    started = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    assert started.wait(10)
    made.close()
    reader.join(10)
    assert not reader.is_alive()
    assert [error.status for error in failed] == [503]


def test_two_models_live_side_by_side(path: Path, model_file: Callable[..., Path], llm: LLM) -> None:
    expected = llm.generate("Hi", **GREEDY).text
    with LLM(model_file(), **OPTIONS) as other:
        assert other.generate("Hi", **GREEDY).text != expected
        assert llm.generate("Hi", **GREEDY).text == expected


def test_the_embedded_model_needs_no_path() -> None:
    with LLM(ctx_size=512, parallel=1, threads=1, gpu_layers=0) as embedded:
        assert embedded.chat([{"role": "user", "content": "Hello!"}], temperature=0, max_tokens=40).text


def test_fill_in_the_middle_needs_a_model_that_knows_it(llm: LLM) -> None:
    from minerva.engine.messages import TextPrompt
    from minerva.engine.params import SamplingParams

    with pytest.raises(UnsupportedError, match="suffix"):
        llm._local._loaded.frontend.prepare(TextPrompt(text="a", suffix="b"), SamplingParams())
