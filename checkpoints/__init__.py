"""The bundled weights, one NAME.safetensors each, and their cards, one NAME.md each. Made by `benchmarks/bach.py`."""
