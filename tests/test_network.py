"""The watch over connections: see ``tests.network``."""

from __future__ import annotations

import socket
import threading

import pytest

from tests.network import WATCH


def refused_by(action) -> list[str]:
    with pytest.raises(ConnectionRefusedError, match="tests open no connection"):
        action()
    refused, WATCH.refused = WATCH.refused, []
    return refused


def connected(host: str) -> None:
    with socket.socket() as end:
        end.settimeout(0.2)
        end.connect((host, 9))


@pytest.mark.parametrize("host", ["192.0.2.1", "127.0.0.1"])
def test_a_connection_is_refused_and_known(host):
    assert refused_by(lambda: connected(host)) == [f"socket.connect {host}"]


def test_a_name_is_not_looked_up():
    assert refused_by(lambda: socket.getaddrinfo("example.org", 443)) == ["socket.getaddrinfo example.org"]


@pytest.mark.loopback
def test_only_this_machine_is_reached_where_that_is_asked_for():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    assert refused_by(lambda: connected("192.0.2.1")) == ["socket.connect 192.0.2.1"]


def test_threads_are_watched_too():
    caught: list[str] = []
    thread = threading.Thread(target=lambda: caught.extend(refused_by(lambda: connected("192.0.2.1"))))
    thread.start()
    thread.join()
    assert caught == ["socket.connect 192.0.2.1"]
