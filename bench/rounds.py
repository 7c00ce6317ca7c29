"""
The measuring: proxies side by side, each with a load of its own, and rounds in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from attrs import define, frozen

from bench.measure import (
    Child,
    Failed,
    Load,
    Processors,
    ending,
    family,
    resident,
    spent,
    switches,
)
from bench.peers import NONE, TCP, Between, Peer, Refused
from bench.works import APART, Idle, Results, Sample, Series, Work
from support.ports import freePort

SETTLE_SECONDS = 0.005
"""After a round: more than a tick, so that the kernel has brought its accounts up to date."""
QUIET_SECONDS = 1.5
"""How long to leave idle channels alone, then again to look: longer than any linger time."""
SPARE = 500
"""Descriptors that a process may need besides those of its channels."""
IDLE_PROCESSES = 1000
"""Idle channels of a proxy with a process for each."""


@frozen
class Effort:
    """How much of everything."""

    rounds: int
    manyRounds: int
    """With hundreds of channels."""
    milliseconds: int
    trips: int
    idleChannels: int
    idleRounds: int
    crowdRounds: int
    """Rounds with one busy among the idle, in each of C{idleRounds}."""


FULL = Effort(9, 5, 250, 2000, 5000, 2, 9)
QUICK = Effort(3, 2, 100, 500, 1000, 1, 3)


@define
class Lane:
    """One proxy, or none, its load, and the processes to watch."""

    name: str
    load: Load
    proxy: Child | None
    front: str
    pids: list[int]

    def open(self, channels: int) -> dict[str, float]:
        """Until there are as many; then the proxy's processes are known."""
        answer = self.load.ask(f"open {self.front} {channels}", 120)
        if self.proxy is not None:
            self.pids = family(self.proxy.pid)
        return answer

    def _measured(self, command: str, messages: Callable[[dict[str, float]], float]) -> Sample:
        before, load = spent(self.pids), spent([self.load.child.pid])
        began = time.perf_counter()
        answer = self.load.ask(command)
        seconds = answer.get("seconds", time.perf_counter() - began)
        time.sleep(SETTLE_SECONDS)
        used = spent(self.pids) - before
        count = messages(answer)
        loading = spent([self.load.child.pid]) - load
        return Sample(
            rate=count / seconds,
            cpu=used.cpu / count,
            waiting=used.waiting / seconds,
            load=loading.cpu / seconds,
            p50=answer.get("p50", 0),
            p99=answer.get("p99", 0),
        )

    def flow(self, work: Work, milliseconds: int) -> Sample:
        """As much as goes through in a time."""
        return self._measured(
            f"flow {work.size} {work.descriptors} {milliseconds} {work.channels}",
            lambda answer: answer["messages"],
        )

    def trips(self, work: Work, count: int, where: Processors) -> Sample:
        """Requests and replies, one by one."""
        with self.load.on(where.load if work.trips == APART else frozenset([min(where.proxies)])):
            return self._measured(
                f"trips {work.size} {count}", lambda answer: answer["messages"] / 2
            )


