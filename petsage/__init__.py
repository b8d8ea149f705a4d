"""PetSage: a backend in which a feature is a folder and the health check tells the truth."""

import gc

from petsage.signals import end_quietly, is_command

_is_command = is_command()
if _is_command:
    end_quietly()

# Importing makes hundreds of thousands of objects and no garbage; looking for some among them
# takes a fifth of a start. It goes on when everything is imported: a command says itself when.
_collects = gc.isenabled() and not _is_command
gc.disable()

if _is_command:  # whoever merely uses the package has aiohttp as it is
    from petsage.client_side import postpone_client

    postpone_client()
    del postpone_client

from aiohttp.web import AppKey, Request, StreamResponse

from petsage.errors import Problem
from petsage.feature import SETTINGS, Feature, Routes
from petsage.generation import RETIRING
from petsage.health import Check
from petsage.logs.pipeline import prove
from petsage.logs.receipts import Receipt, SinkReceipt
from petsage.signature import AnswerHeader, Body, Cookie, FromApp, Header, Media, Query, Reply

if _collects:
    if not gc.get_freeze_count():
        # What was made counts as old, and is not looked through at the next allocation.
        gc.freeze()
        gc.unfreeze()
    gc.enable()
del end_quietly, gc, is_command

__all__ = [
    "RETIRING",
    "SETTINGS",
    "AnswerHeader",
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
