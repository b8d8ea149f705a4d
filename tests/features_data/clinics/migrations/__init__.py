"""The steps in which the tables came about, the oldest first."""

from petsage.storage import Migration

from . import m0001_create_clinics

MIGRATIONS = (Migration.of(m0001_create_clinics),)
