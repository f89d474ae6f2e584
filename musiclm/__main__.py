"""python -m musiclm."""

from musiclm.cli import main

main()
