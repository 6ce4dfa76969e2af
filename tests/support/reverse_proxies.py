"""Runs nginx, Caddy and HAProxy with the configurations of docs/deployment.md."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.pages import Section, sections
from tests.support.ports import free_port
from tests.support.times import SOON, STEP
from tests.support.tools import ROOT

DOMAIN = "hub.example.org"
# What stands before nginx's part of a configuration, so that it runs in one directory.
NGINX_MAIN = """daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
access_log off;
client_body_temp_path {directory}/body;
proxy_temp_path {directory}/proxy;
fastcgi_temp_path {directory}/fastcgi;
uwsgi_temp_path {directory}/uwsgi;
scgi_temp_path {directory}/scgi;
{server}
}}
"""


def deployment() -> dict[str, Section]:
    """Return the sections of docs/deployment.md by their titles."""
    return {part.title: part for part in sections((ROOT / "docs/deployment.md").read_text())}


def program(name: str) -> str:
    """Return where a program is; where it must be there (HUB_REQUIRE_ALL), fail without it."""
    # Debian puts servers where only root looks.
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None and os.environ.get("HUB_REQUIRE_ALL"):
        pytest.fail(f"no {name} on this machine, and HUB_REQUIRE_ALL is set")
    if found is None:
        pytest.skip(f"no {name} on this machine")
    return found


def replace(text: str, **by_name: tuple[str, str]) -> str:
    """Replace texts, each of which must be there."""
    for name, (old, new) in by_name.items():
        assert old in text, f"{name}: {old!r} is not in the page"
        text = text.replace(old, new)
    return text


class ProxyProgram:
    """One of the three programs, on a port of its own, with a configuration that names this port."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, text: str) -> None:
        """Start the program with a configuration, and return when it listens."""
        binary = program(self.name)
        file = self._directory / ("Caddyfile" if self.name == "caddy" else f"{self.name}.conf")
        file.write_text(text)
        command = {
            "nginx": [binary, "-c", str(file)],
            "caddy": [binary, "run", "--config", str(file), "--adapter", "caddyfile"],
            "haproxy": [binary, "-db", "-f", str(file)],
        }[self.name]
        environ = os.environ | {"HOME": str(self._directory)}
        environ |= {"XDG_DATA_HOME": str(self._directory), "XDG_CONFIG_HOME": str(self._directory)}
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
        deadline = time.monotonic() + SOON
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            log_text = (self._directory / "log").read_text()
            assert self._process.poll() is None, f"{log_text}\n{text}"
            assert time.monotonic() < deadline, log_text
            time.sleep(STEP)

    def stop(self) -> None:
        """End the program."""
        if self._process is not None:
            # Killed, nginx would leave its worker behind; asked to end, Caddy waits for its WebSockets.
            end = signal.SIGTERM if self.name == "nginx" else signal.SIGKILL
            self._process.send_signal(end)
            self._process.wait(SOON)


class ReverseProxy(ProxyProgram):
    """One of the three programs in front of hubs, with TLS, as docs/deployment.md configures it."""

    def __init__(self, name: str, directory: Path, certificate: Path, hubs: list[int]) -> None:
        super().__init__(name, directory)
        self._certificate = certificate
        self._hubs = hubs

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def start(self, *, below_a_path: bool) -> None:
        """Start the program, and return when it listens. `below_a_path`: the hubs have the page's base path."""
        self.run(getattr(self, f"_{self.name}")(below_a_path))

    def _nginx(self, below_a_path: bool) -> str:
        text = deployment()["Behind nginx"].blocks[0].text
        if below_a_path:
            location = deployment()["Below a path"].blocks[0].text
            text = replace(text, location=("    location / {\n", location))
        text = replace(
            text,
            listen=("listen 443 ssl", f"listen 127.0.0.1:{self.port} ssl"),
            certificate=(f"/etc/ssl/{DOMAIN}.crt", str(self._certificate)),
            key=(f"/etc/ssl/{DOMAIN}.key", str(self._certificate)),
            domain=(DOMAIN, "localhost"),
            hub=("127.0.0.1:8000", f"127.0.0.1:{self._hubs[0]}"),
        )
        if self._hubs[1:]:
            upstream, proxy_pass = self._several("nginx", 2)
            old = f"proxy_pass http://127.0.0.1:{self._hubs[0]};"
            text = self._on_ports(upstream) + replace(text, several=(old, proxy_pass))
        return NGINX_MAIN.format(directory=self._directory, server=text)

    def _caddy(self, below_a_path: bool) -> str:
        section = "Below a path" if below_a_path else "Behind Caddy"
        [text] = [block.text for block in deployment()[section].blocks if not block.language]
        own = f"https://localhost:{self.port} {{\n\ttls {self._certificate} {self._certificate}\n"
        text = replace(
            text, site=(f"{DOMAIN} {{\n", own), host=(f"Host {DOMAIN}", "Host localhost")
        )
        if self._hubs[1:]:
            [line] = self._several("Caddy", 1)
            old = "reverse_proxy 127.0.0.1:8000 {"
            text = replace(text, several=(old, line.removesuffix("}").replace("{ ", "{\n")))
        return "{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + self._on_ports(text)

    def _haproxy(self, below_a_path: bool) -> str:
        text = deployment()["Behind HAProxy"].blocks[0].text
        if below_a_path:
            [rule] = [b for b in deployment()["Below a path"].blocks if b.language == "haproxy"]
            text = replace(
                text,
                rule=("    default_backend hub\n", rule.text),
                check=("uri /readyz", "uri /realtime/readyz"),
            )
        text = replace(
            text,
            bind=("bind :443", f"bind 127.0.0.1:{self.port}"),
            certificate=(f"/etc/haproxy/{DOMAIN}.pem", str(self._certificate)),
            domain=(DOMAIN, "localhost"),
        )
        if self._hubs[1:]:
            balance, _, _ = self._several("HAProxy", 3)
            old = "    server hub-1 127.0.0.1:8000 check inter 500ms fall 2\n"
            line = old.replace("hub-1", "hub-2").replace("8000", "8001")
            text = replace(text, several=(old, f"    {balance}\n{old}{line}"))
        return self._on_ports(text)

    def _several(self, name: str, count: int) -> list[str]:
        """Return the pieces of code in the page's line about several hubs behind a program."""
        prose = " ".join(deployment()["Several hub processes"].prose)
        line = prose.split(f"- {name}: ")[1].split(" - ")[0]
        pieces = line.split("`")[1::2]
        assert len(pieces) >= count, line
        return pieces[:count]

    def _on_ports(self, text: str) -> str:
        """Put the hubs' ports in the place of the page's."""
        for number, port in enumerate(self._hubs):
            text = text.replace(f"127.0.0.1:{8000 + number}", f"127.0.0.1:{port}")
        return text
