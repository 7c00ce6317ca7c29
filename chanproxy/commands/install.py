"""
C{chanproxy install}: have systemd run the service.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import click

from chanproxy import config
from chanproxy.commands.units import NAME, unit
from chanproxy.freezers import isOurs
from chanproxy.words import safe


@click.command("install")
@click.option("--systemd", is_flag=True, help="For systemd, the only one that is known.")
@click.option("--config", "file", metavar="FILE", help="The configuration; /etc/chanproxy.toml.")
@click.option("--user", is_flag=True, help="For your own manager, as systemctl --user.")
@click.option("--print", "printed", is_flag=True, help="Print it, and write nothing.")
@click.option("--force", is_flag=True, help="Also over a unit that is there and another one.")
def install(systemd: bool, file: str | None, user: bool, printed: bool, force: bool) -> None:
    """
    Write the unit that has systemd run the service, and say what to do then.

    Nothing is started or enabled.
    """
    if not systemd:
        raise click.UsageError("for which service manager? Write --systemd, the only one known")
    path = os.path.abspath(file or (_home(user, "chanproxy.toml") if user else _CONFIG))
    text = _unit(path, user)
    if printed:
        click.echo(text, nl=False)
        return
    place = Path(_home(user, "systemd/user") if user else _SYSTEM, NAME)
    _write(place, text, force)
    _sayWhatNext(path, user)


_CONFIG = "/etc/chanproxy.toml"
_SYSTEM = "/etc/systemd/system"


def _home(user: bool, name: str) -> str:
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return os.path.join(home, name)


def _unit(path: str, user: bool) -> str:
    """@raise ClickException: it would not start."""
    confined = True
    if os.path.exists(path):
        try:
            read = config.loadFile(path)
        except config.ConfigurationError as error:
            raise click.ClickException(safe(str(error))) from None
        # What a plugin's freezer takes nobody knows.
        confined = read.confine and all(isOurs(each.freezer) for each in read.containers)
    twistd, chanproxy = _commands()
    return unit(twistd, chanproxy, path, user, confined)


def _commands() -> tuple[str, str]:
    """C{twistd} and C{chanproxy}, of the installation that this is a command of."""
    begun = os.path.dirname(os.path.abspath(sys.argv[0]))
    for directory in (begun, sysconfig.get_path("scripts"), os.path.dirname(sys.executable)):
        found = os.path.join(directory, "twistd"), os.path.join(directory, "chanproxy")
        if all(os.access(each, os.X_OK) for each in found):
            return found
    raise click.ClickException(
        f"there is no twistd beside {sys.executable}; install chanproxy with pip, into an "
        "environment that stays, and run the chanproxy of that"
    )


def _write(place: Path, text: str, force: bool) -> None:
    try:
        before = place.read_text() if place.exists() else None
        if before not in (None, text) and not force:
            raise click.ClickException(
                f"{place} is there, and another one; --force replaces it, --print shows this one"
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    except OSError as error:
        raise click.ClickException(
            f"{place}: {error.strerror}; run it as root, or give --user"
        ) from None
    click.echo(f"{place} is {'as it was' if before == text else 'written'}.")


def _sayWhatNext(path: str, user: bool) -> None:
    flag = " --user" if user else ""
    if not os.path.exists(path):
        click.echo(
            f"First write {path}; one line is enough, and containers can be added later:\n\n"
            f'    control = "{_control(user)}"\n'
        )
    click.echo(
        "Then:\n\n"
        f"    systemctl{flag} daemon-reload\n"
        f"    systemctl{flag} enable --now chanproxy\n"
        f"    systemctl{flag} status chanproxy\n"
        f"    journalctl{flag} -u chanproxy -f\n"
    )


def _control(user: bool) -> str:
    directory = os.environ.get("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}") if user else "/run"
    return f"{directory}/chanproxy/control.sock"
