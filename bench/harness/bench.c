// --bench: the ceiling. Continuous batching in its simplest form: fill the free slots with prompts,
// decode all of them in lock step, and refill when sequences end.
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { MAX_LENGTHS = 1024, N_BATCH = 2048, LONG_PREFILL = N_BATCH };

typedef struct {
    bool        active;
    llama_pos   n_past;
    int32_t     n_left;
    llama_token last;
    int32_t     row;
} slot;

typedef struct {
    int64_t prompt_tokens, output_tokens;
    int64_t prefill_us, decode_us;
} tally;

typedef struct {
    struct llama_context * ctx;
    struct llama_batch     batch;
    slot *                 slots;
    int32_t                n_slots, n_predict, n_vocab;
    uint64_t               rng;
    tally                  done;
} bench;

// splitmix64: prompts that repeat on every platform
static uint64_t next_random(uint64_t * state) {
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static bool decode(bench * b, int64_t * spent_us) {
    const int64_t start = llama_time_us();
    const bool    ok    = b->batch.n_tokens == 0 || llama_decode(b->ctx, b->batch) == 0;
    for (int32_t i = 0; ok && i < b->n_slots; ++i) {
        slot * s = &b->slots[i];
        if (s->row >= 0) {
            s->last = argmax(b->ctx, s->row);
            s->row  = -1;
            s->n_left--;
            b->done.output_tokens++;
        }
    }
    b->batch.n_tokens = 0;
    *spent_us += llama_time_us() - start;
    return ok;
}

static bool prefill(bench * b, int32_t seq, int32_t length) {
    slot * s = &b->slots[seq];
    *s       = (slot) { .active = true, .n_left = b->n_predict, .row = -1 };
    for (int32_t i = 0; i < length; ++i) {
        if (b->batch.n_tokens == LONG_PREFILL && !decode(b, &b->done.prefill_us)) {
            return false;
        }
        const llama_token token = (llama_token) (next_random(&b->rng) % (uint64_t) (b->n_vocab / 2));
        if (i == length - 1) {
            s->row = b->batch.n_tokens;
        }
        batch_add(&b->batch, token, s->n_past++, seq, i == length - 1);
    }
    b->done.prompt_tokens += length;
    return true;
}

static bool decode_step(bench * b) {
    for (int32_t i = 0; i < b->n_slots; ++i) {
        slot * s = &b->slots[i];
        if (s->active) {
            s->row = b->batch.n_tokens;
            batch_add(&b->batch, s->last, s->n_past++, i, true);
        }
    }
    return decode(b, &b->done.decode_us);
}

static int32_t release_finished(bench * b) {
    int32_t active = 0;
    for (int32_t i = 0; i < b->n_slots; ++i) {
        slot * s = &b->slots[i];
        if (s->active && s->n_left <= 0) {
            llama_memory_seq_rm(llama_get_memory(b->ctx), i, -1, -1);
            s->active = false;
        }
        active += s->active;
    }
    return active;
}

static bool serve(bench * b, int32_t requests, const int32_t * lengths, int32_t n_lengths) {
    int32_t started = 0;
    for (;;) {
        const int32_t active = release_finished(b);
        if (active == 0 && started == requests) {
            return true;
        }
        for (int32_t i = 0; i < b->n_slots && started < requests; ++i) {
            if (!b->slots[i].active) {
                if (!prefill(b, i, lengths[started % n_lengths])) {
                    return false;
                }
                started++;
            }
        }
        if (!decode(b, &b->done.prefill_us)) {
            return false;
        }
        if (release_finished(b) > 0 && !decode_step(b)) {
            return false;
        }
    }
}

static double rate(int64_t count, int64_t us) {
    return us > 0 ? (double) count * 1e6 / (double) us : 0.0;
}

static void report(const options * opt, const tally * t, int64_t wall_us) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"clients\": %d, \"requests\": %d, \"kv_unified\": %s, \"prompt_tokens\": %lld, \"output_tokens\": %lld, "
           "\"wall_s\": %.4f, \"prefill_s\": %.4f, \"decode_s\": %.4f, \"prefill_tok_s\": %.2f, \"decode_tok_s\": %.2f, "
           "\"output_tok_s\": %.2f, \"total_tok_s\": %.2f, \"peak_rss_bytes\": %lld}\n",
           opt->clients, opt->requests, opt->kv_unified ? "true" : "false", (long long) t->prompt_tokens,
           (long long) t->output_tokens, (double) wall_us / 1e6, (double) t->prefill_us / 1e6, (double) t->decode_us / 1e6,
           rate(t->prompt_tokens, t->prefill_us), rate(t->output_tokens - opt->requests, t->decode_us),
           rate(t->output_tokens, wall_us), rate(t->prompt_tokens + t->output_tokens, wall_us),
#ifdef __APPLE__
           (long long) usage.ru_maxrss
#else
           (long long) usage.ru_maxrss * 1024
#endif
    );
}

int run_bench(const options * opt, struct llama_model * model) {
    int32_t       lengths[MAX_LENGTHS];
    const int32_t n_lengths = parse_ints(opt->prompt_tokens, lengths, MAX_LENGTHS);
    int32_t       longest   = 0;
    for (int32_t i = 0; i < n_lengths; ++i) {
        longest = lengths[i] > longest ? lengths[i] : longest;
    }
    if (n_lengths < 1 || longest < 1) {
        fprintf(stderr, "minerva-harness: --prompt-tokens needs lengths\n");
        return 2;
    }
    const int32_t per_slot = (longest + opt->n_predict + 255) / 256 * 256;
    const int32_t n_ctx    = opt->n_ctx > 0 ? opt->n_ctx : opt->clients * per_slot;
    const int32_t n_batch  = opt->n_batch > N_BATCH ? opt->n_batch : N_BATCH;

    bench b = {
        .ctx       = new_context(opt, model, n_ctx, opt->clients, n_batch),
        .batch     = llama_batch_init(n_batch, 0, 1),
        .slots     = calloc((size_t) opt->clients, sizeof(slot)),
        .n_slots   = opt->clients,
        .n_predict = opt->n_predict,
        .n_vocab   = llama_vocab_n_tokens(llama_model_get_vocab(model)),
        .rng       = opt->seed,
    };
    bool ok = b.ctx && b.slots;
    for (int32_t i = 0; ok && i < b.n_slots; ++i) {
        b.slots[i].row = -1;
    }
    // Pages of the weights are touched before the clock starts.
    const int32_t warm_up = 8;
    b.n_predict = 2;
    ok = ok && serve(&b, 1, &warm_up, 1);
    b.n_predict = opt->n_predict;
    b.done      = (tally) { 0 };

    const int64_t start = llama_time_us();
    ok = ok && serve(&b, opt->requests, lengths, n_lengths);
    if (ok) {
        report(opt, &b.done, llama_time_us() - start);
    } else {
        fprintf(stderr, "minerva-harness: benchmark failed\n");
    }
    free(b.slots);
    llama_batch_free(b.batch);
    if (b.ctx) {
        llama_free(b.ctx);
    }
    return ok ? 0 : 1;
}
