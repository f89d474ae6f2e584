"""Input features of each tokenizer: small integers about the token to come, computed from the ids before it."""
