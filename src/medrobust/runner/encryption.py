"""Who may reach a dask port: whoever does runs code as the user, so it is this machine only, or TLS.

dask sends pickled Python between client, scheduler and workers, and none of them asks for a password. With TLS each
side shows a certificate of the same authority; a connection without one is closed before anything is read.
"""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medrobust.atomic import disk_errors
from medrobust.errors import InputError

FILES = ("ca.pem", "cert.pem", "key.pem")
"""Of the folder of --tls: the authority, and the certificate and key that scheduler, workers and client use."""

LOOPBACK = "127.0.0.1"
NO_DASHBOARD = ("--no-dashboard", "--dashboard-address", f"{LOOPBACK}:0")
"""Options of ``dask worker``: without the second, its HTTP server listens on all addresses even without a dashboard."""


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine reach that host name or address."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def for_address(address: str, tls: Path | None) -> Any:
    """The ``Security`` for a scheduler at ``address``, or None for one of this machine. InputError where it is open."""
    protocol, _, rest = address.partition("://")
    host = rest.rpartition(":")[0].strip("[]")
    if protocol not in ("tcp", "tls") or not host:
        raise InputError(f"--scheduler must read tcp://127.0.0.1:PORT or tls://HOST:PORT, got {address!r}")
    if protocol == "tls":
        return from_files(tls) if tls is not None else _from_configuration(address)
    if tls is not None:
        raise InputError(f"--tls is for a scheduler at tls://HOST:PORT, {address} is not encrypted")
    if not is_loopback(host):
        raise InputError(
            f"{address} is not encrypted, and whoever reaches a dask port runs code as its owner; start the scheduler "
            "with TLS and give tls://HOST:PORT and --tls FOLDER, or give 127.0.0.1 and a tunnel (ssh -L)"
        )
    return None


def certificates_for_jobs(interface: str | None, tls: Path | None, place: Path) -> tuple[Path | None, bool]:
    """(folder of certificates for a scheduler that jobs connect to, whether it was made here and ends with the run).

    None on the loopback interface. Without --tls, a new authority of this run alone, in a folder below ``place`` that
    only the user reads. InputError where no certificate can be made.
    """
    if tls is not None or interface == "lo":
        return tls, False
    if importlib.util.find_spec("cryptography") is None:
        raise InputError(
            "--slurm needs TLS, for whoever reaches a dask port runs code as you: pip install cryptography, give --tls "
            f"FOLDER ({', '.join(FILES)}), or interface=lo where all jobs run on this machine"
        )
    from distributed.security import Security

    settings = Security.temporary().get_tls_config_for_role("scheduler")
    with disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="tls-", dir=place.resolve()))  # for the user alone, and so are its files
        for name, content in zip(FILES, (settings["ca_file"], settings["cert"], settings["key"]), strict=True):
            (folder / name).write_text(content)
    return folder, True


def from_files(folder: Path) -> Any:
    """The ``Security`` of the certificates in a folder, see FILES; unencrypted connections are refused."""
    from distributed.security import Security

    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(f"--tls {folder} holds no {name}; it needs {', '.join(FILES)}")
    ca, cert, key = (str((folder / name).resolve()) for name in FILES)
    pairs = {
        f"tls_{role}_{k}": v for role in ("client", "scheduler", "worker") for k, v in (("cert", cert), ("key", key))
    }
    return Security(require_encryption=True, tls_ca_file=ca, **pairs)


def _from_configuration(address: str) -> Any:
    """Of dask's own configuration (distributed.comm.tls)."""
    from distributed.security import Security

    security = Security(require_encryption=True)
    if not security.get_tls_config_for_role("client")["ca_file"]:
        raise InputError(f"{address} needs certificates: give --tls FOLDER ({', '.join(FILES)})")
    return security


@contextlib.contextmanager
def no_web_pages() -> Iterator[None]:
    """A scheduler started inside serves no page: no dashboard, no metrics, no list of tasks."""
    import dask

    with dask.config.set({"distributed.scheduler.http.routes": [], "distributed.worker.http.routes": []}):
        yield
