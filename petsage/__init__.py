"""PetSage: a backend in which a feature is a folder and the health check tells the truth."""

import gc

from petsage.signals import end_quietly, is_command

if is_command():
    end_quietly()
del end_quietly, is_command

# Importing makes hundreds of thousands of objects and no garbage; looking for some among them
# takes a seventh of a start. It goes on as before when everything is imported.
_collects = gc.isenabled()
gc.disable()

from aiohttp.web import AppKey, Request, StreamResponse

from petsage.errors import Problem
from petsage.feature import SETTINGS, Feature, Routes
from petsage.health import Check
from petsage.logs.pipeline import prove
from petsage.logs.receipts import Receipt, SinkReceipt
from petsage.signature import Body, Cookie, FromApp, Header, Media, Query, Reply

if _collects:
    gc.enable()
del gc

__all__ = [
    "SETTINGS",
    "AppKey",
    "Body",
    "Check",
    "Cookie",
    "Feature",
    "FromApp",
    "Header",
    "Media",
    "Problem",
    "Query",
    "Receipt",
    "Reply",
    "Request",
    "Routes",
    "SinkReceipt",
    "StreamResponse",
    "prove",
]
