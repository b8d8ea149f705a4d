"""Clinics, which have a field of every kind."""

from petsage import Feature
from petsage.storage import DATABASE_CHECK, keeps

from .migrations import MIGRATIONS
from .routes import routes

feature = Feature(routes, lifespan=keeps(MIGRATIONS), checks=[DATABASE_CHECK])
