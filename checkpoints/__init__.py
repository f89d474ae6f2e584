"""The bundled weights, NAME.safetensors, and their cards, NAME.md: recipes/bundle.py, score.py and notes.py make them."""
