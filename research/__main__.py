"""`python -m research` is `frugal`."""

from research.cli import main

main()
