"""No test reaches beyond this machine, and only tests marked ``loopback`` open a connection at all.

An audit hook of the interpreter (PEP 578) sees what every library does, in forked processes too; those that
``tests.processes`` starts may connect within this machine.
"""

from __future__ import annotations

import ipaddress
import socket
import sys

EVENTS = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg"}
LOOKUPS = {"socket.getaddrinfo", "socket.gethostbyname"}
UNIX = getattr(socket, "AF_UNIX", None)
LOOPBACK = ("127.", "::1", "localhost")


class Watch:
    """loopback: connections within this machine are allowed. refused: what was tried since the list was emptied."""

    def __init__(self) -> None:
        self.loopback = False
        self.refused: list[str] = []
        sys.addaudithook(self._event)

    def _event(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in LOOKUPS:
            host = _text(arguments[0])
            allowed = not host or host == socket.gethostname() or _is_number(host)  # nobody is asked
        elif event in EVENTS:
            connection, address = arguments[:2]
            # of the file system, or between two ends of one process
            allowed = not isinstance(address, tuple) or getattr(connection, "family", None) == UNIX
            host = str(address[0]) if isinstance(address, tuple) else ""
            # listening reaches nobody; connecting a socket of UDP sends nothing (dask asks for its own address so)
            quiet = event == "socket.bind" or getattr(connection, "type", None) == socket.SOCK_DGRAM
            allowed |= self.loopback and quiet and event != "socket.sendto"
            # urllib3, which pydicom and others import, asks so whether this machine knows IPv6
            allowed |= event == "socket.bind" and isinstance(address, tuple) and tuple(address[:2]) == ("::1", 0)
        else:
            return
        if not allowed and not (self.loopback and (host.startswith(LOOPBACK) or _is_here(host))):
            self.refused.append(f"{event} {host}")
            raise ConnectionRefusedError(f"tests open no connection: {event} {host}")


def _text(host: object) -> str:
    return host.decode() if isinstance(host, bytes) else "" if host is None else str(host)


def _is_number(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_here(host: str) -> bool:
    """Whether an address is one of this machine: only to those can a socket be bound."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as end:
        try:
            end.bind((host, 0))
        except OSError:
            return False
    return True


WATCH = Watch()
