"""
A D-Bus application: C{org.example.Echo} gives back what it is sent.  It knows nothing of chanproxy.

Usage: dbus_echo.py ADDRESS, with jeepney installed.
"""

import sys

from jeepney import MessageType, new_method_return  # type: ignore[import-untyped]
from jeepney.bus_messages import message_bus  # type: ignore[import-untyped]
from jeepney.io.blocking import open_dbus_connection  # type: ignore[import-untyped]

NAME = "org.example.Echo"


def serve(address: str) -> None:
    """Answer calls, until the bus is gone."""
    with open_dbus_connection(address) as connection:
        connection.send_and_get_reply(message_bus.RequestName(NAME))
        print(f"{NAME} is there", flush=True)
        while True:
            call = connection.receive()
            if call.header.message_type is MessageType.method_call:
                connection.send(new_method_return(call, "s", call.body))


if __name__ == "__main__":
    serve(sys.argv[1])