class Bench:
    """Starts lanes, runs rounds, keeps the results."""

    def __init__(
        self,
        directory: Path,
        load: Path,
        peers: Sequence[Peer],
        where: Processors,
        limit: int,
        effort: Effort,
        progress: Callable[[str], None],
    ) -> None:
        """
        @param limit: how many descriptors a process can have.
        @param progress: told what comes next.
        """
        self.results = Results()
        self._directory = directory
        self._program = load
        self._peers = peers
        self._where = where
        self._limit = limit
        self._effort = effort
        self._progress = progress
        self._lanes = 0

    def _addresses(self, kind: str, directory: Path) -> tuple[str, str]:
        if kind != TCP:
            return f"{kind}:{directory / 'front'}", f"{kind}:{directory / 'back'}"
        return f"tcp:{freePort()}", f"tcp:{freePort()}"

    def _lane(self, peer: Peer | None, kind: str, stack: ExitStack) -> Lane:
        """@raise Failed: it did not start; with C{None}, a lane without a proxy."""
        self._lanes += 1
        directory = self._directory / f"lane{self._lanes}"
        directory.mkdir()
        front, back = self._addresses(kind, directory)
        load = Load(self._program, back, directory / "load.log", self._where.load)
        stack.enter_context(ending(load.child))
        if peer is None:
            return Lane(NONE, load, None, back, [])
        connections = (self._limit - SPARE) // 2
        proxy = peer.start(Between(front, back, directory, self._where.proxies, connections))
        stack.enter_context(ending(proxy))
        return Lane(peer.name, load, proxy, front, [proxy.pid])

    def _start(self, peer: Peer | None, kind: str, channels: int, stack: ExitStack) -> Lane | None:
        name = NONE if peer is None else peer.name
        try:
            lane = self._lane(peer, kind, stack)
            lane.open(channels)
        except Refused as refusal:
            self.results.note(f"{name}, {kind}: skipped: this version says: {refusal}")
            return None
        except Failed as failure:
            self.results.note(f"{name}, {kind}, {channels} channels: not measured: {failure}")
            return None
        return lane

    def _carrying(self, kind: str) -> list[Peer]:
        return [peer for peer in self._peers if kind in peer.kinds]

    def run(self, works: Sequence[Work]) -> None:
        """Works that share their channels: all peers' lanes at once, one at a time at work."""
        kind, channels = works[0].kind, works[0].channels
        effort = self._effort
        rounds = effort.rounds if channels == 1 else effort.manyRounds
        if not self._where.apart:
            works = [work for work in works if work.trips != APART]
        series = [Series(work) for work in works]
        self.results.series += series
        with ExitStack() as stack:
            self._progress(f"{kind}, {channels} channels: starting")
            maybe = [
                self._start(peer, kind, channels, stack)
                for peer in (None, *self._carrying(kind))
                if peer is None or peer.descriptorsPerChannel * channels < self._limit - SPARE
            ]
            lanes = [lane for lane in maybe if lane is not None]
            for number in range(rounds + 1):
                for each in series:
                    self._progress(f"{each.work.title}: round {number} of {rounds}")
                    # Nobody is always the first.
                    turn = number % max(1, len(lanes))
                    for lane in lanes[turn:] + lanes[:turn]:
                        self._round(lane, each, number == 0, lanes)
            for lane in lanes:
                for each in series:
                    each.memory[lane.name] = resident(lane.pids)

    def _round(self, lane: Lane, series: Series, warming: bool, lanes: list[Lane]) -> None:
        work, effort = series.work, self._effort
        if work.descriptors and not self._carriesDescriptors(lane.name):
            return
        # With a thousand channels what lies in all their buffers takes longer than this.
        milliseconds = effort.milliseconds if work.channels < 1000 else effort.milliseconds // 3
        try:
            if work.trips:
                count = effort.trips // 10 if warming else effort.trips
                sample = lane.trips(work, count, self._where)
            else:
                sample = lane.flow(work, milliseconds // 4 if warming else milliseconds)
        except Failed as failure:
            self.results.note(f"{lane.name}, {work.title}: given up: {failure}")
            lanes.remove(lane)
            return
        if not warming:
            series.samples.setdefault(lane.name, []).append(sample)

    def _carriesDescriptors(self, name: str) -> bool:
        return name == NONE or any(peer.name == name and peer.descriptors for peer in self._peers)

    def idle(self, kind: str) -> None:
        """Many idle channels, peer by peer, and one busy channel beside them."""
        self.results.idleKinds.append(kind)
        for number in range(self._effort.idleRounds):
            for peer in self._carrying(kind):
                self._progress(f"idle {kind} channels: {peer.name}, round {number + 1}")
                with ExitStack() as stack:
                    lane = self._start(peer, kind, 1, stack)
                    if lane is not None:
                        try:
                            self._idleRound(lane, peer, kind, stack)
                        except Failed as failure:
                            self.results.note(f"{peer.name}, idle {kind}: given up: {failure}")

    def _idleRound(self, lane: Lane, peer: Peer, kind: str, stack: ExitStack) -> None:
        assert lane.proxy is not None
        wanted = self._effort.idleChannels
        each = max(2, peer.descriptorsPerChannel)
        channels = min(wanted, (self._limit - SPARE) // each)
        if peer.processPerChannel:
            channels = min(channels, IDLE_PROCESSES)
        idle = self.results.idle.setdefault((kind, peer.name), Idle(kind, channels))
        work = Work(kind, 64 if kind == "seqpacket" else 200)
        milliseconds = self._effort.milliseconds
        lane.flow(work, milliseconds // 4)
        before = resident(lane.pids)
        opened = lane.open(1 + channels)
        idle.secondsEach.append(opened["seconds"] / channels)
        idle.bytesEach.append((resident(lane.pids) - before) / channels)
        self._quiet(lane, idle)
        if peer.processPerChannel:
            return
        alone = self._start(peer, kind, 1, stack)
        if alone is None:
            return
        alone.flow(work, milliseconds // 4)
        for number in range(self._effort.crowdRounds):
            pair = (alone, lane) if number % 2 else (lane, alone)
            rates = {each.front: each.flow(work, milliseconds).rate for each in pair}
            idle.crowded.append(rates[lane.front] / rates[alone.front])

    def _quiet(self, lane: Lane, idle: Idle) -> None:
        time.sleep(QUIET_SECONDS)
        before, wakes = spent(lane.pids), sum(map(switches, lane.pids))
        began = time.perf_counter()
        time.sleep(QUIET_SECONDS)
        seconds = time.perf_counter() - began
        idle.cpu.append((spent(lane.pids) - before).cpu / seconds)
        idle.wakes.append((sum(map(switches, lane.pids)) - wakes) / seconds)
