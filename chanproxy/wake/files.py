"""
Things that have a descriptor, found by the open file that it names, whichever duplicate is given.

Knows the kernel's identities of files; knows nothing of what is kept.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from chanproxy.kernel import calls


class HasDescriptor(Protocol):
    """What can be kept: its descriptor stays the same, and open, as long as it is."""

    @property
    def descriptor(self) -> int: ...


S = TypeVar("S", bound=HasDescriptor)


class ByIdentity(Generic[S]):
    """
    Things by the open file that their descriptors name, whichever duplicate is asked for.

    Files that share what C{fstat(2)} shows, as all anonymous ones do, are kept in the kernel's own
    order (C{kcmp(2)}), so that finding one among many takes a few comparisons.
    """

    def __init__(self) -> None:
        self._buckets: dict[object, list[S]] = {}
        self._keys: dict[S, object] = {}
        self._found = 0

    def _index(self, key: object, descriptor: int) -> tuple[int, bool]:
        """The place in the key's bucket, and whether the file is there already."""
        bucket = self._buckets.get(key, ())
        if isinstance(key, str):
            # An eventfd's number is its identity.
            return 0, len(bucket) > 0
        low, high = 0, len(bucket)
        while low < high:
            middle = (low + high) // 2
            order = calls.compareFiles(descriptor, bucket[middle].descriptor)
            if order == 0:
                return middle, True
            if order < 0:
                high = middle
            else:
                low = middle + 1
        return low, False

    def find(self, descriptor: int) -> S | None:
        """@raise OSError: it is not open."""
        key = _keyOf(descriptor)
        self._found, found = self._index(key, descriptor)
        return self._buckets[key][self._found] if found else None

    def add(self, source: S) -> S:
        """
        Keep one, unless its file is there already.

        @return: the one that has the file now.
        @raise OSError: it is not open.
        """
        key = _keyOf(source.descriptor)
        index, found = self._index(key, source.descriptor)
        if found:
            return self._buckets[key][index]
        self._buckets.setdefault(key, []).insert(index, source)
        self._keys[source] = key
        return source

    def remove(self, source: S) -> None:
        """It is known to be there.  Needs no descriptor, also when there is none left."""
        key = self._keys.pop(source)
        bucket = self._buckets[key]
        index = self._found
        # Most are removed right after they were found.
        if index >= len(bucket) or bucket[index] is not source:
            index, _ = self._index(key, source.descriptor)
        del bucket[index]
        if not bucket:
            del self._buckets[key]


def _keyOf(descriptor: int) -> object:
    """What the kernel shows of an open file, equal for all its duplicates.  @raise OSError"""
    number = calls.eventfdInfo(descriptor).get("eventfd-id")
    if number is not None:
        return f"eventfd {number}"
    status = calls.statusOf(descriptor)
    return status.device, status.inode
