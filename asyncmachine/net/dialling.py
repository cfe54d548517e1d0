"""Making a connection, and making it again when it is lost.

Guarantees: one thread at a time makes a connection again, and goes on until there is one,
or until nobody wants any. A machine that has to be asked for anew in another process is
not forgotten if that process goes away meanwhile.
"""

from __future__ import annotations

from functools import partial
from random import uniform
from time import monotonic
from typing import TYPE_CHECKING, Final

from asyncmachine.errors import MachineError
from asyncmachine.logs import log_warning
from asyncmachine.net import wire
from asyncmachine.net.carriers.socket import carrier_for, dial, parse
from asyncmachine.net.client import failure
from asyncmachine.net.errors import AuthenticationError, ConnectionLostError, ProtocolError
from asyncmachine.net.greeting import check_secret, greet_client
from asyncmachine.oneshot import Told
from asyncmachine.threads import run_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable
    from ssl import SSLContext

    from asyncmachine.net.carriers import Carrier
    from asyncmachine.net.client import Call, Client
    from asyncmachine.net.greeting import Greeted
    from asyncmachine.net.remote import RemoteMachine

__all__ = ["Dialler"]

# Seconds between two attempts: the first, and the longest.
_FIRST_DELAY: Final = 0.02
_LONGEST_DELAY: Final = 2.0

_FREE: Final = (None,)
# A connection that has lasted for so many seconds was a good one.
_STEADY: Final = 1.0


class Dialler:
    """Connects a client to an address, and does so again when the connection is lost.

    Args:
        address: where somebody serves.
        secret: what both sides know.
        tls: how to encrypt.
        timeout: seconds that connecting may take.
        reconnect: whether to connect again.
        on_afresh: called with the client when another session has begun, before the mirrors
            go on; it may make calls.

    """

    def __init__(
        self,
        address: str,
        *,
        secret: str | bytes | None,
        tls: SSLContext | None,
        timeout: float,
        reconnect: bool,
        on_afresh: Callable[[Client], object] | None = None,
    ) -> None:
        check_secret(secret)
        self.address = parse(address)
        self._secret = secret
        self._tls = tls
        self._timeout = timeout
        self._reconnect = reconnect
        self._on_afresh = on_afresh
        self._session = b""
        self._stop = Told()
        self._delay = _FIRST_DELAY
        self._connected_at = -_STEADY
        self._received = 0  # in this session when it was connected: more is a good sign
        self._baton = [None]
        self._down: list[None] = []  # one for each connection that has ended
        self._homeless: dict[RemoteMachine, None] = {}

    def connect(self, client: Client) -> None:
        """Connect for the first time.

        Raises:
            ConnectError: if nobody serves there, or it does not answer in time.
            AuthenticationError: if the secrets differ.
            ProtocolError: if something else serves there.

        """
        client.on_lost = self.stop
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
            self._give_up(
                client, ConnectionLostError(f"the connection to {self.address} is lost: {why}")
            )
            return
        if farewell:
            log_warning(client.name, f"disconnected: {farewell}")
        self._down.append(None)
        run_elsewhere(partial(self._connect_again, client))

    def _give_up(self, client: Client, error: Exception) -> None:
        client.lose(error)
        for remote in list(self._homeless):
            self._homeless.pop(remote, None)
            remote.lost(str(error))

    def _connect_again(self, client: Client) -> None:
        while self._down:
            try:
                del self._baton[0]
            except IndexError:
                return  # who has it looks again after giving it back
            try:
                self._down.clear()
                self._restore(client)
            finally:
                self._baton += _FREE

    def _restore(self, client: Client) -> None:
        """Make one connection, however long that takes; or give the other side up."""
        received = client.link.detach()
        if monotonic() - self._connected_at >= _STEADY or received != self._received:
            self._delay = _FIRST_DELAY
        else:  # it broke at once: do not hurry
            self._pause()
        for remote in client.remotes:
            remote.connecting()
        while self._reconnect and not client.is_lost:
            try:
                carrier, greeted = self._dial(client, self._session, received)
            except (AuthenticationError, ProtocolError) as error:
                self._give_up(client, error)
                return
            except (OSError, MachineError):  # nobody is there, or not for long
                self._pause()
                continue
            self._connected_at = monotonic()
            self._received = received if greeted.resumed else 0
            try:
                self._go_on(client, carrier, greeted)
            except MachineError as error:
                log_warning(client.name, f"reconnected in vain: {error}")
                if not client.is_lost:
                    self._give_up(client, error)
            return
        if not client.is_lost:
            why = ConnectionLostError(f"the connection to {self.address} was closed")
            self._give_up(client, why)

    def _pause(self) -> None:
        # It spreads, and hides nothing.
        self._stop.wait(self._delay * uniform(0.5, 1.0))  # noqa: S311
        self._delay = min(self._delay * 2, _LONGEST_DELAY)

    def _go_on(self, client: Client, carrier: Carrier, greeted: Greeted) -> None:
        """Go on with the session that was cut, or begin another."""
        self._session = greeted.session
        client.peer_max_frame = greeted.max_frame
        if greeted.resumed:
            link = client.link
            link.attach(carrier, peer_received=greeted.received, peer_max_frame=greeted.max_frame)
            client.came_up()
            for remote in client.remotes:
                remote.resumed(link)
            link.start_reading()
            return
        before, link = client.link, client.new_link()
        self._homeless.update(dict.fromkeys(client.forget_machines()))
        client.link = link
        before.close()
        lost = ConnectionLostError(f"{client.name} has begun afresh: what was under way is lost")
        client.forget_calls(lost, before)
        link.attach(carrier, peer_max_frame=greeted.max_frame)
        client.came_up()
        link.start_reading()
        if self._on_afresh is not None:
            self._on_afresh(client)
        for remote in list(self._homeless):
            call = client.begin(link)
            call.when_done(partial(self._moved, client, remote))
            client.submit(call, link, wire.Open(call.number, remote.id))

    def _moved(self, client: Client, remote: RemoteMachine, call: Call) -> None:
        """Take note of where a machine lives now; on the thread that reads the link."""
        reply = call.reply
        if isinstance(reply, wire.Failed):
            self._homeless.pop(remote, None)
            remote.lost(str(failure(reply)))
        elif isinstance(reply, wire.Opened) and call.link is not None:
            self._homeless.pop(remote, None)
            try:
                remote.moved_in(reply, call.link, afresh=True)
            except ProtocolError as error:
                remote.lost(str(error))
        # Else that process has gone, too: it stays homeless until there is another.
