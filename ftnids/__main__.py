"""`python -m ftnids` is the command line."""

from ftnids.cli import main

main()
