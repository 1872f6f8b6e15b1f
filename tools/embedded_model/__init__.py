"""How the model in `minerva/assets` is made: corpus, tokenizer, training, GGUF export and evaluation."""
