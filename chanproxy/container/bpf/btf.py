"""
Where the kernel that runs keeps the members of its structures, as it says in BTF itself.

Only searches for what is asked for: to parse all of it in Python would take seconds.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

VMLINUX = "/sys/kernel/btf/vmlinux"
"""What the kernel says of itself, where it was built with C{CONFIG_DEBUG_INFO_BTF}."""

_MAGIC, _KIND_STRUCT = 0xEB9F, 4
"""C{linux/btf.h}."""

_HEADER = struct.Struct("<HBBIIIII")
"""C{struct btf_header}: magic, version, flags, its length; where types and strings are."""

_ENTRY = struct.Struct("<III")
"""C{struct btf_type}, and each of its C{struct btf_member}s: both begin with a name."""


class NotFound(Exception):
    """The text says what is not there."""


def memberOffsets(text: bytes, structure: str, members: Sequence[str]) -> list[int]:
    """
    Bytes from the beginning of a structure to members of it.

    @param text: what is in L{VMLINUX}.
    @raise NotFound: it is not BTF, or has no such structure with all of these members in itself,
        each at a whole byte.
    """
    if len(text) < _HEADER.size:
        raise NotFound("no BTF")
    magic, _, _, header, typesAt, typesLength, namesAt, namesLength = _HEADER.unpack_from(text)
    if magic != _MAGIC:
        raise NotFound("no BTF of a little-endian machine")
    types = text[header + typesAt : header + typesAt + typesLength]
    names = text[header + namesAt : header + namesAt + namesLength]
    wanted = [_nameOf(names, member) for member in members]
    name = _nameOf(names, structure)
    at = types.find(name)
    while at >= 0:
        # The same four bytes may stand for anything else, in the middle of something.
        if at % 4 == 0 and (found := _members(types, at, wanted)) is not None:
            return found
        at = types.find(name, at + 1)
    raise NotFound(f"no struct {structure} with {', '.join(members)}")


def _nameOf(names: bytes, name: str) -> bytes:
    """A name as types spell it: each is there once."""
    at = names.find(b"\0" + name.encode() + b"\0")
    if at < 0:
        raise NotFound(f"nothing is called {name}")
    return (at + 1).to_bytes(4, "little")


def _members(types: bytes, at: int, wanted: Sequence[bytes]) -> list[int] | None:
    """The offsets, if this is a structure with all of them."""
    if at + _ENTRY.size > len(types):
        return None
    _, info, size = _ENTRY.unpack_from(types, at)
    count = info & 0xFFFF
    end = at + _ENTRY.size * (count + 1)
    if info >> 24 & 0x1F != _KIND_STRUCT or end > len(types):
        return None
    offsets = {}
    for place in range(at + _ENTRY.size, end, _ENTRY.size):
        _, _, offset = _ENTRY.unpack_from(types, place)
        if info >> 31:
            # The upper bits are the size of a bit field; 0 for all else.
            offset = offset & 0xFFFFFF if not offset >> 24 else -1
        if offset % 8 == 0 and 0 <= offset // 8 < size:
            offsets[types[place : place + 4]] = offset // 8
    return [offsets[name] for name in wanted] if offsets.keys() >= set(wanted) else None
