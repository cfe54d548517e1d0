"""The directory that daemon and clients share: only its owner may look into it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


class Home:
    """Holds the secret, the socket, and the downloaded files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.files = directory / "files"
        self.secret_file = directory / "secret"

    @property
    def address(self) -> str:
        """Where the daemon listens, if it is not told otherwise."""
        return f"unix:{self.directory}/socket"

    def prepare(self) -> None:
        """Make what is not there yet: the daemon does this."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.files.mkdir(exist_ok=True)
        try:
            # With these rights from the beginning: nobody can open it before they are set.
            fd = os.open(self.secret_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return
        with open(fd, "w") as file:
            file.write(secrets.token_hex(32))

    def secret(self) -> str:
        return self.secret_file.read_text()
