"""Starts PetSage: the same as `petsage serve`."""

from petsage.cli import main

main(["serve"])
