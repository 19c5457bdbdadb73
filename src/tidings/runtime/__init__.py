"""The composition root: the only place that knows the concrete store, sender and web together.

Clock, dice and environment enter here and are passed on; nothing else in the service reads them.

machine     what is taken from the machine: clocks, dice, the loop, open files
database    the store of the settings, and its key
service     everything that runs, put together on a store and a way to post
serving     `serve` and `dispatch`: opened, run, closed
workers     the processes of `serve --workers`, as their parent keeps them
worker      one of those processes, as a program
"""

from tidings.runtime.database import migrate, open_store, open_tokens
from tidings.runtime.machine import run
from tidings.runtime.service import Service, Serving, assemble
from tidings.runtime.serving import dispatch, serve

__all__ = [
    "Service",
    "Serving",
    "assemble",
    "dispatch",
    "migrate",
    "open_store",
    "open_tokens",
    "run",
    "serve",
]
