"""A receiver that attacks: one of the personalities that the sender is tested against, in a process of its own.

Run as `python -m bench.hostile NAME FOLDER`; it prints its origin, and ends with its standard input. The authority that
its certificates come from, where it has any, lies in FOLDER as `authority.pem`.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trustme
import uvloop
from tests.transport.certificates import Authorities
from tests.transport.test_personalities import PERSONALITIES

BUNDLE: Final = "authority.pem"


@contextmanager
def attacker(name: str, folder: Path) -> Iterator[str]:
    """Such a receiver, ended by the end of its input; its origin."""
    command = [sys.executable, "-m", "bench.hostile", name, str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().decode().strip()
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


async def _attack(name: str, folder: Path) -> None:
    (personality,) = (each for each in PERSONALITIES if each.name == name)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / BUNDLE))
    async with personality.listen(Authorities.beside(authority, folder)) as peer:
        print(peer.url(path=""), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(_attack(sys.argv[1], Path(sys.argv[2])))
