// --greedy: the tokens plain llama_decode and argmax give, one prompt at a time.
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROMPT = 1 << 18, MAX_LINE = 1 << 21 };

static bool write_logits(FILE * file, struct llama_context * ctx, const struct llama_model * model) {
    const size_t n = (size_t) llama_vocab_n_tokens(llama_model_get_vocab(model));
    return fwrite(llama_get_logits_ith(ctx, -1), sizeof(float), n, file) == n;
}

static bool decode_prompt(struct llama_context * ctx, struct llama_batch * batch, const llama_token * prompt, int32_t n) {
    const int32_t step = (int32_t) llama_n_batch(ctx);
    for (int32_t start = 0; start < n; start += step) {
        batch->n_tokens = 0;
        for (int32_t i = start; i < n && i < start + step; ++i) {
            batch_add(batch, prompt[i], i, 0, i == n - 1);
        }
        if (llama_decode(ctx, *batch) != 0) {
            return false;
        }
    }
    return true;
}

static int one_prompt(const options * opt, struct llama_model * model, const llama_token * prompt, int32_t n, FILE * logits) {
    const int32_t n_batch = opt->n_batch > 0 ? opt->n_batch : n;
    struct llama_context * ctx = new_context(opt, model, opt->n_ctx > 0 ? opt->n_ctx : n + opt->n_predict, 1, n_batch);
    if (!ctx) {
        return 1;
    }
    struct llama_batch batch = llama_batch_init(n_batch, 0, 1);
    bool ok = decode_prompt(ctx, &batch, prompt, n) && (!logits || write_logits(logits, ctx, model));
    printf("{\"tokens\": [");
    for (int32_t i = 0; ok && i < opt->n_predict; ++i) {
        const llama_token token = argmax(ctx, -1);
        printf(i ? ", %d" : "%d", token);
        if (i + 1 == opt->n_predict) {
            break;
        }
        batch.n_tokens = 0;
        batch_add(&batch, token, n + i, 0, true);
        ok = llama_decode(ctx, batch) == 0;
    }
    printf("]}\n");
    fflush(stdout);
    llama_batch_free(batch);
    llama_free(ctx);
    return ok ? 0 : 1;
}

static int each_line(const options * opt, struct llama_model * model, FILE * file, FILE * logits) {
    char *        line   = malloc(MAX_LINE);
    llama_token * prompt = malloc(MAX_PROMPT * sizeof(*prompt));
    int           rc     = line && prompt ? 0 : 1;
    while (rc == 0 && fgets(line, MAX_LINE, file)) {
        const int32_t n = parse_ints(line, prompt, MAX_PROMPT);
        if (n != 0) { // blank lines are skipped
            rc = n > 0 ? one_prompt(opt, model, prompt, n, logits) : 2;
        }
    }
    free(prompt);
    free(line);
    return rc;
}

int run_greedy(const options * opt, struct llama_model * model) {
    FILE * input = opt->tokens_file ? fopen(opt->tokens_file, "r")
                   : opt->tokens    ? fmemopen((void *) (uintptr_t) opt->tokens, strlen(opt->tokens), "r")
                                    : NULL;
    if (!input) {
        fprintf(stderr, "minerva-harness: --greedy needs --tokens or a readable --tokens-file\n");
        return 2;
    }
    FILE * logits = opt->logits_file ? fopen(opt->logits_file, "wb") : NULL;
    int    rc     = opt->logits_file && !logits ? 2 : each_line(opt, model, input, logits);
    if (logits && fclose(logits) != 0) {
        rc = 1;
    }
    fclose(input);
    if (rc != 0) {
        fprintf(stderr, "minerva-harness: greedy decoding failed\n");
    }
    return rc;
}
