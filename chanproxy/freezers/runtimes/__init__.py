"""
Runtimes: where a container is that Docker, Podman, systemd and others have made, by its name there.

Each is a locator; what freezes is the cgroup's freezer.  Must not know what is idle, what waits,
and why it is to stop.
"""

RUNTIMES = ("docker", "podman", "systemd", "runc", "crun", "lxc")
"""By the prefixes of their containers."""
