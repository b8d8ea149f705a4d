"""Every kind of thing that a handler can take and answer."""

from petsage import Feature

from .routes import routes

feature = Feature(routes)
