import os
import subprocess
import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import httpx
import pytest
import requests

from pipelines.ports import spare_loopback

ALL = "127.0.0.1,localhost,::1"
CLOSED = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"no_proxy": ALL, "NO_PROXY": ALL}),
        ({"NO_PROXY": "a.org, b.org"}, {"no_proxy": f"a.org,b.org,{ALL}", "NO_PROXY": f"a.org,b.org,{ALL}"}),
        ({"no_proxy": "localhost"}, {"no_proxy": "localhost,127.0.0.1,::1", "NO_PROXY": "localhost,127.0.0.1,::1"}),
        ({"no_proxy": "a.org", "NO_PROXY": "b.org"}, {"no_proxy": f"a.org,{ALL}", "NO_PROXY": f"b.org,{ALL}"}),
        ({"no_proxy": "*"}, {"no_proxy": "*"}),
    ],
)
def test_this_machine_is_added_to_what_the_user_spares(given, expected):
    environment = dict(given)
    for _ in range(2):  # processes inherit it, and add nothing
        spare_loopback(environment)
        assert environment == expected


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()


@pytest.mark.parametrize("spared", [None, "example.org", "*"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("get", [urllib.request.urlopen, httpx.get, requests.get])
def test_no_client_asks_a_proxy_for_this_machine(get, host, spared, monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, CLOSED)
        monkeypatch.setenv(name.upper(), CLOSED)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        if spared is not None:
            monkeypatch.setenv(name, spared)
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            spare_loopback(os.environ)
            answer = get(f"http://{host}:{server.server_port}/")
            assert getattr(answer, "status", None) or answer.status_code == 204
        finally:
            server.shutdown()


@pytest.mark.parametrize("module", ["pipelines.__main__", "pipelines.stages", "pipelines.flows.retrain"])
def test_every_command_spares_it(module):
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    code = f"import {module}, os; print(os.environ['no_proxy'], os.environ['NO_PROXY'])"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [ALL, ALL]
