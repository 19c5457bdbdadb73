"""Who receives: nginx where there is one, else the receiver of this folder, named as such."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme
from tests.serving import free_port, wait_until

# Receivers listen on so many ports: as many origins, so that the cap on each is not what is measured.
PORTS: Final = 8

_NGINX: Final = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_buffer_size 2m; client_max_body_size 2m;
  {keep} {certificates}
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{ {listens} location / {{ add_header X-Hook-Secret $http_x_hook_secret; return 200; }} }}
}}
"""


@dataclass(frozen=True)
class Receivers:
    """Where deliveries may go: what answers there, and its origins."""

    kind: str
    origins: tuple[str, ...]

    def target(self, number: int) -> str:
        return f"{self.origins[number % len(self.origins)]}/{number}"


@dataclass(frozen=True)
class Certificates:
    """A throw-away authority (`bundle`), and what it gave 127.0.0.1 (`server`: certificate and key)."""

    bundle: Path
    server: Path

    @classmethod
    def make(cls, folder: Path) -> "Certificates":
        made = cls(folder / "authority.pem", folder / "server.pem")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(made.bundle))
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(made.server))
        return made


@contextmanager
def receivers(
    folder: Path, *, ports: int = PORTS, tls: Certificates | None = None, closing: bool = False
) -> Iterator[Receivers]:
    """Receivers on so many ports; `closing` ones close the connection after each answer."""
    scheme = "http" if tls is None else "https"
    if shutil.which("nginx") is None:
        options = (*(["--tls", str(tls.server)] if tls else []), *(["--close"] if closing else []))
        with own_receiver(*options) as port:
            yield Receivers("the built-in receiver", (f"{scheme}://127.0.0.1:{port}",))
        return
    chosen: set[int] = set()
    while len(chosen) < ports:
        chosen.add(free_port())
    with _nginx(folder, sorted(chosen), tls=tls, closing=closing):
        yield Receivers("nginx", tuple(f"{scheme}://127.0.0.1:{port}" for port in sorted(chosen)))


@contextmanager
def _nginx(folder: Path, ports: list[int], *, tls: Certificates | None, closing: bool) -> Iterator[None]:
    home = folder / f"nginx-{ports[0]}"
    home.mkdir()
    listens = " ".join(f"listen 127.0.0.1:{port} backlog=4096{' ssl' if tls else ''};" for port in ports)
    config = home / "nginx.conf"
    config.write_text(
        _NGINX.format(
            folder=home,
            listens=listens,
            keep="keepalive_timeout 0;" if closing else "keepalive_requests 100000000;",
            certificates=f"ssl_certificate {tls.server}; ssl_certificate_key {tls.server};" if tls else "",
        )
    )
    process = subprocess.Popen(["nginx", "-c", str(config), "-e", str(home / "nginx.log")])
    try:
        wait_until((home / "nginx.pid").exists)
        yield
    finally:
        process.terminate()
        process.wait()


@contextmanager
def own_receiver(*options: str) -> Iterator[int]:
    """The receiver of this folder, in a process of its own, ended by the end of its input; its port."""
    port = free_port()
    command = [sys.executable, "-m", "bench.receiver", str(port), *options]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        assert process.stdout.readline() == b"listening\n"
        yield port
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()
