"""A detached Ed25519 signature (RFC 8032) of a run's manifest, with a key that stays where it is.

The signature is 64 bytes, so that it can be checked without medrobust:
``openssl pkeyutl -verify -pubin -inkey PUBLIC.pem -rawin -in manifest.json -sigfile manifest.json.sig``.
Needs the extra ``sign``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from medrobust import atomic, manifest
from medrobust.errors import InputError, one_line

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PASSPHRASE = "MEDROBUST_KEY_PASSPHRASE"
"""Environment variable that holds the passphrase of a private key."""
OPENSSH = (b"-----BEGIN OPENSSH PRIVATE KEY-----", b"ssh-ed25519 ")
"""How a private and a public key of OpenSSH begin; others are PEM."""
MOST_BYTES = 2**16
"""A larger file is no key."""
MAKE = "make one with: openssl genpkey -algorithm ed25519 -out key.pem"


def private_key(file: Path) -> Ed25519PrivateKey:
    """The Ed25519 private key in a file, PEM or OpenSSH. InputError, in one line, where there is none."""
    _needs_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    content, passphrase = _read(file), os.environ.get(PASSPHRASE)
    ssh = content.lstrip().startswith(OPENSSH[0])
    load = serialization.load_ssh_private_key if ssh else serialization.load_pem_private_key
    try:
        try:
            key = load(content, None)
        except (TypeError, ValueError):  # as they are raised for a key with a passphrase, by format
            if passphrase is None and b"ENCRYPTED" not in content and not ssh:
                raise
            if passphrase is None:
                raise InputError(f"the key {file} may have a passphrase: set {PASSPHRASE}") from None
            key = load(content, passphrase.encode())
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        if isinstance(error, InputError):
            raise
        fix = "pip install bcrypt" if ssh and isinstance(error, UnsupportedAlgorithm) else MAKE
        raise InputError(f"{file} is no private key that can be read ({one_line(error)}); {fix}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{file} holds a key of another kind than Ed25519; {MAKE}")
    return key


def public_key(file: Path) -> Ed25519PublicKey:
    """The Ed25519 public key in a file, PEM or OpenSSH. InputError, in one line, where there is none."""
    _needs_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    content = _read(file)
    ssh = content.lstrip().startswith(OPENSSH[1])
    try:
        key = (serialization.load_ssh_public_key if ssh else serialization.load_pem_public_key)(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(
            f"{file} is no public key that can be read ({one_line(error)}); "
            "of a private one: openssl pkey -in key.pem -pubout -out public.pem"
        ) from None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{file} holds a key of another kind than Ed25519")
    return key


def sign(folder: Path, key: Ed25519PrivateKey) -> Path:
    """Sign the manifest of a run folder; returns the path of the signature, which replaces an earlier one."""
    file = folder / manifest.SIGNATURE
    atomic.write_bytes(file, key.sign((folder / manifest.FILE).read_bytes()))
    return file


def is_signed_by(folder: Path, key: Ed25519PublicKey) -> bool:
    """Whether the signature in a run folder is that of its manifest, by this key."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify((folder / manifest.SIGNATURE).read_bytes(), (folder / manifest.FILE).read_bytes())
    except InvalidSignature:
        return False
    return True


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MOST_BYTES)
    except OSError as error:
        raise InputError(f"the key {file} cannot be read: {error.strerror or error}") from error


def _needs_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise InputError("keys need the package cryptography: pip install 'medrobust[sign]'") from None
