// Sampling one row of logits, without building an array of the whole vocabulary where that can be helped.
#pragma once

#include "llama.h"

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace minerva {

struct GrammarSpec {
    std::string              source;     // GBNF; empty: unconstrained
    bool                     lazy = false;
    std::vector<std::string> trigger_patterns;
    std::vector<llama_token> trigger_tokens;
    std::vector<llama_token> prefill;    // what the template put before the answer, when the grammar covers it
};

struct SamplingConfig {
    float    temperature       = 0.8f;
    int32_t  top_k             = 40;
    float    top_p             = 0.95f;
    float    min_p             = 0.05f;
    float    typical_p         = 1.0f;
    float    repeat_penalty    = 1.0f;
    int32_t  repeat_last_n     = 64;
    float    frequency_penalty = 0.0f;
    float    presence_penalty  = 0.0f;
    uint32_t seed              = 0;
    bool     ignore_eos        = false;
    int32_t  top_logprobs      = -1;     // -1: none; 0: the chosen token's alone
    std::vector<llama_logit_bias> logit_bias;
    GrammarSpec grammar;
};

struct Logprob {
    llama_token token;
    float       logprob;
};

// The k highest logits of a row, highest first; ties go to the lower id.
void top_k_of_row(const float * logits, int32_t n_vocab, int32_t k, std::vector<llama_token_data> & out);

// The lowest id that has the highest logit.
llama_token argmax_of_row(const float * logits, int32_t n_vocab);

// Gives every token whose bit is not set a logit of -inf. False when no bit is set.
bool mask_row(float * logits, int32_t n_vocab, const uint32_t * mask);

using SamplerPtr = std::unique_ptr<llama_sampler, decltype(&llama_sampler_free)>;

// The chain is llama.cpp's: biases, penalties, top-k, typical, top-p, min-p, temperature, then a draw. Biases and
// penalties touch only the tokens they name; top-k is picked straight from the row; llama.cpp's own samplers
// then run on what is left, so that a seed gives the token that its full chain gives.
class RowSampler {
public:
    // Throws std::invalid_argument when the grammar does not parse.
    RowSampler(const llama_vocab * vocab, const SamplingConfig & config);

    // Picks from `logits` (n_vocab values, changed in place) and accepts the token. `mask` has a bit for each token
    // that may be picked; null: all may. Throws std::runtime_error when the mask or the grammar leaves no token.
    llama_token sample(float * logits, const uint32_t * mask = nullptr);

    // Counts a token of the prompt for the penalties.
    void accept_prompt(llama_token token);

    // Log-probabilities of the last token, then of the most likely ones; under the raw logits.
    const std::vector<Logprob> & logprobs() const { return logprobs_; }

private:
    void        count(llama_token token);
    void        adjust(float * logits) const;
    llama_token pick(float * logits, bool constrained);
    void        record_alternatives(const float * logits);
    bool        refused(llama_token token);
    bool        penalised() const;

    const llama_vocab * vocab_;
    int32_t             n_vocab_;
    SamplingConfig      config_;
    SamplerPtr          chain_;
    SamplerPtr          grammar_;
    std::vector<llama_token_data> candidates_;
    std::vector<Logprob>          logprobs_;
    std::vector<float>            raw_;    // the row before it is adjusted, where log-probabilities are wanted
    float                         log_sum_exp_ = 0.0f;

    std::vector<llama_token> window_;     // ring of the last repeat_last_n tokens
    size_t                   oldest_ = 0;
    std::unordered_map<llama_token, int32_t> counts_;
};

} // namespace minerva
