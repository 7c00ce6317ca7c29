"""
Reading addresses, of whatever kind.

Pure text; opens nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from chanproxy.endpoints.addresses import Address, SocketAddress, Traits, split
from chanproxy.endpoints.paths import SeqpacketAddressSpec, UnixStreamAddressSpec
from chanproxy.endpoints.systemd import parseSystemd
from chanproxy.endpoints.tcp import parseTcp, parseTcp6
from chanproxy.endpoints.vsock import parseVsock
from chanproxy.words import brief

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")

_PLAIN = ("ssl", "tls")
"""Kinds of Twisted's own that carry no descriptors."""


@frozen
class OtherAddressSpec(Address):
    """
    An endpoint of Twisted's, or of a plugin's.

    @ivar description: the whole endpoint string.
    """

    scheme: str
    description: str

    @property
    def traits(self) -> Traits:
        """See L{Address}."""
        known = self.scheme.lower() in _PLAIN
        return Traits("bytes", False if known else None, False, False)

    @property
    def shown(self) -> str:
        """See L{Address}."""
        return self.description

    def openTo(self) -> tuple[str, str] | None:
        """See L{Address}: of Twisted's own kinds, where they listen is known."""
        interface = split(self.description)[2].get("interface", "")
        if self.scheme.lower() not in _PLAIN or interface.startswith("127.") or interface == "::1":
            return None
        return (
            "everybody who reaches this machine over the network",
            "write interface=127.0.0.1, unless its certificates or a firewall say who may",
        )


def parseAddress(description: str, listening: bool) -> Address:
    """
    Read the address of a channel.

    Of kinds that are not ours only the form is checked: what they mean Twisted knows, and its
    plugins.

    @raise ValueError: what is wrong, a sentence for each.
    """
    kind, arguments, options = split(description)
    parse = _PARSERS.get(kind)
    if parse is not None:
        return parse(arguments, options, listening)
    if kind.lower() in _PARSERS:
        # Twisted would take it for its own, which has other rules.
        raise ValueError(f"the kind {kind} is written {kind.lower()}")
    right = _SCHEME.fullmatch(kind) and (arguments or options) and description.isprintable()
    if not right:
        raise ValueError(
            f"{brief(description)} is no address; it begins with a kind and a colon, "
            "as seqpacket:/run/a.sock, unix:/run/a.sock or tcp:8080 do"
        )
    return OtherAddressSpec(kind, description)


def parseHttp(description: str) -> SocketAddress:
    """
    Read where to answer over HTTP.

    @raise ValueError: what is wrong, a sentence for each.
    """
    address = parseAddress(description, listening=True)
    if not isinstance(address, SocketAddress) or address.scheme not in ("unix", "tcp"):
        raise ValueError(
            f"{brief(description)} carries no HTTP here; "
            "that takes unix:, as in unix:/run/chanproxy/http.sock, or tcp:, as in tcp:8080"
        )
    return address


_PARSERS: dict[str, Callable[[Sequence[str], Mapping[str, str], bool], Address]] = {
    "seqpacket": SeqpacketAddressSpec.parse,
    "unix": UnixStreamAddressSpec.parse,
    "tcp": parseTcp,
    "tcp6": parseTcp6,
    "vsock": parseVsock,
    "systemd": parseSystemd,
}
