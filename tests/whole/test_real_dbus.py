"""
C{dbus-daemon} as it is, with a service on it: both sleep together, and a call wakes both.

Each call carries a descriptor through the bus, into the container.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from jeepney import (  # type: ignore[import-untyped]  # it has no annotations
    DBusAddress,
    FileDescriptor,
    MessageType,
    new_method_call,
)
from jeepney.io.blocking import (  # type: ignore[import-untyped]  # it has no annotations
    DBusConnection,
    open_dbus_connection,
)

from support.cgroups import TemporaryCgroup
from support.live import PATIENCE, listens, until
from support.programs import Sleeper, get
from tests.shared.needs import needs

pytestmark = needs("dbus-daemon")

CONFIGURATION = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={path}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="false"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""

SERVICE = """
import os, sys
from jeepney import DBusAddress, FileDescriptor, MessageType, new_method_return
from jeepney.bus_messages import message_bus
from jeepney.io.blocking import open_dbus_connection

with open_dbus_connection(sys.argv[1], enable_fds=True) as connection:
    connection.send_and_get_reply(message_bus.RequestName("test.Writer"))
    print("ready", flush=True)
    while True:
        call = connection.receive()
        if call.header.message_type is not MessageType.method_call:
            continue
        descriptor, text = call.body
        with descriptor.to_file("w") as file:
            file.write(text)
        connection.send(new_method_return(call, "u", (len(text),)))
"""

WRITER = DBusAddress("/test", "test.Writer", "test.Writer")


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[tuple[Sleeper, str]]:
    """The daemon and the service in one container, and the bus's address."""
    path = tmp_path / "bus"
    address = f"unix:path={path}"
    configuration = tmp_path / "bus.conf"
    configuration.write_text(CONFIGURATION.format(path=path))
    with TemporaryCgroup() as cgroup:
        argv = [get("dbus-daemon"), f"--config-file={configuration}", "--nofork", "--nopidfile"]
        daemon = cgroup.spawn([*argv, "--nosyslog"], stdin=subprocess.DEVNULL)
        until("the bus", lambda: listens(path) or daemon.poll() is not None)
        service = cgroup.spawn([sys.executable, "-c", SERVICE, address], stdout=subprocess.PIPE)
        assert service.stdout is not None
        assert service.stdout.readline() == b"ready\n"
        with Sleeper(tmp_path, cgroup) as sleeper:
            sleeper.start()
            yield sleeper, address


def writeThrough(connection: DBusConnection, text: str) -> None:
    """Have the service write into a pipe of ours."""
    reading, writing = os.pipe()
    with open(reading) as pipe:
        with FileDescriptor(writing) as given:
            call = new_method_call(WRITER, "Write", "hs", (given, text))
            reply = connection.send_and_get_reply(call, timeout=PATIENCE)
        assert reply.header.message_type is MessageType.method_return, reply.body
        assert reply.body == (len(text),)
        # Up to the end: the descriptor arrived, and nobody has another.
        assert pipe.read() == text


def test_descriptors(bus: tuple[Sleeper, str]) -> None:
    """Over a connection that stays, and over new ones."""
    sleeper, address = bus
    with open_dbus_connection(address, enable_fds=True) as kept:

        def ask(number: int) -> None:
            if number % 3:
                writeThrough(kept, f"text {number}")
            else:
                with open_dbus_connection(address, enable_fds=True) as fresh:
                    writeThrough(fresh, f"text {number}")

        sleeper.cycles(ask)


def test_killedAsleep(bus: tuple[Sleeper, str]) -> None:
    """When it is killed while it sleeps, its peers see the end at once."""
    sleeper, address = bus
    with open_dbus_connection(address, enable_fds=True) as kept:
        writeThrough(kept, "before")
        sleeper.waitAsleep()
        began = time.monotonic()
        sleeper.cgroup.kill()
        with pytest.raises((ConnectionError, OSError)):
            kept.receive(timeout=PATIENCE)
        assert time.monotonic() - began < 10
