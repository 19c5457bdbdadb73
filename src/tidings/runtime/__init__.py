"""The composition root: the only place that knows the concrete store, sender and web together.

Clock, dice and environment enter here and are passed on; nothing else in the service reads them.

machine     what is taken from the machine: clocks, dice, the loop, open files
database    the store of the settings, its key, its backups
service     everything that runs, put together on a store and a network
serving     `serve` and `dispatch`: opened, run, closed
workers     the processes of `serve --workers`, as their parent keeps them
worker      one of those processes, as a program
"""

from tidings.runtime.database import back_up, migrate, open_store, open_tokens, restore
from tidings.runtime.machine import run
from tidings.runtime.service import Service, Serving, assemble
from tidings.runtime.serving import dispatch, serve

__all__ = [
    "Service",
    "Serving",
    "assemble",
    "back_up",
    "dispatch",
    "migrate",
    "open_store",
    "open_tokens",
    "restore",
    "run",
    "serve",
]
