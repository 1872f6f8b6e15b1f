#include "row_sampler.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace minerva {

namespace {

constexpr int32_t BLOCK        = 64;
constexpr float   COLDEST      = 1e-6f;   // below it a logit over the temperature may be infinite
constexpr int32_t MAX_DIRECT_K = 1024;    // above it a heap over the row loses to a full array

bool before(const llama_token_data & a, const llama_token_data & b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

float max_of(const float * x, int32_t n) {
    float m = x[0];
#pragma GCC ivdep
    for (int32_t i = 1; i < n; ++i) {
        m = x[i] > m ? x[i] : m;
    }
    return m;
}

SamplerPtr make_grammar(const llama_vocab * vocab, const GrammarSpec & spec) {
    llama_sampler * grammar = nullptr;
    if (spec.lazy) {
        std::vector<const char *> patterns;
        for (const auto & pattern : spec.trigger_patterns) {
            patterns.push_back(pattern.c_str());
        }
        grammar = llama_sampler_init_grammar_lazy_patterns(vocab, spec.source.c_str(), "root", patterns.data(),
            patterns.size(), spec.trigger_tokens.data(), spec.trigger_tokens.size());
    } else if (!spec.source.empty()) {
        grammar = llama_sampler_init_grammar(vocab, spec.source.c_str(), "root");
    }
    if (!grammar && !spec.source.empty()) {
        throw std::invalid_argument("the grammar does not parse");
    }
    SamplerPtr owned(grammar, llama_sampler_free);
    for (llama_token token : spec.prefill) {
        llama_sampler_accept(grammar, token);
    }
    return owned;
}

SamplerPtr make_chain(const SamplingConfig & c) {
    llama_sampler_chain_params params = llama_sampler_chain_default_params();
    params.no_perf = true;
    SamplerPtr chain(llama_sampler_chain_init(params), llama_sampler_free);
    if (c.typical_p < 1.0f) {
        llama_sampler_chain_add(chain.get(), llama_sampler_init_typical(c.typical_p, 1));
    }
    if (c.top_p < 1.0f) {
        llama_sampler_chain_add(chain.get(), llama_sampler_init_top_p(c.top_p, 1));
    }
    if (c.min_p > 0.0f) {
        llama_sampler_chain_add(chain.get(), llama_sampler_init_min_p(c.min_p, 1));
    }
    llama_sampler_chain_add(chain.get(), llama_sampler_init_temp(c.temperature));
    llama_sampler_chain_add(chain.get(), llama_sampler_init_dist(c.seed));
    return chain;
}

} // namespace

llama_token argmax_of_row(const float * logits, int32_t n_vocab) {
    float       best  = -INFINITY;
    llama_token token = 0;
    for (int32_t start = 0; start < n_vocab; start += BLOCK) {
        const int32_t n = std::min(BLOCK, n_vocab - start);
        const float   m = max_of(logits + start, n);
        if (m > best) {
            best = m;
            int32_t i = start;
            while (logits[i] != m) {
                ++i;
            }
            token = i;
        }
    }
    return token;
}

void top_k_of_row(const float * logits, int32_t n_vocab, int32_t k, std::vector<llama_token_data> & out) {
    out.clear();
    k = std::min(k, n_vocab);
    int32_t i = 0;
    for (; i < k; ++i) {
        out.push_back({ i, logits[i], 0.0f });
    }
    std::make_heap(out.begin(), out.end(), before);    // the heap's front is the weakest
    while (i < n_vocab) {
        const int32_t n = std::min(BLOCK, n_vocab - i);
        if (max_of(logits + i, n) > out.front().logit) {
            for (int32_t j = i; j < i + n; ++j) {
                if (logits[j] > out.front().logit) {
                    std::pop_heap(out.begin(), out.end(), before);
                    out.back() = { j, logits[j], 0.0f };
                    std::push_heap(out.begin(), out.end(), before);
                }
            }
        }
        i += n;
    }
    std::sort_heap(out.begin(), out.end(), before);
}

bool mask_row(float * logits, int32_t n_vocab, const uint32_t * mask) {
    uint32_t any = 0;
    for (int32_t start = 0; start < n_vocab; start += 32) {
        const uint32_t word = mask[start / 32];
        const int32_t  n    = std::min(32, n_vocab - start);
        any |= word;
        if (word == 0) {
            std::fill(logits + start, logits + start + n, -INFINITY);
        } else if (word != ~0u) {
            for (int32_t i = 0; i < n; ++i) {
                logits[start + i] = (word >> i) & 1 ? logits[start + i] : -INFINITY;
            }
        }
    }
    return any != 0;
}

RowSampler::RowSampler(const llama_vocab * vocab, const SamplingConfig & config)
    : vocab_(vocab), n_vocab_(llama_vocab_n_tokens(vocab)), config_(config), chain_(make_chain(config)),
      grammar_(make_grammar(vocab, config.grammar)) {
    int32_t n_suppress = 0;
    const llama_token * suppress = llama_vocab_get_suppress_tokens(vocab, &n_suppress);
    for (int32_t i = 0; i < n_suppress; ++i) {
        config_.logit_bias.push_back({ suppress[i], -INFINITY });
    }
    if (config_.ignore_eos) {
        for (llama_token token = 0; token < n_vocab_; ++token) {
            if (llama_vocab_is_eog(vocab, token)) {
                config_.logit_bias.push_back({ token, -INFINITY });
            }
        }
    }
    if (penalised()) {
        window_.reserve(config_.repeat_last_n);
    }
}

bool RowSampler::penalised() const {
    return config_.repeat_last_n > 0 &&
        (config_.repeat_penalty != 1.0f || config_.frequency_penalty != 0.0f || config_.presence_penalty != 0.0f);
}

void RowSampler::accept_prompt(llama_token token) {
    count(token);
}

void RowSampler::count(llama_token token) {
    if (!penalised()) {
        return;
    }
    ++counts_[token];
    if (window_.size() < (size_t) config_.repeat_last_n) {
        window_.push_back(token);
        return;
    }
    auto gone = counts_.find(window_[oldest_]);
    if (--gone->second == 0) {
        counts_.erase(gone);
    }
    window_[oldest_] = token;
    oldest_ = (oldest_ + 1) % window_.size();
}

void RowSampler::adjust(float * logits) const {
    for (const auto & bias : config_.logit_bias) {
        if (bias.token >= 0 && bias.token < n_vocab_) {
            logits[bias.token] += bias.bias;
        }
    }
    for (const auto & [token, n] : counts_) {
        float & logit = logits[token];
        logit = logit <= 0 ? logit * config_.repeat_penalty : logit / config_.repeat_penalty;
        logit -= float(n) * config_.frequency_penalty + config_.presence_penalty;
    }
}

llama_token RowSampler::pick(float * logits, bool constrained) {
    const bool greedy = config_.temperature < COLDEST;
    if (greedy && !constrained) {
        return argmax_of_row(logits, n_vocab_);
    }
    const bool direct = !constrained && config_.top_k > 0 && config_.top_k <= MAX_DIRECT_K;
    if (direct) {
        top_k_of_row(logits, n_vocab_, config_.top_k, candidates_);
    } else {
        candidates_.resize(n_vocab_);
        for (int32_t i = 0; i < n_vocab_; ++i) {
            candidates_[i] = { i, logits[i], 0.0f };
        }
    }
    llama_token_data_array array = { candidates_.data(), candidates_.size(), -1, direct };
    if (constrained) {
        llama_sampler_apply(grammar_.get(), &array);
        const auto kept = std::remove_if(candidates_.begin(), candidates_.end(),
            [](const llama_token_data & c) { return c.logit == -INFINITY; });
        candidates_.erase(kept, candidates_.end());
        if (candidates_.empty()) {
            throw std::runtime_error("the grammar leaves no token to pick");
        }
        array.size = candidates_.size();
    }
    if (!direct && config_.top_k > 0) {
        // Also when all of them stay: llama.cpp's sampler sorts, and a draw walks along the candidates.
        array.size   = std::min((size_t) config_.top_k, array.size);
        std::partial_sort(candidates_.begin(), candidates_.begin() + array.size, candidates_.end(), before);
        array.sorted = true;
    }
    if (greedy) {
        return std::min_element(candidates_.begin(), candidates_.begin() + array.size, before)->id;
    }
    llama_sampler_apply(chain_.get(), &array);
    return array.data[array.selected].id;
}

bool RowSampler::refused(llama_token token) {
    llama_token_data       one   = { token, 1.0f, 0.0f };
    llama_token_data_array array = { &one, 1, -1, false };
    llama_sampler_apply(grammar_.get(), &array);
    return one.logit == -INFINITY;
}

void RowSampler::record_alternatives(const float * logits) {
    const float top = max_of(logits, n_vocab_);
    double sum = 0.0;
    for (int32_t i = 0; i < n_vocab_; ++i) {
        sum += expf(logits[i] - top);
    }
    log_sum_exp_ = top + (float) std::log(sum);
    logprobs_.assign(1, { -1, 0.0f });
    if (config_.top_logprobs > 0) {
        top_k_of_row(logits, n_vocab_, config_.top_logprobs, candidates_);
        for (const auto & c : candidates_) {
            logprobs_.push_back({ c.id, c.logit - log_sum_exp_ });
        }
    }
}

llama_token RowSampler::sample(float * logits, const uint32_t * mask) {
    if (config_.top_logprobs >= 0) {
        record_alternatives(logits);
        raw_.assign(logits, logits + n_vocab_);
    }
    adjust(logits);
    if (mask && !mask_row(logits, n_vocab_, mask)) {
        throw std::runtime_error("the constraint leaves no token to pick");
    }
    llama_token token = pick(logits, false);
    if (grammar_ && refused(token)) {
        token = pick(logits, true);
    }
    if (grammar_) {
        llama_sampler_accept(grammar_.get(), token);
    }
    count(token);
    if (config_.top_logprobs >= 0) {
        logprobs_[0] = { token, raw_[token] - log_sum_exp_ };
    }
    return token;
}

} // namespace minerva
