"""Making a connection, and making it again when it is lost."""

from __future__ import annotations

from functools import partial
from random import uniform
from typing import TYPE_CHECKING, Final

from asyncmachine.errors import MachineError
from asyncmachine.logs import log_warning
from asyncmachine.net.carriers.socket import carrier_for, dial, parse
from asyncmachine.net.errors import (
    AuthenticationError,
    ConnectError,
    ConnectionLostError,
    ProtocolError,
    UnknownMachineError,
)
from asyncmachine.net.greeting import greet_client
from asyncmachine.oneshot import OneShot
from asyncmachine.threads import run_elsewhere

if TYPE_CHECKING:
    from ssl import SSLContext

    from asyncmachine.net.carriers import Carrier
    from asyncmachine.net.client import Client
    from asyncmachine.net.greeting import Greeted

__all__ = ["Dialler"]

# Seconds between two attempts: the first, and the longest.
_FIRST_DELAY: Final = 0.02
_LONGEST_DELAY: Final = 2.0


class _Stop(OneShot):
    def tell(self) -> None:
        self._fire()


class Dialler:
    """Connects a client to an address, and does so again when the connection is lost.

    Args:
        address: where somebody serves.
        secret: what both sides know.
        tls: how to encrypt.
        timeout: seconds that connecting may take.
        reconnect: whether to connect again.

    """

    def __init__(
        self,
        address: str,
        *,
        secret: str | bytes | None,
        tls: SSLContext | None,
        timeout: float,
        reconnect: bool,
    ) -> None:
        self.address = parse(address)
        self._secret = secret
        self._tls = tls
        self._timeout = timeout
        self._reconnect = reconnect
        self._session = b""
        self._stop = _Stop()

    def connect(self, client: Client) -> None:
        """Connect for the first time.

        Raises:
            ConnectError: if nobody serves there, or it does not answer in time.
            AuthenticationError: if the secrets differ.
            ProtocolError: if something else serves there.

        """
        carrier, greeted = self._dial(client, b"", 0)
        self._session = greeted.session
        client.peer_max_frame = greeted.max_frame
        client.link.attach(carrier, peer_max_frame=greeted.max_frame)
        client.link.start_reading()
        client.came_up()

    def _dial(self, client: Client, session: bytes, received: int) -> tuple[Carrier, Greeted]:
        sock = dial(self.address, timeout=self._timeout, tls=self._tls)
        try:
            greeted = greet_client(
                sock,
                secret=self._secret,
                max_frame=client.max_frame,
                timeout=self._timeout,
                session=session,
                received=received,
            )
        except BaseException:
            sock.close()
            raise
        return carrier_for(sock), greeted

    def stop(self) -> None:
        """Connect no more."""
        self._reconnect = False
        self._stop.tell()

    def went_down(self, client: Client, error: Exception | None) -> None:
        """Connect again, or give the other side up."""
        if client.is_lost:
            return
        farewell = client.link.farewell
        if not self._reconnect or isinstance(error, ProtocolError):
            why = str(error) if error else farewell or "the other side closed the connection"
            client.lose(ConnectionLostError(f"the connection to {self.address} is lost: {why}"))
            return
        if farewell:
            log_warning(client.name, f"disconnected: {farewell}")
        run_elsewhere(partial(self._connect_again, client))

    def _connect_again(self, client: Client) -> None:
        received = client.link.detach()
        delay = _FIRST_DELAY
        for remote in client.remotes:
            remote.connecting()
        while self._reconnect and not client.is_lost:
            try:
                carrier, greeted = self._dial(client, self._session, received)
            except ConnectError:
                self._stop.wait(delay * uniform(0.5, 1.0))  # noqa: S311 - it spreads, and hides nothing
                delay = min(delay * 2, _LONGEST_DELAY)
                continue
            except (AuthenticationError, ProtocolError) as error:
                client.lose(error)
                return
            try:
                self._go_on(client, carrier, greeted)
            except (MachineError, TimeoutError) as error:
                log_warning(client.name, f"reconnected in vain: {error}")
            return
        if not client.is_lost:
            client.lose(ConnectionLostError(f"the connection to {self.address} was closed"))

    def _go_on(self, client: Client, carrier: Carrier, greeted: Greeted) -> None:
        """Go on with the session that was cut, or begin another."""
        self._session = greeted.session
        if greeted.resumed:
            link = client.link
            link.attach(
                carrier, peer_received=greeted.received, peer_max_frame=greeted.max_frame
            )
            link.start_reading()
            client.came_up()
            for remote in client.remotes:
                remote.resumed(link)
            return
        lost = ConnectionLostError(f"{client.name} has begun afresh: what was under way is lost")
        client.forget_calls(lost)
        remotes = client.forget_machines()
        client.link = client.new_link()
        client.peer_max_frame = greeted.max_frame
        client.link.attach(carrier, peer_max_frame=greeted.max_frame)
        client.link.start_reading()
        client.came_up()
        for remote in remotes:
            try:
                remote.moved_in(remote.reopen(), client.link, afresh=True)
            except UnknownMachineError as error:
                remote.lost(str(error))
