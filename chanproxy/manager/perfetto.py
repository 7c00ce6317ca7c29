"""
Perfetto's own trace format: needs the package C{perfetto}, the extra of that name.

Knows how events are written; knows not where they come from.
"""

from __future__ import annotations

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import (  # type: ignore[import-untyped]  # it has no annotations
    BUILTIN_CLOCK_BOOTTIME,
    Trace,
    TracePacket,
    TrackEvent,
)

from chanproxy.trace import CATEGORY, Event

_PROCESS = 1 << 32
"""The track that the others are below; theirs are numbered from 1."""

_SEQUENCE = 1
"""Packets of one writer belong together by such a number; any but 0."""

_TYPES = {
    "B": TrackEvent.TYPE_SLICE_BEGIN,
    "E": TrackEvent.TYPE_SLICE_END,
    "i": TrackEvent.TYPE_INSTANT,
}


class PerfettoFormat:
    """Packets one after the other, which is what a whole trace is."""

    def begin(self) -> bytes:
        """The process's own track."""
        packet = TracePacket(trusted_packet_sequence_id=_SEQUENCE)
        packet.track_descriptor.uuid = _PROCESS
        packet.track_descriptor.name = "chanproxy"
        packet.sequence_flags = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
        return self._written(packet)

    def track(self, number: int, name: str) -> bytes:
        """A track with a name."""
        packet = TracePacket(trusted_packet_sequence_id=_SEQUENCE)
        packet.track_descriptor.uuid = number
        packet.track_descriptor.parent_uuid = _PROCESS
        packet.track_descriptor.name = name
        return self._written(packet)

    def events(self, events: list[Event]) -> bytes:
        """A packet each."""
        return self._written(*map(self._event, events))

    def _event(self, event: Event) -> TracePacket:
        packet = TracePacket(
            trusted_packet_sequence_id=_SEQUENCE,
            timestamp=event.at,
            timestamp_clock_id=BUILTIN_CLOCK_BOOTTIME,
        )
        shape = packet.track_event
        shape.type = _TYPES[event.phase]
        shape.track_uuid = event.track
        shape.name = event.name
        shape.categories.append(CATEGORY)
        for name, value in event.arguments.items():
            annotation = shape.debug_annotations.add(name=name)
            if isinstance(value, int):
                annotation.int_value = value
            else:
                annotation.string_value = str(value)
        return packet

    def _written(self, *packets: TracePacket) -> bytes:
        return bytes(Trace(packet=packets).SerializeToString())

    def end(self) -> bytes:
        """Nothing has to follow the last packet."""
        return b""
