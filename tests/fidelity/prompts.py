"""Real text to read before the random continuation."""

LONG = """\
The radix tree keeps every prompt that was computed, so that the next request with the same beginning starts where
that beginning ends. A cell of the cache belongs to all sequences that tagged it, and it is free when the last of them
lets go. "Is that not reference counting?" asked the reviewer. It is, said the engineer, but llama.cpp counts for us:
1, 2, 3, … 256 owners at most. Naïve code would copy; ours shares. def hit(tokens): return tree.longest_prefix(tokens)
"""

SENTENCES = [
    "Write a haiku about the sea.",
    "def fibonacci(n):\n    ",
    "The capital of France is",
    "Dear Sir or Madam,\n\nI am writing to",
    "1 2 3 4 5 6 7 8",
    "Il était une fois, dans un pays lointain,",
    "SELECT name FROM users WHERE",
    "To be, or not to be, that is the question:",
    "<html>\n<head>\n<title>",
    "In 1969, Neil Armstrong and Buzz Aldrin",
    "Ingredients: flour, sugar, two eggs,",
    "for (int i = 0; i < n; ++i) {",
    "Q: What is the meaning of life?\nA:",
    "The quick brown fox jumps over",
    "Once upon a midnight dreary, while I pondered, weak and weary,",
    "#include <stdio.h>\n\nint main(void) {",
]
