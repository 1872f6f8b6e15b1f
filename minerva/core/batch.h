// One step of the engine: decode a batch, then for every row that wants a token: sample, and turn it into text.
#pragma once

#include "row_sampler.h"
#include "text_stream.h"

#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

namespace minerva {

enum class Ending : int { NONE = 0, STOP_TOKEN = 1, STOP_STRING = 2 };

// What one sequence keeps between steps: its sampler and its unshown text.
struct Head {
    Head(const llama_vocab * vocab, const SamplingConfig & config, std::vector<std::string> stops,
         std::vector<llama_token> stop_tokens, std::vector<llama_token> shown_special);

    const llama_vocab *             vocab;
    RowSampler                      sampler;
    TextStream                      stream;
    bool                            ignore_eos;
    std::unordered_set<llama_token> stop_tokens;
    std::unordered_set<llama_token> shown_special;    // control tokens whose text the chat parser needs

    const uint32_t *                mask = nullptr;   // tokens that may come next, a bit each; null: all of them

    std::vector<llama_token> tokens;                  // what the last step gave
    Ending                   ending = Ending::NONE;
    std::string              text;                    // what the last step made showable
    std::string              error;                   // why the last step gave no token

    void begin();
    // Samples one more token of this step. False when the sequence ends with it, or with an error.
    bool take(float * logits);
};

std::string piece_of(const llama_vocab * vocab, llama_token token, bool special);

class Batch {
public:
    explicit Batch(int32_t n_tokens_max);

    void clear();
    // False when the batch is full. A row that wants logits may have a head, which begins to sample there and goes
    // on over the `n_drafts` rows that follow for as long as it picks the very tokens that they carry.
    bool add(llama_token token, llama_pos pos, llama_seq_id seq, bool logits, Head * head, int32_t n_drafts);
    // llama_decode's return code.
    int32_t decode(llama_context * ctx);
    // Samples every head, in parallel; after `decode` gave 0.
    void sample(llama_context * ctx, int n_threads);

    int32_t size() const { return (int32_t) tokens_.size(); }
    // How many rows want logits.
    int32_t outputs() const { return n_outputs_; }
    int32_t capacity() const { return capacity_; }
    llama_seq_id lowest_seq() const { return lowest_seq_; }
    llama_seq_id highest_seq() const { return highest_seq_; }

private:
    struct Turn {
        Head *  head;
        int32_t row;
        int32_t n_drafts;
    };

    int32_t                    capacity_;
    int32_t                    n_outputs_ = 0;
    llama_seq_id               lowest_seq_  = INT32_MAX;
    llama_seq_id               highest_seq_ = INT32_MIN;
    std::vector<llama_token>   tokens_;
    std::vector<llama_pos>     positions_;
    std::vector<int32_t>       n_seq_ids_;
    std::vector<llama_seq_id>  seq_ids_;
    std::vector<llama_seq_id*> seq_id_ptrs_;
    std::vector<int8_t>        wants_logits_;
    std::vector<Turn>          turns_;
    std::vector<float *>       logits_;    // of each row that some head samples, by row
};

} // namespace minerva
