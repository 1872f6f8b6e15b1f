#include "batch.h"

#include <algorithm>
#include <exception>

namespace minerva {

Head::Head(const llama_vocab * vocab, const SamplingConfig & config, std::vector<std::string> stops,
           std::vector<llama_token> stop_tokens, std::vector<llama_token> shown_special)
    : vocab(vocab), sampler(vocab, config), stream(std::move(stops)), ignore_eos(config.ignore_eos),
      stop_tokens(stop_tokens.begin(), stop_tokens.end()),
      shown_special(shown_special.begin(), shown_special.end()) {}

std::string piece_of(const llama_vocab * vocab, llama_token token, bool special) {
    std::string piece(32, '\0');
    int32_t n = llama_token_to_piece(vocab, token, piece.data(), (int32_t) piece.size(), 0, special);
    if (n < 0) {
        piece.resize(-n);
        n = llama_token_to_piece(vocab, token, piece.data(), (int32_t) piece.size(), 0, special);
    }
    piece.resize(n < 0 ? 0 : n);
    return piece;
}

void Head::begin() {
    tokens.clear();
    text.clear();
    error.clear();
    ending = Ending::NONE;
}

bool Head::take(float * logits) {
    llama_token token = -1;
    try {
        token = sampler.sample(logits, mask);
    } catch (const std::exception & e) {
        error = e.what();
        return false;
    }
    tokens.push_back(token);
    if (stop_tokens.count(token) || (!ignore_eos && llama_vocab_is_eog(vocab, token))) {
        ending = Ending::STOP_TOKEN;
        stream.flush(text);
        return false;
    }
    char small[64];
    const bool special = shown_special.count(token) > 0;
    const int32_t n = llama_token_to_piece(vocab, token, small, sizeof(small), 0, special);
    bool stopped = false;
    if (n >= 0) {
        stopped = stream.push(small, n, text);
    } else {
        const std::string piece = piece_of(vocab, token, special);
        stopped = stream.push(piece.data(), piece.size(), text);
    }
    if (stopped) {
        ending = Ending::STOP_STRING;
    }
    return !stopped;
}

Batch::Batch(int32_t n_tokens_max) : capacity_(n_tokens_max), n_seq_ids_(n_tokens_max, 1), seq_ids_(n_tokens_max) {
    tokens_.reserve(n_tokens_max);
    positions_.reserve(n_tokens_max);
    wants_logits_.reserve(n_tokens_max);
    for (auto & id : seq_ids_) {
        seq_id_ptrs_.push_back(&id);
    }
}

void Batch::clear() {
    tokens_.clear();
    positions_.clear();
    wants_logits_.clear();
    turns_.clear();
    n_outputs_   = 0;
    lowest_seq_  = INT32_MAX;
    highest_seq_ = INT32_MIN;
}

bool Batch::add(llama_token token, llama_pos pos, llama_seq_id seq, bool logits, Head * head, int32_t n_drafts) {
    const int32_t row = size();
    if (row >= capacity_) {
        return false;
    }
    tokens_.push_back(token);
    positions_.push_back(pos);
    seq_ids_[row] = seq;
    lowest_seq_   = std::min(lowest_seq_, seq);
    highest_seq_  = std::max(highest_seq_, seq);
    wants_logits_.push_back(logits);
    n_outputs_ += logits;
    if (head) {
        turns_.push_back({ head, row, n_drafts });
    }
    return true;
}

int32_t Batch::decode(llama_context * ctx) {
    llama_batch batch = { size(), tokens_.data(), nullptr, positions_.data(), n_seq_ids_.data(), seq_id_ptrs_.data(),
                          wants_logits_.data() };
    return llama_decode(ctx, batch);
}

void Batch::sample(llama_context * ctx, int n_threads) {
    logits_.resize(size());
    for (const auto & turn : turns_) {
        for (int32_t row = turn.row; row <= turn.row + turn.n_drafts; ++row) {
            logits_[row] = llama_get_logits_ith(ctx, row);
        }
    }
    const int n = (int) turns_.size();
#ifdef _OPENMP
    // The same team size as the graph's, so that libgomp keeps its threads.
#pragma omp parallel for schedule(dynamic, 1) num_threads(n_threads) if (n > 1)
#else
    (void) n_threads;
#endif
    for (int i = 0; i < n; ++i) {
        const Turn & turn = turns_[i];
        turn.head->begin();
        int32_t row = turn.row;
        while (turn.head->take(logits_[row]) && row < turn.row + turn.n_drafts &&
               turn.head->tokens.back() == tokens_[row + 1]) {
            ++row;
        }
    }
}

} // namespace minerva
