"""`python -m groupwise`: the command of the same name."""

from groupwise.cli import main

main()
