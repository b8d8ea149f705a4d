"""Verify logs."""

from petsage import Feature

from .routes import routes

feature = Feature(routes)
