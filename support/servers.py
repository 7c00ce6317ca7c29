"""How some servers are told to run."""

from __future__ import annotations

import os

NGINX = """
daemon off;
worker_processes 2;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
{user}
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {directory}/files;
        location /echo/ {{ return 200 "$request_uri"; }}
    }}
}}
"""
"""Two workers, to be given a directory, a port, and the user of whom they are."""


def unprivileged(argv: list[str]) -> list[str]:
    """For PostgreSQL, which refuses to run as root."""
    if os.geteuid() != 0:
        return argv
    return ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *argv]
