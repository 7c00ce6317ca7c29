"""
Reading addresses, of whatever kind.

Pure text; opens nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from attrs import frozen

from chanproxy.endpoints.addresses import Address, SocketAddress, Traits, split
from chanproxy.endpoints.containers import PARSERS as CONTAINERS
from chanproxy.endpoints.guessing import EXAMPLES, guesses
from chanproxy.endpoints.paths import SeqpacketAddressSpec, UnixStreamAddressSpec
from chanproxy.endpoints.systemd import parseSystemd
from chanproxy.endpoints.tcp import parseTcp, parseTcp6
from chanproxy.endpoints.vsock import parseVsock
from chanproxy.words import Wrong, brief

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

    Of kinds that are not ours only the form is checked, and that there is such a kind: what they
    mean Twisted knows, and its plugins.

    @raise Wrong: what is wrong, a sentence for each, and what to write instead.
    """
    try:
        return _parse(description, listening)
    except ValueError as error:
        raise _explained(description, listening, str(error)) from None


def _explained(
    description: str,
    listening: bool,
    wrong: str,
    serves: Callable[[Address], bool] = lambda address: True,
) -> Wrong:
    """@param serves: whether an address is of use there."""
    meant: dict[str, str] = {}

    def serving(text: str) -> bool:
        try:
            return serves(_parse(text, listening))
        except ValueError:
            return False

    for guess in guesses(description, listening, [*_PARSERS, *_PLAIN]):
        if serving(guess):
            meant.setdefault(guess.partition(":")[0], guess)
    better = list(meant.values())
    if description.strip()[:1] not in ("/", "@"):
        # Of a path nobody can know whether it is for streams or for packets.
        better = better[:1]
    known = EXAMPLES.get(description.partition(":")[0].lower())
    examples = [] if known is None else [known[not listening]]
    return Wrong(wrong, *better, examples=[each for each in examples if serving(each)])


def _parse(description: str, listening: bool) -> Address:
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
            f"as {', '.join(EXAMPLES[each][not listening] for each in ('seqpacket', 'unix'))} or "
            f"{EXAMPLES['tcp'][not listening]} do"
        )
    if kind.lower() not in _PLAIN and kind.lower() not in (others := _others(listening)):
        known = [name for name in (*_PARSERS, *_PLAIN, *others) if _has(name, listening)]
        raise ValueError(
            f"{brief(kind)} is no kind of address; there are {', '.join(dict.fromkeys(known))}"
        )
    return OtherAddressSpec(kind, description)


def parseHttp(description: str) -> SocketAddress:
    """
    Read where to answer over HTTP.

    @raise Wrong: what is wrong, a sentence for each, and what to write instead.
    """
    try:
        address = _parse(description, listening=True)
        if isinstance(address, SocketAddress) and _carriesHttp(address):
            return address
        wrong = (
            f"{brief(description)} carries no HTTP here; "
            "that takes unix:, as in unix:/run/chanproxy/http.sock, or tcp:, as in tcp:8080"
        )
    except ValueError as error:
        wrong = str(error)
    raise _explained(description, True, wrong, _carriesHttp)


def _carriesHttp(address: Address) -> bool:
    return isinstance(address, SocketAddress) and address.scheme in ("unix", "tcp")


def _others(listening: bool) -> Collection[str]:
    """What Twisted and its plugins know besides."""
    from chanproxy.plugins import endpointKinds

    return endpointKinds(listening)


def _has(kind: str, listening: bool) -> bool:
    return kind not in (CONTAINERS if listening else _FOR_LISTENING)


_FOR_LISTENING = ("tcp6", "systemd")

_PARSERS: dict[str, Callable[[Sequence[str], Mapping[str, str], bool], Address]] = {
    "seqpacket": SeqpacketAddressSpec.parse,
    "unix": UnixStreamAddressSpec.parse,
    "tcp": parseTcp,
    "tcp6": parseTcp6,
    "vsock": parseVsock,
    "systemd": parseSystemd,
    **CONTAINERS,
}
