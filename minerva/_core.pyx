# distutils: language = c++
"""The binding: lifetimes, the GIL and errors. What to run, and when, is decided in Python."""

import json

import numpy as np

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libcpp cimport bool as cbool
from libcpp.memory cimport unique_ptr
from libcpp.string cimport string
from libcpp.vector cimport vector
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.operator cimport dereference as deref

from minerva cimport llama
from minerva cimport core
from minerva.llama cimport llama_token

from minerva.errors import EngineError, InvalidModelError, ModelLoadError, RequestError

cdef extern from *:
    """
    static const bool minerva_debug = MINERVA_DEBUG;
    """
    const cbool minerva_debug

DEBUG = bool(minerva_debug)
LLAMA_VERSION = llama.llama_version().decode()

MAX_TEXT_BYTES = 64 * 1024 * 1024
"""A longer text is refused before the tokeniser sees it: its lengths are 32-bit."""

MAX_SEQUENCES = 256
"""Sequence ids that llama.cpp's memory knows (LLAMA_MAX_SEQ)."""

CACHE_TYPES = {
    "f32": llama.GGML_TYPE_F32, "f16": llama.GGML_TYPE_F16, "bf16": llama.GGML_TYPE_BF16,
    "q8_0": llama.GGML_TYPE_Q8_0, "q4_0": llama.GGML_TYPE_Q4_0, "q4_1": llama.GGML_TYPE_Q4_1,
    "q5_0": llama.GGML_TYPE_Q5_0, "q5_1": llama.GGML_TYPE_Q5_1, "iq4_nl": llama.GGML_TYPE_IQ4_NL,
}
FLASH_ATTENTION = {
    "auto": llama.LLAMA_FLASH_ATTN_TYPE_AUTO, "on": llama.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": llama.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}
ROPE_SCALING = {
    "auto": llama.LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED, "none": llama.LLAMA_ROPE_SCALING_TYPE_NONE,
    "linear": llama.LLAMA_ROPE_SCALING_TYPE_LINEAR, "yarn": llama.LLAMA_ROPE_SCALING_TYPE_YARN,
}
DEVICE_KINDS = {
    llama.GGML_BACKEND_DEVICE_TYPE_CPU: "cpu", llama.GGML_BACKEND_DEVICE_TYPE_GPU: "gpu",
    llama.GGML_BACKEND_DEVICE_TYPE_IGPU: "igpu", llama.GGML_BACKEND_DEVICE_TYPE_ACCEL: "accel",
}

core.install_log_ring()
llama.llama_backend_init()


def drain_log():
    """llama.cpp's warnings and errors since the last call, oldest first."""
    cdef vector[string] lines = core.drain_log_ring()
    return [line.decode("utf-8", "replace").rstrip("\n") for line in lines]


def devices():
    """What ggml can compute on: dicts of name, description, kind, memory_free and memory_total (bytes)."""
    cdef size_t free = 0
    cdef size_t total = 0
    cdef llama.ggml_backend_dev_t device
    found = []
    for i in range(llama.ggml_backend_dev_count()):
        device = llama.ggml_backend_dev_get(i)
        llama.ggml_backend_dev_memory(device, &free, &total)
        found.append({
            "name": llama.ggml_backend_dev_name(device).decode(),
            "description": llama.ggml_backend_dev_description(device).decode(),
            "kind": DEVICE_KINDS.get(<int> llama.ggml_backend_dev_type(device), "other"),
            "memory_free": free, "memory_total": total,
        })
    return found


def check(int rc):
    """llama_decode's return code as an exception."""
    if rc == 0:
        return
    if rc == 1:
        raise EngineError("no room in the KV cache for this batch")
    if rc == 2:
        raise EngineError("the step was aborted")
    raise EngineError(f"llama.cpp refused the batch (code {rc})" + _log_tail())


def _log_tail():
    lines = drain_log()
    return ": " + "; ".join(lines[-3:]) if lines else ""


cdef cbool _on_progress(float progress, void * user_data) noexcept with gil:
    loading = <_Loading> user_data
    if loading.error is not None:
        return False
    try:
        loading.callback(progress)
    except BaseException as e:
        loading.error = e
        return False
    return True


cdef class _Loading:
    cdef object callback
    cdef object error

    def __cinit__(self, callback):
        self.callback = callback


cdef class Model:
    """A loaded GGUF. `progress` is called with 0..1 while it loads; what it raises ends the load."""
    cdef llama.llama_model * ptr
    cdef readonly Vocab vocab
    cdef readonly str path

    def __cinit__(self, str path, *, int gpu_layers=0, int main_gpu=0, bint mmap=True, bint mlock=False,
                  bint check_tensors=False, bint vocab_only=False, progress=None):
        cdef llama.llama_model_params params = llama.llama_model_default_params()
        cdef bytes raw = path.encode("utf-8", "surrogateescape")
        cdef const char * c_path = raw
        cdef _Loading loading = None
        params.n_gpu_layers = gpu_layers
        params.main_gpu = main_gpu
        params.vocab_only = vocab_only
        params.check_tensors = check_tensors
        if mmap:
            params.load_mode = llama.LLAMA_LOAD_MODE_MMAP_MLOCK if mlock else llama.LLAMA_LOAD_MODE_MMAP
        else:
            params.load_mode = llama.LLAMA_LOAD_MODE_MLOCK if mlock else llama.LLAMA_LOAD_MODE_NONE
        if progress is not None:
            loading = _Loading(progress)
            params.progress_callback = _on_progress
            params.progress_callback_user_data = <void *> loading
        drain_log()
        with nogil:
            self.ptr = llama.llama_model_load_from_file(c_path, params)
        if loading is not None and loading.error is not None:
            raise loading.error
        if self.ptr is NULL:
            raise InvalidModelError(f"llama.cpp cannot load {path}{_log_tail()}")
        self.path = path
        self.vocab = Vocab.__new__(Vocab)
        self.vocab.model = self
        self.vocab.ptr = llama.llama_model_get_vocab(self.ptr)

    def __dealloc__(self):
        if self.ptr is not NULL:
            llama.llama_model_free(self.ptr)

    @property
    def n_ctx_train(self):
        return llama.llama_model_n_ctx_train(self.ptr)

    @property
    def n_layer(self):
        return llama.llama_model_n_layer(self.ptr)

    @property
    def n_embd(self):
        return llama.llama_model_n_embd(self.ptr)

    @property
    def n_params(self):
        return llama.llama_model_n_params(self.ptr)

    @property
    def size(self):
        """Bytes of all tensors."""
        return llama.llama_model_size(self.ptr)

    @property
    def description(self):
        cdef char buf[256]
        llama.llama_model_desc(self.ptr, buf, sizeof(buf))
        return (<bytes> buf).decode("utf-8", "replace")

    @property
    def is_decoder(self):
        return bool(llama.llama_model_has_decoder(self.ptr) and not llama.llama_model_has_encoder(self.ptr))

    @property
    def is_recurrent(self):
        return bool(llama.llama_model_is_recurrent(self.ptr))

    def metadata(self, str key):
        """A metadata value as text, or None."""
        cdef char buf[512]
        cdef bytes raw = key.encode()
        if llama.llama_model_meta_val_str(self.ptr, raw, buf, sizeof(buf)) < 0:
            return None
        return (<bytes> buf).decode("utf-8", "replace")


cdef class Vocab:
    """A model's tokeniser. Safe to use from any thread."""
    cdef Model model
    cdef const llama.llama_vocab * ptr

    def __len__(self):
        return llama.llama_vocab_n_tokens(self.ptr)

    @property
    def bos(self):
        return llama.llama_vocab_bos(self.ptr)

    @property
    def eos(self):
        return llama.llama_vocab_eos(self.ptr)

    @property
    def fim(self):
        """The (prefix, suffix, middle) tokens of fill-in-the-middle, -1 where the model has none."""
        return (llama.llama_vocab_fim_pre(self.ptr), llama.llama_vocab_fim_suf(self.ptr),
                llama.llama_vocab_fim_mid(self.ptr))

    @property
    def adds_bos(self):
        return bool(llama.llama_vocab_get_add_bos(self.ptr))

    def is_eog(self, int token):
        return 0 <= token < len(self) and bool(llama.llama_vocab_is_eog(self.ptr, token))

    def tokenize(self, text, *, bint add_special=False, bint parse_special=True):
        """Token ids of a str (or UTF-8 bytes). Raises `RequestError` past `MAX_TEXT_BYTES`."""
        cdef bytes raw = text.encode("utf-8", "replace") if isinstance(text, str) else bytes(text)
        if len(raw) > MAX_TEXT_BYTES:
            raise RequestError(f"a text of {len(raw)} bytes is longer than the tokeniser takes ({MAX_TEXT_BYTES})")
        cdef const char * data = raw
        cdef int32_t n_bytes = <int32_t> len(raw)
        cdef vector[llama_token] tokens
        cdef int32_t n
        tokens.resize(n_bytes // 2 + 16)
        with nogil:
            n = llama.llama_tokenize(self.ptr, data, n_bytes, tokens.data(), <int32_t> tokens.size(),
                                     add_special, parse_special)
            if n < 0:
                tokens.resize(-n)
                n = llama.llama_tokenize(self.ptr, data, n_bytes, tokens.data(), <int32_t> tokens.size(),
                                         add_special, parse_special)
        if n < 0:
            raise RequestError("the text cannot be tokenised")
        return [tokens[i] for i in range(n)]

    def detokenize(self, tokens, *, bint special=True):
        """The text of token ids as bytes. Raises `RequestError` for an id out of range."""
        cdef vector[llama_token] ids = self._checked(tokens)
        cdef string out
        cdef int32_t n = 0
        out.resize(ids.size() * 8 + 32)
        n = llama.llama_detokenize(self.ptr, ids.data(), <int32_t> ids.size(), &out[0], <int32_t> out.size(),
                                   False, special)
        if n < 0:
            out.resize(-n)
            n = llama.llama_detokenize(self.ptr, ids.data(), <int32_t> ids.size(), &out[0], <int32_t> out.size(),
                                       False, special)
        out.resize(max(n, 0))
        return <bytes> out

    def piece(self, int token, *, bint special=True):
        """One token's own bytes."""
        return <bytes> core.piece_of(self.ptr, self._checked([token])[0], special)

    cdef vector[llama_token] _checked(self, tokens) except *:
        cdef vector[llama_token] ids
        cdef int32_t size = llama.llama_vocab_n_tokens(self.ptr)
        for token in tokens:
            if not 0 <= token < size:
                raise RequestError(f"token id {token} is not from 0 to {size - 1}")
            ids.push_back(token)
        return ids


cdef class Grammar:
    """What an answer must match: GBNF, and for tool calls the triggers that switch it on."""
    cdef core.GrammarSpec spec

    def __cinit__(self, str source=""):
        if "\0" in source:
            raise RequestError("a grammar cannot hold a NUL character", param="grammar")
        self.spec.source = source.encode()

    @property
    def source(self):
        return (<bytes> self.spec.source).decode()


cdef class ChatTemplate:
    """The model's own chat template, or `source` in its place. Raises `ModelLoadError` for one that does not parse."""
    cdef Model model
    cdef unique_ptr[core.CChatTemplate] ptr

    def __cinit__(self, Model model, str source=""):
        self.model = model
        try:
            self.ptr.reset(new core.CChatTemplate(model.ptr, source.encode()))
        except Exception as e:
            raise ModelLoadError(f"the chat template does not parse: {e}") from None

    @property
    def source(self):
        return (<bytes> deref(self.ptr).source()).decode("utf-8", "replace")

    def render(self, dict request):
        """A conversation as the model wants to read it. Raises `RequestError` when the template refuses it.

        Keys: messages, tools, tool_choice, parallel_tool_calls, enable_thinking, template_kwargs (values are JSON
        text), add_generation_prompt.
        """
        cdef RenderedPrompt rendered = RenderedPrompt.__new__(RenderedPrompt)
        cdef string raw = json.dumps(request).encode()
        cdef core.CChatTemplate * template = self.ptr.get()
        try:
            with nogil:
                rendered.chat = template.render(raw)
        except Exception as e:
            raise RequestError(f"the chat template refuses these messages: {e}", param="messages") from None
        return rendered


cdef class RenderedPrompt:
    cdef core.RenderedChat chat

    @property
    def prompt(self):
        return <bytes> self.chat.prompt

    @property
    def grammar(self):
        cdef Grammar grammar
        if self.chat.grammar.source.empty():
            return None
        grammar = Grammar()
        grammar.spec = self.chat.grammar
        return grammar

    @property
    def preserved_tokens(self):
        return list(self.chat.preserved_tokens)

    @property
    def stops(self):
        return [(<bytes> stop).decode("utf-8", "replace") for stop in self.chat.stops]

    @property
    def supports_thinking(self):
        return bool(self.chat.supports_thinking)

    @property
    def begins_thinking(self):
        """True when the prompt ends inside the model's thoughts."""
        return bool(self.chat.begins_thinking)

    def parser(self):
        """A `ChatParser` for one answer, or None when the answer is its own text."""
        cdef ChatParser parser
        if self.chat.plain:
            return None
        parser = ChatParser.__new__(ChatParser)
        try:
            parser.ptr.reset(new core.CChatParser(self.chat))
        except Exception as e:
            raise RequestError(f"the answer's format cannot be read: {e}", param="messages") from None
        return parser


cdef class ChatParser:
    """Splits an answer into content, reasoning and tool calls as it grows. One per answer."""
    cdef unique_ptr[core.CChatParser] ptr

    def push(self, str text, *, bint last=False):
        """Adds text; gives what is new: a dict of content, reasoning and tool_calls (index, id, name, arguments)."""
        cdef string raw = text.encode()
        cdef string out
        cdef core.CChatParser * parser = self.ptr.get()
        with nogil:
            out = parser.push(raw, last)
        return json.loads(<bytes> out)


cdef class Sampler:
    """What one sequence keeps between steps: its sampler, its stop strings, its unshown text.

    `params` is a `SamplingParams`; `seed` a 32-bit number; `mask`, an array of uint32 with a bit for each token, is
    read at every step; `shown_special` are control tokens that appear in the text all the same. Raises `RequestError` for a grammar that does not parse.
    """
    cdef unique_ptr[core.Head] head
    cdef Vocab vocab
    cdef object mask
    cdef readonly tuple stops

    def __cinit__(self, Vocab vocab, params, *, uint32_t seed=0, Grammar grammar=None, mask=None, stops=(),
                  shown_special=()):
        cdef const uint32_t[::1] words
        cdef core.SamplingConfig config
        cdef llama.llama_logit_bias bias
        cdef vector[string] c_stops
        cdef vector[llama_token] c_stop_tokens
        cdef vector[llama_token] c_shown
        config.temperature = params.temperature
        config.top_k = params.top_k
        config.top_p = params.top_p
        config.min_p = params.min_p
        config.typical_p = params.typical_p
        config.repeat_penalty = params.repeat_penalty
        config.repeat_last_n = params.repeat_last_n
        config.frequency_penalty = params.frequency_penalty
        config.presence_penalty = params.presence_penalty
        config.seed = seed
        config.ignore_eos = params.ignore_eos
        config.top_logprobs = -1 if params.top_logprobs is None else params.top_logprobs
        for token, value in params.logit_bias.items():
            if token >= len(vocab):
                raise RequestError(f"logit_bias names token {token}, the vocabulary has {len(vocab)}", param="logit_bias")
            bias.token = token
            bias.bias = value
            config.logit_bias.push_back(bias)
        if grammar is not None:
            config.grammar = grammar.spec
        self.stops = tuple(params.stop) + tuple(stops)
        for stop in self.stops:
            c_stops.push_back(stop.encode("utf-8", "replace"))
        for token in params.stop_token_ids:
            c_stop_tokens.push_back(token)
        for token in shown_special:
            c_shown.push_back(token)
        self.vocab = vocab
        try:
            self.head.reset(new core.Head(vocab.ptr, config, c_stops, c_stop_tokens, c_shown))
        except Exception as e:
            raise RequestError(f"{e}{_log_tail()}", param="grammar") from None
        if mask is not None:
            words = mask
            if words.shape[0] * 32 < len(vocab):
                raise EngineError(f"a mask of {words.shape[0]} words for {len(vocab)} tokens")
            self.mask = mask
            deref(self.head).mask = &words[0]

    def accept_prompt(self, tokens):
        """Counts the prompt's last tokens for the penalties. Raises `RequestError` for an id out of range."""
        for token in self.vocab._checked(tokens):
            deref(self.head).sampler.accept_prompt(token)

    def flush(self):
        """What was held back in case a stop string or a character would go on; the sequence has ended."""
        cdef string out
        deref(self.head).stream.flush(out)
        return (<bytes> out).decode()

    @property
    def error(self):
        """Why the last step gave no token, or ""."""
        return (<bytes> deref(self.head).error).decode("utf-8", "replace")

    @property
    def stop_sequence(self):
        """The stop string that ended the sequence, or None."""
        cdef int index = deref(self.head).stream.stop_index()
        return None if index < 0 else self.stops[index]

    def logprobs(self):
        """(token, bytes, log-probability) of the last token, then of the likeliest ones."""
        found = []
        cdef vector[core.Logprob] entries = deref(self.head).sampler.logprobs()
        for entry in entries:
            found.append((entry.token, <bytes> core.piece_of(self.vocab.ptr, entry.token, True), entry.logprob))
        return found


cdef class Batch:
    """The tokens of one step, `capacity` at most."""
    cdef unique_ptr[core.CBatch] ptr
    cdef list samplers

    def __cinit__(self, int capacity):
        self.ptr.reset(new core.CBatch(capacity))
        self.samplers = []

    def __len__(self):
        return deref(self.ptr).size()

    @property
    def capacity(self):
        return deref(self.ptr).capacity()

    def clear(self):
        deref(self.ptr).clear()
        self.samplers.clear()

    def add(self, int seq, list tokens, int start, int stop, Sampler sampler=None, *, int drafts=0, bint logits=False):
        """Puts tokens[start:stop] at positions start..stop-1 of a sequence.

        With a `sampler` the last of them yields a token. The last `drafts` of them are guesses: the sampler yields
        one token before them and, while it picks the very token that was guessed, one more for each.
        `logits` keeps the last one's logits for `Context.logits`.
        Raises `EngineError` when the batch is full or the range is not inside the list.
        """
        cdef core.CBatch * batch = self.ptr.get()
        cdef core.Head * head = NULL
        cdef int i
        cdef int first = stop - 1 - drafts
        if not 0 <= start < stop <= len(tokens) or not 0 <= drafts < stop - start:
            raise EngineError(f"tokens {start}:{stop} with {drafts} drafts of a sequence of {len(tokens)}")
        if batch.size() + stop - start > batch.capacity():
            raise EngineError(f"the batch is full at {batch.capacity()} tokens")
        if sampler is not None:
            head = sampler.head.get()
        for i in range(start, stop):
            batch.add(tokens[i], i, seq, i >= first and (logits or head is not NULL), head if i == first else NULL, drafts)
        if sampler is not None:
            self.samplers.append(sampler)


cdef class Context:
    """A KV cache of `n_ctx` tokens, shared by `n_slots` sequences that decode at once.

    `n_ctx` is the whole cache: with `kv_unified` any sequence may use all of it, without each has its equal share.
    Not thread-safe: one thread steps it.
    """
    cdef llama.llama_context * ptr
    cdef llama.llama_memory_t memory
    cdef readonly Model model
    cdef readonly int n_slots
    cdef readonly bint kv_unified
    cdef int threads
    cdef int n_batch
    cdef int n_outputs_max

    def __cinit__(self, Model model, *, uint32_t n_ctx, uint32_t n_slots=1, uint32_t n_batch=2048,
                  uint32_t n_ubatch=512, int threads=1, int threads_batch=1, str flash_attn="auto",
                  str cache_type_k="f16", str cache_type_v="f16", bint kv_unified=True, uint32_t n_outputs_max=0,
                  str rope_scaling="auto", float rope_freq_base=0, float rope_freq_scale=0, uint32_t yarn_orig_ctx=0):
        cdef llama.llama_context_params params = llama.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = n_batch
        params.n_ubatch = min(n_ubatch, n_batch)
        # One id more than slots: llama.cpp saves the cells of ids below n_seq_max only, `save` borrows it for others.
        params.n_seq_max = n_slots + 1 if kv_unified and n_slots < MAX_SEQUENCES else n_slots
        params.n_outputs_max = max(n_outputs_max, params.n_seq_max)  # llama.cpp asserts as much
        params.n_threads = threads
        params.n_threads_batch = threads_batch
        params.flash_attn_type = <llama.llama_flash_attn_type> <int> FLASH_ATTENTION[flash_attn]
        params.type_k = <llama.ggml_type> <int> CACHE_TYPES[cache_type_k]
        params.type_v = <llama.ggml_type> <int> CACHE_TYPES[cache_type_v]
        params.kv_unified = kv_unified
        params.rope_scaling_type = <llama.llama_rope_scaling_type> <int> ROPE_SCALING[rope_scaling]
        params.rope_freq_base = rope_freq_base
        params.rope_freq_scale = rope_freq_scale
        params.yarn_orig_ctx = yarn_orig_ctx
        params.no_perf = True
        params.swa_full = True
        drain_log()
        with nogil:
            self.ptr = llama.llama_init_from_model(model.ptr, params)
        if self.ptr is NULL:
            raise ModelLoadError(f"llama.cpp cannot make a context of {n_ctx} tokens{_log_tail()}")
        self.model = model
        self.memory = llama.llama_get_memory(self.ptr)
        self.n_slots = n_slots
        self.kv_unified = kv_unified
        self.threads = threads
        self.n_batch = llama.llama_n_batch(self.ptr)
        self.n_outputs_max = n_outputs_max or n_slots

    def __dealloc__(self):
        if self.ptr is not NULL:
            llama.llama_free(self.ptr)

    @property
    def n_ctx(self):
        return llama.llama_n_ctx(self.ptr)

    @property
    def n_ctx_seq(self):
        """The most tokens one sequence may hold."""
        return llama.llama_n_ctx_seq(self.ptr)

    def step(self, Batch batch, before_sampling=None):
        """Decodes the batch and samples its rows, without the GIL from start to end; `before_sampling`, if given, is
        called (with the GIL) when the logits are there and the masks must be.

        Gives (tokens, text, ending) per sampler of the batch, in order: `tokens` is one token, or more where drafts
        were right; `text` is what may be shown now; `ending` is 0 to go on, 1 after a stop token, 2 after a stop
        string, -1 when the sampler gave no token (`Sampler.error`).
        Raises `EngineError` by llama.cpp's return code; the KV cache then holds what it held before (code 1) or
        needs `remove` of everything past what is known to be computed. A batch larger than the context was made
        for is refused before llama.cpp, which would end the process, sees it.
        """
        cdef core.CBatch * c_batch = batch.ptr.get()
        cdef int rc
        cdef core.Head * head
        cdef Sampler sampler
        if c_batch.size() == 0:
            return []
        if c_batch.size() > self.n_batch or c_batch.outputs() > self.n_outputs_max:
            raise EngineError(f"a batch of {c_batch.size()} tokens and {c_batch.outputs()} outputs: "
                              f"the context takes {self.n_batch} and {self.n_outputs_max}")
        if not 0 <= c_batch.lowest_seq() <= c_batch.highest_seq() < self.n_slots:
            raise EngineError(f"refused the batch (slots {c_batch.lowest_seq()} to {c_batch.highest_seq()}): an "
                              f"invalid slot, they go from 0 to {self.n_slots - 1}")
        if before_sampling is None:
            with nogil:
                rc = c_batch.decode(self.ptr)
                if rc == 0:
                    c_batch.sample(self.ptr, self.threads)
        else:
            with nogil:
                rc = c_batch.decode(self.ptr)
            if rc == 0:
                before_sampling()
                with nogil:
                    c_batch.sample(self.ptr, self.threads)
        if rc != 0:
            check(rc)
        outputs = []
        for sampler in batch.samplers:
            head = sampler.head.get()
            ending = -1 if not head.error.empty() else <int> head.ending
            outputs.append((head.tokens, (<bytes> head.text).decode(), ending))
        return outputs

    def logits(self, int row):
        """The logits of one row of the last batch, float32 of the vocabulary's size; the row must have asked for them."""
        cdef float * data = llama.llama_get_logits_ith(self.ptr, row)
        if data is NULL:
            raise EngineError(f"row {row} of the last batch has no logits")
        cdef float[::1] view = <float[:len(self.model.vocab)]> data
        return np.array(view)

    def remove(self, int seq, int start=0, int stop=-1):
        """Frees positions start..stop-1 of a sequence (-1: to its end). False when the memory cannot cut there."""
        self._check_seq(seq)
        return bool(llama.llama_memory_seq_rm(self.memory, seq, start, stop))

    def copy(self, int source, int target, int start=0, int stop=-1):
        """Lets `target` share the cells of positions start..stop-1 of `source`."""
        self._check_seq(source)
        self._check_seq(target)
        if not self.kv_unified and (start > 0 or stop >= 0):
            raise EngineError("a split KV cache copies whole sequences only")
        llama.llama_memory_seq_cp(self.memory, source, target, start, stop)

    def keep(self, int seq):
        """Frees everything that does not belong to this sequence."""
        self._check_seq(seq)
        llama.llama_memory_seq_keep(self.memory, seq)

    def length(self, int seq):
        """How many positions a sequence holds, from 0 to its last."""
        self._check_seq(seq)
        return llama.llama_memory_seq_pos_max(self.memory, seq) + 1

    def clear(self):
        llama.llama_memory_clear(self.memory, False)

    def save(self, int seq):
        """A sequence's KV cells as bytes, for `restore` into a context of the same model and layout."""
        cdef size_t size
        cdef bytes blob
        self._check_seq(seq)
        if seq > self.n_slots:
            self.copy(seq, self.n_slots)
            try:
                return self.save(self.n_slots)
            finally:
                self.remove(self.n_slots)
        size = llama.llama_state_seq_get_size(self.ptr, seq)
        blob = PyBytes_FromStringAndSize(NULL, size)
        size = llama.llama_state_seq_get_data(self.ptr, <uint8_t *> PyBytes_AS_STRING(blob), size, seq)
        if size == 0:
            raise EngineError(f"the KV cells of sequence {seq} cannot be saved")
        return blob[:size]

    def restore(self, int seq, bytes blob):
        """Puts saved cells back, in place of what the sequence held. False when there is no room.

        The bytes are trusted input to llama.cpp: only what `save` gave in this process may come here.
        """
        cdef const uint8_t * data = <const uint8_t *> PyBytes_AS_STRING(blob)
        self._check_seq(seq)
        return llama.llama_state_seq_set_data(self.ptr, data, len(blob), seq) != 0

    cdef _check_seq(self, int seq):
        if not 0 <= seq < (MAX_SEQUENCES if self.kv_unified else self.n_slots):
            raise EngineError(f"no sequence {seq}")


cdef class TextStream:
    """The text of one answer, apart from any model: what a `Sampler` does with its tokens' bytes.

    The engine's own stream lives in C++ beside the sampler; this one is for the tests.
    """
    cdef unique_ptr[core.CTextStream] ptr

    def __cinit__(self, stops=()):
        cdef vector[string] c_stops
        for stop in stops:
            c_stops.push_back(stop.encode())
        self.ptr.reset(new core.CTextStream(c_stops))

    def push(self, bytes piece):
        """(what may be shown now, whether a stop string is complete)."""
        cdef string out
        stopped = bool(deref(self.ptr).push(piece, len(piece), out))
        return (<bytes> out).decode(), stopped

    def flush(self):
        cdef string out
        deref(self.ptr).flush(out)
        return (<bytes> out).decode()


def sanitize_utf8(bytes raw):
    """Bytes as text, each malformed sequence as U+FFFD, as `Context.step` shows it."""
    cdef string out
    core.append_utf8(raw, len(raw), out)
    return (<bytes> out).decode()
