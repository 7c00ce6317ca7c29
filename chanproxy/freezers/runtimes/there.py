"""
How an engine is reached: at a socket, or over TLS with certificates.

Loaded only with a container of an engine.
"""

from __future__ import annotations

import os
import re
from typing import Any

from attrs import frozen
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from chanproxy.freezers.runtimes.hosts import Host

PATIENCE = 10.0
"""Seconds for an answer; a container that starts keeps its engine from answering for 0.2."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.S)


@implementer(IAgentEndpointFactory)
@frozen
class There:
    """Leads all requests to one place."""

    reactor: Any
    host: Host

    def endpointForURI(self, uri: Any) -> Any:
        host = self.host
        if host.path:
            return _Quiet(UNIXClientEndpoint(self.reactor, host.path, PATIENCE))
        endpoint = HostnameEndpoint(self.reactor, host.host, host.port, PATIENCE)
        return _Quiet(wrapClientTLS(_options(host), endpoint) if host.certificates else endpoint)


@implementer(IStreamClientEndpoint)
@frozen
class _Quiet:
    """Says nothing of each connection in the log: there is one for each question."""

    _endpoint: Any

    def connect(self, factory: Any) -> Any:
        factory.noisy = False
        return self._endpoint.connect(factory)


def whyNotTrusted(host: Host) -> str | None:
    """What is wrong with the certificates that are to be used for it; nothing is connected."""
    try:
        if host.certificates:
            _options(host)
    except Exception as error:
        # Also what OpenSSL thinks of them.
        return f"{host}: the certificates in {host.certificates} cannot be used: {error}"
    return None


def _options(host: Host) -> Any:
    """Who we are, and whom we believe."""
    from twisted.internet.ssl import (
        Certificate,
        PrivateCertificate,
        optionsForClientTLS,
        trustRootFromCertificates,
    )

    def read(*names: str) -> bytes:
        texts = []
        for name in names:
            with open(os.path.join(host.certificates, name), "rb") as file:
                texts.append(file.read())
        return b"\n".join(texts)

    return optionsForClientTLS(
        host.host,
        trustRootFromCertificates(
            [Certificate.loadPEM(each) for each in _CERTIFICATE.findall(read("ca.pem"))]
        ),
        PrivateCertificate.loadPEM(read("key.pem", "cert.pem")),
    )
