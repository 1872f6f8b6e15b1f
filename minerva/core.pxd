# minerva/core: our own C++ between Cython and llama.cpp. Declarations, nothing else.
from libc.stdint cimport int32_t, uint32_t
from libcpp cimport bool as cbool
from libcpp.string cimport string
from libcpp.vector cimport vector

from minerva.llama cimport (
    llama_context, llama_logit_bias, llama_model, llama_pos, llama_seq_id, llama_token, llama_vocab,
)

cdef extern from "row_sampler.h" namespace "minerva" nogil:
    cdef cppclass GrammarSpec:
        string source
        cbool lazy
        vector[string] trigger_patterns
        vector[llama_token] trigger_tokens
        vector[llama_token] prefill

    cdef cppclass SamplingConfig:
        float temperature
        int32_t top_k
        float top_p
        float min_p
        float typical_p
        float repeat_penalty
        int32_t repeat_last_n
        float frequency_penalty
        float presence_penalty
        uint32_t seed
        cbool ignore_eos
        int32_t top_logprobs
        vector[llama_logit_bias] logit_bias
        GrammarSpec grammar

    cdef cppclass Logprob:
        llama_token token
        float logprob

    cdef cppclass RowSampler:
        void accept_prompt(llama_token token) except +
        const vector[Logprob] & logprobs()

cdef extern from "text_stream.h" namespace "minerva" nogil:
    void append_utf8(const char * bytes, size_t n, string & out) except +

    cdef cppclass CTextStream "minerva::TextStream":
        CTextStream(vector[string] stops) except +
        cbool push(const char * bytes, size_t n, string & out) except +
        void flush(string & out) except +
        int stop_index()

cdef extern from "batch.h" namespace "minerva" nogil:
    cdef enum class Ending(int):
        NONE
        STOP_TOKEN
        STOP_STRING

    cdef cppclass Head:
        Head(const llama_vocab * vocab, const SamplingConfig & config, vector[string] stops,
             vector[llama_token] stop_tokens, vector[llama_token] shown_special) except +
        RowSampler sampler
        CTextStream stream
        const uint32_t * mask
        vector[llama_token] tokens
        Ending ending
        string text
        string error

    string piece_of(const llama_vocab * vocab, llama_token token, cbool special) except +

    cdef cppclass CBatch "minerva::Batch":
        CBatch(int32_t n_tokens_max) except +
        void clear()
        cbool add(llama_token token, llama_pos pos, llama_seq_id seq, cbool logits, Head * head,
                  int32_t n_drafts) except +
        int32_t decode(llama_context * ctx) except +
        void sample(llama_context * ctx, int n_threads) except +
        int32_t size()
        int32_t outputs()
        int32_t capacity()
        llama_seq_id lowest_seq()
        llama_seq_id highest_seq()

cdef extern from "chat_format.h" namespace "minerva" nogil:
    cdef cppclass RenderedChat:
        string prompt
        GrammarSpec grammar
        vector[llama_token] preserved_tokens
        vector[string] stops
        cbool plain
        cbool supports_thinking
        cbool begins_thinking

    cdef cppclass CChatTemplate "minerva::ChatTemplate":
        CChatTemplate(const llama_model * model, const string & source) except +
        RenderedChat render(const string & request) except +
        string source() except +

    cdef cppclass CChatParser "minerva::ChatParser":
        CChatParser(const RenderedChat & chat) except +
        string push(const string & text, cbool last) except +

cdef extern from "log_ring.h" namespace "minerva" nogil:
    void install_log_ring()
    vector[string] drain_log_ring() except +
