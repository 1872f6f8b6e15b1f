// The raw llama.cpp C API, without Minerva: the reference for fidelity and the ceiling for speed.
#pragma once

#include "llama.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    const char * model;
    int32_t      n_predict;
    int32_t      n_ctx; // 0: what the work needs
    int32_t      n_threads;
    int32_t      n_batch; // 0: the whole prompt (greedy) or 2048 (bench)
    int32_t      n_ubatch;
    int32_t      n_gpu_layers;
    bool         kv_unified;
    // --greedy
    const char * tokens;
    const char * tokens_file;
    const char * logits_file;
    // --bench
    int32_t      clients;
    int32_t      requests;
    const char * prompt_tokens;
    uint64_t     seed;
} options;

int run_greedy(const options * opt, struct llama_model * model);
int run_bench(const options * opt, struct llama_model * model);

// A context for `n_seq` sequences that fill `n_ctx` cells together; NULL on failure.
struct llama_context * new_context(const options * opt, struct llama_model * model, int32_t n_ctx, int32_t n_seq, int32_t n_batch);

// Appends one token of one sequence; `batch` must have room.
void batch_add(struct llama_batch * batch, llama_token token, llama_pos pos, llama_seq_id seq, bool wants_logits);

// The most likely token of batch row `row`.
llama_token argmax(struct llama_context * ctx, int32_t row);

// Parses "1,2,3" or "1 2 3" up to the end of the line; returns the count, at most `cap`, or -1 on a non-number.
int32_t parse_ints(const char * text, int32_t * out, int32_t cap);
