"""The options of secrets and TLS, which serving and connecting have in common.

A secret never stands on the command line, where every user of the host can read it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from asyncmachine.tools.command import CommandError

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from ssl import SSLContext

__all__ = ["add_secret", "client_tls", "secret", "server_tls"]

_VARIABLE: Final = "AM_SECRET"


def add_secret(parser: ArgumentParser) -> None:
    """Add the option that names the file of a secret."""
    parser.add_argument(
        "--secret-file",
        metavar="FILE",
        help=f"a file with the secret that both sides know; else the environment variable "
        f"{_VARIABLE}, if it is set",
    )


def secret(file: str | None) -> str | None:
    """Give the secret of a file, or of the environment, or none.

    Raises:
        CommandError: if the file can not be read, or is empty.

    """
    if file is None:
        return os.environ.get(_VARIABLE) or None
    try:
        text = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"--secret-file {file}: {_reason(error)}") from error
    if not text:
        raise CommandError(f"--secret-file {file}: there is no secret in it")
    return text


def server_tls(cert: str | None, key: str | None) -> SSLContext | None:
    """Give what a server encrypts with, or nothing if no certificate is given.

    Raises:
        CommandError: if certificate and key can not be used.

    """
    if cert is None:
        if key is not None:
            raise CommandError("--key needs --cert, the certificate that it belongs to")
        return None
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Asked for a passphrase, an unattended server would wait forever.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ssl.SSLError) as error:
        files = cert if key is None else f"{cert} --key {key}"
        raise CommandError(f"--cert {files}: {_reason(error)}") from error
    return context


def client_tls(ca: str | None, *, system: bool) -> SSLContext | None:
    """Give what a client encrypts with, or nothing if it shall not.

    Args:
        ca: a file with the certificates that are trusted.
        system: whether those of this system are trusted if no file is given.

    Raises:
        CommandError: if the certificates can not be read.

    """
    if ca is None and not system:
        return None
    import ssl

    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise CommandError(f"--ca {ca}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
