"""Input features of each tokenizer: small integers about the next token, computed from the ids before it."""
