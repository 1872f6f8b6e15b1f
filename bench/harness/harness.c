// minerva-harness: options, and what both modes share.
#include "harness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char USAGE[] =
    "minerva-harness --greedy -m MODEL (--tokens 1,2,3 | --tokens-file FILE) [-n N] [--logits FILE]\n"
    "    prints {\"tokens\": [...]} for each prompt (a line of the file), each in a fresh memory;\n"
    "    --logits writes the float32 logits of the last prompt row, one prompt after the other\n"
    "minerva-harness --bench -m MODEL [--clients N] [--requests N] [--prompt-tokens 111,...] [-n N] [--seed N]\n"
    "    prints one JSON object of rates\n"
    "both: [-c CTX] [-t THREADS] [-b BATCH] [-ub UBATCH] [-ngl LAYERS] [--kv-unified] [--verbose]\n";

static void quiet_log(enum ggml_log_level level, const char * text, void * user) {
    (void) user;
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

struct llama_context * new_context(const options * opt, struct llama_model * model, int32_t n_ctx, int32_t n_seq, int32_t n_batch) {
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx           = (uint32_t) n_ctx;
    params.n_seq_max       = (uint32_t) n_seq;
    params.n_batch         = (uint32_t) n_batch;
    params.n_ubatch        = (uint32_t) (opt->n_ubatch < n_batch ? opt->n_ubatch : n_batch);
    params.n_threads       = opt->n_threads;
    params.n_threads_batch = opt->n_threads;
    params.kv_unified      = opt->kv_unified;
    params.n_outputs_max   = (uint32_t) n_seq;
    params.no_perf         = true;
    return llama_init_from_model(model, params);
}

void batch_add(struct llama_batch * batch, llama_token token, llama_pos pos, llama_seq_id seq, bool wants_logits) {
    const int32_t i      = batch->n_tokens++;
    batch->token[i]      = token;
    batch->pos[i]        = pos;
    batch->n_seq_id[i]   = 1;
    batch->seq_id[i][0]  = seq;
    batch->logits[i]     = wants_logits;
}

// Maxima of whole lanes, which the compiler turns into SIMD; ties go to the lower id.
static float block_max(const float * x, int32_t n) {
    enum { LANES = 16 };
    float lane[LANES];
    for (int32_t k = 0; k < LANES; ++k) {
        lane[k] = x[0];
    }
    int32_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int32_t k = 0; k < LANES; ++k) {
            lane[k] = x[i + k] > lane[k] ? x[i + k] : lane[k];
        }
    }
    for (; i < n; ++i) {
        lane[0] = x[i] > lane[0] ? x[i] : lane[0];
    }
    for (int32_t k = 1; k < LANES; ++k) {
        lane[0] = lane[k] > lane[0] ? lane[k] : lane[0];
    }
    return lane[0];
}

llama_token argmax(struct llama_context * ctx, int32_t row) {
    enum { BLOCK = 1024 };
    const float *  logits = llama_get_logits_ith(ctx, row);
    const int32_t  n      = llama_vocab_n_tokens(llama_model_get_vocab(llama_get_model(ctx)));
    llama_token    best   = 0;
    for (int32_t start = 0; start < n; start += BLOCK) {
        const int32_t size = n - start < BLOCK ? n - start : BLOCK;
        const float   top  = block_max(logits + start, size);
        if (top > logits[best]) {
            for (best = start; logits[best] != top; ++best) {
            }
        }
    }
    return best;
}

int32_t parse_ints(const char * text, int32_t * out, int32_t cap) {
    int32_t n = 0;
    while (n < cap) {
        text += strspn(text, " ,\t\r[]");
        if (*text == '\0' || *text == '\n') {
            break;
        }
        char * end;
        errno            = 0;
        const long value = strtol(text, &end, 10);
        if (end == text || errno != 0 || value < 0 || value > INT32_MAX) {
            return -1;
        }
        out[n++] = (int32_t) value;
        text     = end;
    }
    return n;
}

static int usage(const char * problem) {
    fprintf(stderr, "minerva-harness: %s\n%s", problem, USAGE);
    return 2;
}

// Every option but the flags takes one value: where it goes, as text or as a number.
typedef struct {
    const char *  name;
    const char ** text;
    int32_t *     number;
} setting;

static bool set(const setting * s, const char * value) {
    if (s->text) {
        *s->text = value;
        return true;
    }
    return parse_ints(value, s->number, 1) == 1;
}

int main(int argc, char ** argv) {
    options opt     = { .n_predict = 64, .n_threads = 2, .n_ubatch = 512, .clients = 1, .requests = 4, .prompt_tokens = "111" };
    int32_t seed    = 1;
    bool    greedy  = false, bench = false, verbose = false;
    const setting settings[] = {
        { "-m", &opt.model, NULL },
        { "-n", NULL, &opt.n_predict },
        { "-c", NULL, &opt.n_ctx },
        { "-t", NULL, &opt.n_threads },
        { "--threads", NULL, &opt.n_threads },
        { "-b", NULL, &opt.n_batch },
        { "-ub", NULL, &opt.n_ubatch },
        { "-ngl", NULL, &opt.n_gpu_layers },
        { "--tokens", &opt.tokens, NULL },
        { "--tokens-file", &opt.tokens_file, NULL },
        { "--logits", &opt.logits_file, NULL },
        { "--clients", NULL, &opt.clients },
        { "--requests", NULL, &opt.requests },
        { "--prompt-tokens", &opt.prompt_tokens, NULL },
        { "--seed", NULL, &seed },
    };
    const struct { const char * name; bool * flag; } flags[] = {
        { "--greedy", &greedy }, { "--bench", &bench }, { "--kv-unified", &opt.kv_unified }, { "--verbose", &verbose },
    };

    for (int i = 1; i < argc; ++i) {
        bool known = false;
        for (size_t k = 0; k < sizeof(flags) / sizeof(flags[0]); ++k) {
            if (strcmp(argv[i], flags[k].name) == 0) {
                *flags[k].flag = known = true;
            }
        }
        for (size_t k = 0; !known && k < sizeof(settings) / sizeof(settings[0]); ++k) {
            if (strcmp(argv[i], settings[k].name) == 0) {
                if (i + 1 >= argc || !set(&settings[k], argv[++i])) {
                    return usage(argv[i]);
                }
                known = true;
            }
        }
        if (!known) {
            return usage(argv[i]);
        }
    }
    opt.seed = (uint64_t) seed;
    if (!opt.model || greedy == bench) {
        return usage("give a model and one of --greedy, --bench");
    }
    if (opt.n_threads < 1 || opt.n_ubatch < 1 || opt.n_predict < 1 || opt.clients < 1 || opt.requests < 1) {
        return usage("counts must be positive");
    }

    if (!verbose) {
        llama_log_set(quiet_log, NULL);
    }
    llama_backend_init();
    struct llama_model_params params = llama_model_default_params();
    params.n_gpu_layers              = opt.n_gpu_layers;
    struct llama_model * model       = llama_model_load_from_file(opt.model, params);
    if (!model) {
        fprintf(stderr, "minerva-harness: cannot load %s\n", opt.model);
        return 1;
    }
    const int rc = greedy ? run_greedy(&opt, model) : run_bench(&opt, model);
    llama_model_free(model);
    llama_backend_free();
    return rc;
}
