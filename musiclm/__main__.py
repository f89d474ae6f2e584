"""python -m musiclm."""

from .cli import main

main()
