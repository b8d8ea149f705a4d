"""`python -m petsage` is `petsage`."""

from petsage.cli import main

main()
