"""Metrics: the figures of containers for Prometheus, and what is made of them."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openMetrics
from prometheus_client.parser import text_string_to_metric_families as families
from twisted.internet.defer import Deferred

from chanproxy.adopt.naming import WORDS
from chanproxy.interfaces import ChanproxyReactor
from chanproxy.manager import kinds
from chanproxy.manager.http.metrics import FIGURES
from chanproxy.wake.counter import MessageCounter
from support.cgroups import TemporaryCgroup, unusable
from support.live import PATIENCE
from support.places import DOCS
from tests.shared.running import listening, thread
from tests.shared.serving import program
from tests.shared.sides import asynchronous, until
from tests.shared.web import Web

MONITORING = DOCS / "monitoring"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: bytes) -> Samples:
    """All of them, by names and labels."""
    found: Samples = {}
    for family in families(text.decode()):
        for each in family.samples:
            key = each.name, frozenset(each.labels.items())
            assert key not in found
            found[key] = each.value
    return found


async def scraped(web: Web) -> Samples:
    """What is there now."""
    answer = await web.get("/metrics")
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    return samples(answer.body)


def of(found: Samples, name: str, **labels: str) -> float:
    """One of the editor's."""
    return found["chanproxy_" + name, frozenset({"container": "editor", **labels}.items())]


