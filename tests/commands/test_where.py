"""Where a command looks for its service: which words are an address, and which of two counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from chanproxy.commands.main import main
from chanproxy.commands.where import Url
from tests.commands.test_call import failed

LOADED = """
import sys
from chanproxy.commands.main import main
try:
    main(sys.argv[1:])
except SystemExit as error:
    print(error.code)
heads = {name.partition(".")[0] for name in sys.modules}
print(sorted(heads & {"twisted", "treq", "OpenSSL", "hyperlink"}))
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/a.sock", Url("unix:/run/a.sock", path="/run/a.sock")),
        ("unix:@a", Url("unix:@a", path="@a")),
        ("http://a:81", Url("http://a:81", "", "a:81", "a", 81)),
        ("http://[::1]/", Url("http://[::1]/", "", "[::1]", "::1", 80)),
        ("https://a/b/", Url("https://a/b/", "", "a", "a", 443, True, "/b")),
    ],
)
def test_urls(text: str, expected: Url) -> None:
    """Paths as in the configuration, and what else has HTTP."""
    assert Url.parse(text) == expected


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http+unix:///run/a.sock", "write unix:/run/a.sock"),
        ("unix://run/a.sock", "write unix:/run/a.sock"),
        ("/run/a.sock", "write unix:/run/a.sock"),
        ("tcp:8080", "write http://127.0.0.1:8080"),
        ("machine:8080", "write http://machine:8080"),
        ("ftp://machine", "write http://127.0.0.1:8080, or unix:/run/chanproxy/http.sock"),
        ("unix:", "write http://"),
        ("http://a:b", "write http://"),
        ("http://a/?b=c", "more than an address and a path"),
        ("http://me:secret@a", "give --token-file"),
    ],
)
def test_noUrls(url: str, says: str) -> None:
    """What is none is said before anybody is asked, with what to write; a password is not shown."""
    result = CliRunner().invoke(main, ["ps", "--url", url])
    failed(result, 2, "Invalid value for --url: ")
    assert says in " ".join(result.stderr.split())
    assert "secret" not in result.stderr
    result = CliRunner(env={"CHANPROXY_URL": url}).invoke(main, ["ps"])
    failed(result, 2, "Invalid value for $CHANPROXY_URL: ")


def test_two(tmp_path: Path) -> None:
    """Two services are one too many; what is written comes before what the environment says."""
    path, url = f"{tmp_path}/none", "http://127.0.0.1:1"
    failed(CliRunner().invoke(main, ["ps", "--socket", path, "--url", url]), 2, "two services")
    failed(CliRunner().invoke(main, ["ps", "--token-file", path]), 2, "give --url as well")
    runner = CliRunner(env={"CHANPROXY_URL": url, "CHANPROXY_TOKEN_FILE": path})
    failed(runner.invoke(main, ["ps", "--socket", path]), 3, f"chanproxy: {path}: No such file")


def loaded(*words: str, before: str = "") -> list[str]:
    """What a command says; the last line is what it has loaded of what takes time."""
    done = subprocess.run(
        [sys.executable, "-c", before + LOADED, *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return (done.stderr + done.stdout).splitlines()


@pytest.mark.parametrize("command", ["ps", "why", "top", "events", "suspend", "resume", "locks"])
def test_unloaded(tmp_path: Path, command: str) -> None:
    """Without a URL neither Twisted nor treq is loaded: no command waits for that."""
    more = {"ps": [], "events": [], "locks": [], "top": ["--json"]}.get(command, ["x"])
    said = loaded(command, "--socket", str(tmp_path / "none"), *more)
    assert said[-2:] == ["3", "[]"], said


def test_noTreq() -> None:
    """Where treq is not installed it is said how to have it."""
    before = "import sys\nsys.modules['treq'] = None\n"
    said = loaded("ps", "--url", "http://127.0.0.1:1", before=before)
    assert "--url needs the package treq; pip install 'chanproxy[http]'" in " ".join(said)
    assert said[-2] == "2"
