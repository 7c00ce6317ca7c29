"""
Where an engine listens, as C{DOCKER_HOST} says it.

Nothing is connected here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from attrs import frozen

from chanproxy.words import Wrong, brief

DOCKER = "unix:///var/run/docker.sock"
"""Where Docker listens unless told otherwise; C{DefaultDockerHost} of its client."""

PODMAN = "unix:///run/podman/podman.sock"
"""Where Podman's C{podman.socket} listens, for root."""

_PORT = 2375
"""Docker's, without TLS."""


@frozen
class Host:
    """
    An engine's address.

    @ivar path: a Unix socket; empty: it is at C{host} and C{port}.
    @ivar certificates: the directory of C{ca.pem}, C{cert.pem} and C{key.pem}; empty: no TLS.
    """

    path: str = ""
    host: str = ""
    port: int = 0
    certificates: str = ""

    @property
    def elsewhere(self) -> bool:
        """Whether its networks are not this machine's: it is another one's, or a user's own."""
        return not self.path or self.path.startswith("/run/user/") or os.geteuid() != 0

    def __str__(self) -> str:
        return f"unix://{self.path}" if self.path else f"tcp://{self.host}:{self.port}"


def parseHost(text: str, certificates: str = "") -> Host:
    """
    An address, from what people write.

    @raise Wrong: it is none that can be used.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise Wrong(f"{brief(text)} is no address of an engine") from None
    if parts.scheme == "unix" and parts.path:
        return Host(path=parts.path)
    if parts.scheme in ("tcp", "http", "https") and parts.hostname:
        return Host("", parts.hostname, port or _PORT, certificates)
    raise Wrong(
        f"{brief(text)} is no address of an engine that can be used: it has to be unix:///PATH or "
        "tcp://HOST:PORT"
    )


def dockerHost(environment: Mapping[str, str] = os.environ) -> Host:
    """
    Docker's, as its own client finds it: C{DOCKER_HOST}, C{DOCKER_TLS_VERIFY}, C{DOCKER_CERT_PATH}.

    @raise Wrong: it is none that can be used.
    """
    tls = environment.get("DOCKER_TLS_VERIFY", "")
    home = os.path.join(environment.get("HOME", "/"), ".docker")
    certificates = environment.get("DOCKER_CERT_PATH", home) if tls else ""
    return parseHost(environment.get("DOCKER_HOST") or DOCKER, certificates)


def podmanHost(environment: Mapping[str, str] = os.environ) -> Host:
    """
    Podman's, as its own client finds it: C{CONTAINER_HOST}, else that of this user.

    @raise Wrong: it is none that can be used.
    """
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    own = f"unix://{runtime}/podman/podman.sock" if os.geteuid() and runtime else PODMAN
    return parseHost(environment.get("CONTAINER_HOST") or own)


def hostOf(kind: str) -> Host:
    """
    Where the engine of a kind listens, C{docker} or C{podman}.

    @raise Wrong: at nothing that can be used.
    """
    return dockerHost() if kind == "docker" else podmanHost()
