"""Proves on each call that the service answers and that its log is written."""

from petsage import Feature

from .routes import routes

feature = Feature(routes)
