"""The bundled weights, NAME.safetensors, and their cards, NAME.md: benchmarks/bundle.py, score.py and notes.py make them."""
