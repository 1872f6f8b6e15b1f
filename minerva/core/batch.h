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

    llama_token token  = -1;
    Ending      ending = Ending::NONE;
    std::string text;                                 // what the last step made showable
    std::string error;                                // why the last step gave no token

    void take(float * logits);
};

std::string piece_of(const llama_vocab * vocab, llama_token token, bool special);

class Batch {
public:
    explicit Batch(int32_t n_tokens_max);

    void clear();
    // False when the batch is full. `head` may be null: the token's logits are not wanted then.
    bool add(llama_token token, llama_pos pos, llama_seq_id seq, Head * head, bool logits);
    // llama_decode's return code; heads are sampled when it is 0.
    int32_t run(llama_context * ctx, int n_threads);

    int32_t size() const { return (int32_t) tokens_.size(); }
    int32_t capacity() const { return capacity_; }
    const std::vector<Head *> & heads() const { return heads_; }

private:
    int32_t                    capacity_;
    std::vector<llama_token>   tokens_;
    std::vector<llama_pos>     positions_;
    std::vector<int32_t>       n_seq_ids_;
    std::vector<llama_seq_id>  seq_ids_;
    std::vector<llama_seq_id*> seq_id_ptrs_;
    std::vector<int8_t>        wants_logits_;
    std::vector<Head *>        heads_;
    std::vector<int32_t>       head_rows_;
    std::vector<float *>       head_logits_;
};

} // namespace minerva
