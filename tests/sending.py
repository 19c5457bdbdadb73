"""Networks of tests' own, in both forms that the service wants of one."""

import asyncio
from dataclasses import dataclass

from tidings.model import Delivery, Post, Reply, Told


@dataclass(frozen=True)
class Posting:
    """A network made of a coroutine that posts."""

    post: Post

    def send(self, delivery: Delivery, told: Told) -> None:
        """Post in a task of its own; a mistake of the coroutine's is told too."""

        def over(task: asyncio.Future[Reply]) -> None:
            if not task.cancelled():
                error = task.exception()
                told(error if isinstance(error, Exception) else task.result())

        asyncio.ensure_future(self.post(delivery)).add_done_callback(over)
