"""The parts of programs in the kernel: what it says of itself, instructions, and the ring."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence

import pytest

from chanproxy.container.bpf import assembly, calls
from chanproxy.container.bpf.assembly import Program
from chanproxy.container.bpf.btf import NotFound, memberOffsets
from chanproxy.container.bpf.ring import Ring

STRUCT, UNION = 4, 5


def described(
    types: Sequence[tuple[int, str, int, Sequence[tuple[str, int]], bool]], magic: int = 0xEB9F
) -> bytes:
    """BTF of types: kind, name, size, members with their offsets in bits, and C{kind_flag}."""
    names = b"\0"
    places: dict[str, int] = {"": 0}
    text = b""

    def place(name: str) -> int:
        nonlocal names
        if name not in places:
            places[name] = len(names)
            names += name.encode() + b"\0"
        return places[name]

    for kind, name, size, members, flag in types:
        info = flag << 31 | kind << 24 | len(members)
        text += struct.pack("<III", place(name), info, size)
        for member, offset in members:
            text += struct.pack("<III", place(member), 7, offset)
    header = struct.pack("<HBBIIIII", magic, 1, 0, 24, 0, len(text), len(text), len(names))
    return header + text + names


TASK = (STRUCT, "task_struct", 64, [("state", 0), ("pid", 128), ("tgid", 160)], False)


class TestBtf:
    """Where members are."""

    def test_found(self) -> None:
        """In the structure of that name, not in a union or a smaller one before it."""
        others = [
            (UNION, "task_struct", 64, [("pid", 0), ("tgid", 32)], False),
            (STRUCT, "pid", 8, [("tgid", 0)], False),
        ]
        text = described([*others, TASK])
        assert memberOffsets(text, "task_struct", ["tgid", "pid"]) == [20, 16]
        assert memberOffsets(text, "pid", ["tgid"]) == [0]

    def test_bitFields(self) -> None:
        """With bit fields in it, the upper bits of an offset are a size; those are no bytes."""
        members = [("pid", 8 << 24 | 64), ("tgid", 96), ("other", 1 << 24 | 97)]
        text = described([(STRUCT, "task_struct", 64, members, True)])
        assert memberOffsets(text, "task_struct", ["tgid"]) == [12]
        with pytest.raises(NotFound, match="no struct task_struct with pid"):
            memberOffsets(text, "task_struct", ["pid"])

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"", "no BTF"),
            (described([])[:24], "nothing is called pid"),
            (described([TASK], magic=0x9FEB), "little-endian"),
            (described([]), "nothing is called pid"),
            (described([(STRUCT, "task_struct", 64, [("pid", 0)], False)]), "is called tgid"),
            (described([TASK, (STRUCT, "x", 1, [], False)])[:24] + b"\0" * 200, "is called pid"),
            (
                described([(STRUCT, "task_struct", 4, [("pid", 0), ("tgid", 32)], False)]),
                "no struct task_struct with pid, tgid",
            ),
        ],
    )
    def test_notFound(self, text: bytes, message: str) -> None:
        """What is not there, or cannot be, is not guessed."""
        with pytest.raises(NotFound, match=message):
            memberOffsets(text, "task_struct", ["pid", "tgid"])

    def test_cutShort(self) -> None:
        """A structure that goes on beyond the end is none."""
        whole = described([TASK])
        names = whole[24 + 48 :]
        for length in range(48):
            header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, length, length, len(names))
            with pytest.raises(NotFound):
                memberOffsets(header + whole[24 : 24 + length] + names, "task_struct", ["pid"])

    def test_misaligned(self) -> None:
        """The same bytes across two words are no name."""
        number = described([TASK]).index(b"task_struct\0") - 24 - 48
        shifted = struct.pack("<I", number << 8 & 0xFFFFFFFF)
        word = int.from_bytes(shifted, "little")
        text = described([(STRUCT, "x", 64, [("y", word)], False), TASK])
        assert memberOffsets(text, "task_struct", ["pid"]) == [16]


class TestAssembly:
    """Instructions, as C{llvm-mc} writes them."""

    def test_encoded(self) -> None:
        """One of each kind."""
        code = Program()
        code.load(assembly.R7, assembly.R6, 16)
        code.load(assembly.R1, assembly.STACK, -4, size=4)
        code.store(assembly.STACK, -16, assembly.R8)
        code.storeNumber(assembly.R9, 0, 5)
        code.copy(assembly.R6, assembly.R1)
        code.copyLow(assembly.R1, assembly.R2)
        code.set(assembly.R2, -1)
        code.setMap(assembly.R1, 7)
        code.add(assembly.R3, 1264)
        code.shiftLeft(assembly.R8, 32)
        code.either(assembly.R8, assembly.R7)
        code.call(assembly.READ_KERNEL)
        code.end()
        text = code.assembled()
        assert [text[at : at + 8].hex() for at in range(0, len(text), 8)] == [
            "7967100000000000",  # r7 = *(u64 *)(r6 + 16)
            "61a1fcff00000000",  # r1 = *(u32 *)(r10 - 4)
            "7b8af0ff00000000",  # *(u64 *)(r10 - 16) = r8
            "7a09000005000000",  # *(u64 *)(r9 + 0) = 5
            "bf16000000000000",  # r6 = r1
            "bc21000000000000",  # w1 = w2
            "b7020000ffffffff",  # r2 = -1
            "1811000007000000",  # r1 = map 7
            "0000000000000000",
            "07030000f0040000",  # r3 += 1264
            "6708000020000000",  # r8 <<= 32
            "4f78000000000000",  # r8 |= r7
            "8500000071000000",  # call 113
            "9500000000000000",  # exit
        ]

    def test_jumps(self) -> None:
        """Over what lies between, a constant of two words counted as two."""
        code = Program()
        code.ifEqual(assembly.R1, 4, "end")
        code.ifNot(assembly.R1, 18, "end")
        code.setMap(assembly.R1, 3)
        code.label("middle")
        code.ifSame(assembly.R1, assembly.R8, "end")
        code.ifDiffer(assembly.R1, assembly.R7, "end")
        code.label("end")
        code.end()
        text = code.assembled()
        offsets = [struct.unpack_from("<h", text, at + 2)[0] for at in range(0, len(text), 8)]
        assert offsets == [5, 4, 0, 0, 1, 0, 0]


class Filled:
    """A ring of 64 bytes, filled as the kernel does."""

    SIZE = 64

    def __init__(self) -> None:
        self.consumer = bytearray(8)
        self.producer = bytearray(8)
        self._twice = mmap.mmap(-1, 2 * self.SIZE)
        self.ring = Ring(
            memoryview(self.consumer), memoryview(self.producer), memoryview(self._twice)
        )
        self.position = 0

    def put(self, record: bytes, flags: int = 0) -> int:
        """Reserve and write a record; returns where it begins."""
        began = self.position
        header = struct.pack("<II", len(record) | flags, 99)
        for number, byte in enumerate(header + record):
            at = (began + number) % self.SIZE
            self._twice[at] = self._twice[at + self.SIZE] = byte
        self.position += (8 + len(record) + 7) // 8 * 8
        self.producer[:] = self.position.to_bytes(8, "little")
        return began

    def finish(self, began: int, flags: int = 0) -> None:
        """A record that was busy is so no more."""
        for at in (began % self.SIZE, began % self.SIZE + self.SIZE):
            self._twice[at + 3] = flags >> 24

    def read(self, most: int = 100) -> list[bytes]:
        """What the ring gives."""
        return list(self.ring.read(most))

    @property
    def consumed(self) -> int:
        """The position that the kernel sees."""
        return int.from_bytes(self.consumer, "little")


BUSY, DISCARD = 1 << 31, 1 << 30


class TestRing:
    """What is read of it, and what the kernel is told of that."""

    def test_inOrder(self) -> None:
        """Records of any length, and the room for them is given back at once."""
        filled = Filled()
        assert filled.read() == []
        filled.put(b"one")
        filled.put(b"two longer")
        assert len(filled.ring) == filled.position == 16 + 24
        assert filled.read(1) == [b"one"]
        assert filled.consumed == 16
        assert filled.read() == [b"two longer"]
        assert filled.consumed == filled.position
        assert len(filled.ring) == 0

    def test_wraps(self) -> None:
        """A record that begins at the end goes on at the beginning."""
        filled = Filled()
        for number in range(50):
            record = bytes([number]) * (number % 20 + 9)
            filled.put(record)
            assert filled.read() == [record]

    def test_busy(self) -> None:
        """One that is not finished is waited for, and so is what comes after it."""
        filled = Filled()
        filled.put(b"before")
        began = filled.put(b"busy", BUSY)
        filled.put(b"after")
        assert filled.read() == [b"before"]
        assert filled.read() == []
        assert filled.consumed == began
        filled.finish(began)
        assert filled.read() == [b"busy", b"after"]

    def test_discarded(self) -> None:
        """One that was given up is left out, and counts for nothing."""
        filled = Filled()
        filled.put(b"not", DISCARD)
        began = filled.put(b"nor", BUSY)
        filled.put(b"this")
        assert filled.read() == []
        filled.finish(began, DISCARD)
        assert filled.read(1) == [b"this"]
        assert filled.consumed == filled.position

    def test_beyond32Bits(self) -> None:
        """Positions only grow."""
        filled = Filled()
        filled.position = 2**32 - 16
        for position in (filled.consumer, filled.producer):
            position[:] = filled.position.to_bytes(8, "little")
        for record in (b"a", b"b", b"c"):
            filled.put(record)
        assert filled.read() == [b"a", b"b", b"c"]
        assert filled.consumed == 2**32 + 32


def test_unknownMachine(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it is an error like any other."""
    monkeypatch.setattr(calls, "_CALL", None)
    assert not calls.known()
    with pytest.raises(OSError, match="not known for"):
        calls.createMap(calls.HASH, 4, 8, 1, "map")