@asynchronous
async def test_sleeps(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """States, wakes and refusals are there, in seconds and by kinds of reasons."""
    async with Web(reactor, tmp_path) as web:
        found = await scraped(web)
        states = [of(found, "container_state", state=s) for s in ("awake", "asleep")]
        assert states == [1, 0]
        path = "/containers/editor"
        for timeout in (0.001, 0.03):
            await web.post(f"{path}/suspend", {"timeout": timeout})
        web.editor.suspend().addErrback(lambda _: None)
        found = await scraped(web)
        assert of(found, "container_state", state="asleep") == 1
        await web.post(f"{path}/resume", {"reason": "breakfast"})
        await web.post(f"{path}/acquire", {"name": "backup", "timeout": 60})
        (await web.post(f"{path}/suspend")).refused(409)
        found = await scraped(web)
        statistics = web.editor.suspension.statistics
        assert of(found, "suspend_attempts_total") == statistics.attempts == 4
        assert of(found, "wakes_total", reason="time") == 2
        assert of(found, "wakes_total", reason="other") == 1
        assert of(found, "suspend_refusals_total", reason="lock") == 1
        seconds = of(found, "asleep_seconds_total")
        assert seconds == statistics.totalAsleep / 1e9 >= 0.031
        assert of(found, "sleep_duration_seconds_sum") == seconds
        assert of(found, "sleep_duration_seconds_count") == 3
        name = "chanproxy_sleep_duration_seconds_bucket"
        buckets = [
            (float(dict(labels)["le"]), value)
            for (each, labels), value in found.items()
            if each == name and ("container", "editor") in labels
        ]
        assert len(buckets) > 5
        for limit, value in sorted(buckets):
            # As the statistics have them; each bucket has those before it.
            below = [n for n in range(32) if 100e-6 * 2**n <= limit + 1e-9]
            assert value == sum(statistics.histogram[n] for n in below), limit


@asynchronous
async def test_latency(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """How long wakes by a wake source took; those by others are not among them."""
    async with Web(reactor, tmp_path) as web:
        counter = MessageCounter(reactor)
        web.editor.sources.add("bell", counter)
        try:
            for _ in range(3):
                web.editor.suspend().addErrback(lambda _: None)
                await until(reactor, lambda: web.editor.suspension.state == "asleep")
                counter.add(1)
                await until(reactor, lambda: web.editor.suspension.state == "awake")
                counter.handled()
        finally:
            web.editor.sources.remove(counter)
            counter.close()
        await web.post("/containers/editor/suspend", {"timeout": 0.001})
        found = await scraped(web)
        assert of(found, "wake_latency_seconds_count") == 3
        statistics = web.editor.suspension.statistics
        assert of(found, "wake_latency_seconds_sum") == statistics.totalLatency / 1e9 > 0
        assert of(found, "wake_latency_seconds_bucket", le="+Inf") == 3
        assert of(found, "wake_latency_seconds_bucket", le="3.2768") == 3
        resumes = [each for each in statistics.events if each.kind == "resume"]
        assert [each.latency is not None for each in resumes] == [True] * 3 + [False]
        answer = await web.get("/containers/editor")
        told = answer.tree["description"]
        assert told["latencies"] == statistics.latencies
        assert sum(told["latencies"]) == 3
        latencies = [each["latency"] for each in told["events"] if "latency" in each]
        assert sum(latencies) == statistics.totalLatency


@asynchronous
async def test_unseen(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What has happened since and is in no ring any more is counted, too; nothing is twice."""
    async with Web(reactor, tmp_path) as web:
        web.editor.sources.locks.acquire("backup")
        for rounds in (10, 100, 0):
            for _ in range(rounds):
                web.editor.suspend().addErrback(lambda _: None)
            found = await scraped(web)
        assert of(found, "suspend_refusals_total", reason="lock") == 10 + 64
        assert of(found, "suspend_refusals_total", reason="unseen") == 36


@asynchronous
async def test_carried(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What is carried is counted, also what connections have carried that are over."""
    inside, outside = f"{tmp_path}/inside", f"{tmp_path}/outside"
    more = (
        f"[containers.editor.channels.rpc]\nlisten = 'seqpacket:{outside}'\n"
        f"connect = 'seqpacket:{inside}'\nhandled = 'explicit'\n"
    )
    with listening(socket.AF_UNIX, socket.SOCK_SEQPACKET, inside) as there:
        async with Web(reactor, tmp_path, more=more) as web:
            for number in (1, 2):
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
                    peer.settimeout(20)
                    await thread(peer.connect, outside)
                    served, _ = await thread(there.accept)
                    with served:
                        await thread(socket.send_fds, peer, [b"in"], [peer.fileno()] * 3)
                        data, descriptors, *_ = await thread(socket.recv_fds, served, 9, 9)
                        assert data == b"in"
                        for fd in descriptors:
                            socket.close(fd)
                        await thread(served.send, b"out")
                        await thread(served.send, b"out")
                        for _ in range(2):
                            assert await thread(peer.recv, 9) == b"out"
                        found = await scraped(web)
                        assert of(found, "open_channels") == 1
                        assert of(found, "unhandled_messages") == 1
                await until(reactor, lambda: not len(web.editor.channels))
                found = await scraped(web)
                assert of(found, "messages_total", direction="in") == number
                assert of(found, "messages_total", direction="out") == 2 * number
                assert of(found, "message_descriptors_total", direction="in") == 3 * number


@asynchronous
async def test_formats(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Who can read OpenMetrics gets that; the service's own process is there in both."""
    async with Web(reactor, tmp_path) as web:
        answer = await web.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        parsed = openMetrics(answer.body.decode())  # type: ignore[no-untyped-call]
        names = {family.name for family in parsed}
        assert {"chanproxy_wakes", "process_cpu_seconds", "chanproxy_build_info"} <= names
        plain = {name for name, _ in await scraped(web)}
        assert {"chanproxy_asleep_seconds_total", "process_resident_memory_bytes"} <= plain
        # One after the other and at the same time.
        together = [Deferred.fromCoroutine(web.get("/metrics")) for _ in range(3)]
        texts = [await each for each in together]
        assert len({text.body.count(b"\n") for text in texts}) == 1


@asynchronous
async def test_conventions(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """Names and units are what Prometheus' own tool expects."""
    promtool = program("promtool")
    async with Web(reactor, tmp_path) as web:
        await web.post("/containers/editor/suspend", {"timeout": 0})
        text = (await web.get("/metrics")).body
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.cgroup
@pytest.mark.skipif(bool(unusable()), reason=unusable() or "usable")
@asynchronous
async def test_processor(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """What the processes of a cgroup have taken of a processor is there."""
    with TemporaryCgroup() as cgroup:
        more = f"[containers.busy]\nfreezer = '{cgroup.spec}'\nsuspend = 'manual'\n"
        cgroup.spawn(["sh", "-c", "while :; do :; done"])
        async with Web(reactor, tmp_path, more=more) as web:
            key = "chanproxy_container_cpu_seconds_total", frozenset({("container", "busy")})
            before = (await scraped(web))[key]

            deadline = time.monotonic() + PATIENCE
            while (await scraped(web))[key] <= before:
                assert time.monotonic() < deadline
            # What freezes nothing does not know.
            assert (key[0], frozenset({("container", "editor")})) not in await scraped(web)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("timeout", "time"),
        ("max-asleep", "time"),
        ("editor/redis-server[12] epoll_wait timeout", "time"),
        ("cron[7] nanosleep is over in 0.3 s", "time"),
        ("SIGTERM is pending for sh[12]", "signal"),
        ("SIGCONT came for sh[12]", "signal"),
        ("sh[12] ended", "process"),
        ("sh[12] came in", "process"),
        ("busy: node[9] runs", "busy"),
        ("editor/lsp#3,rpc", "channel"),
        ("kept", "lock"),
        ("new year", "alarm"),
        ("tcp 0.0.0.0:80 from 127.0.0.1:7", "sockets"),
        ("breakfast", "other"),
        ("", "other"),
    ],
)
@asynchronous
async def test_kinds(reactor: ChanproxyReactor, tmp_path: Path, reason: str, kind: str) -> None:
    """Each reason has one of a few kinds."""
    async with Web(reactor, tmp_path) as web:
        web.editor.sources.locks.acquire("kept")
        web.editor.sources.locks.release("kept")
        web.editor.alarms.set("new year", 2.0**32)
        assert kinds.Kinds(web.editor).of(reason) == kind
        assert kind in kinds.KINDS


@asynchronous
async def test_alarm(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """An alarm that has gone off is known for one."""
    async with Web(reactor, tmp_path) as web:
        web.editor.suspend()
        web.editor.alarms.set("new year", 0)
        await until(reactor, lambda: web.editor.suspension.statistics.successes == 1)
        assert of(await scraped(web), "wakes_total", reason="alarm") == 1


def test_words() -> None:
    """The kinds of descriptors are those that there are."""
    assert set(kinds.SOCKETS) == set(WORDS)


def test_documented() -> None:
    """Each figure stands in the documentation, and each kind of reason."""
    text = (DOCS / "howto-monitoring.md").read_text()
    for figure in FIGURES:
        assert f"`chanproxy_{figure.name}{'_total' * figure.counts}`" in text
    for kind in kinds.KINDS:
        assert f"`{kind}`" in text


def _names(tree: object) -> set[str]:
    if isinstance(tree, str):
        return set(re.findall(r"\b(?:chanproxy|process)_\w+", tree))
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    return set().union(*map(_names, tree)) if isinstance(tree, list) else set()


@asynchronous
async def test_monitoring(reactor: ChanproxyReactor, tmp_path: Path) -> None:
    """The rules are right, and they and the dashboard ask for what there is."""
    rules, dashboard = MONITORING / "alerts.yml", MONITORING / "dashboard.json"
    done = subprocess.run([program("promtool"), "check", "rules", rules], capture_output=True)
    assert done.returncode == 0, done.stderr
    async with Web(reactor, tmp_path) as web:
        there = {name for name, _ in await scraped(web)}
    asked = _names(json.loads(dashboard.read_text())) | _names(rules.read_text())
    assert len(asked) > 8
    assert asked <= there | {"chanproxy_wakes_total", "chanproxy_suspend_refusals_total"} | {
        "chanproxy_container_cpu_seconds_total"
    }
