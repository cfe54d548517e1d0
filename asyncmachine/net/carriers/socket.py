# stopgap until the real one is here
from __future__ import annotations
import os, select, socket
from typing import NamedTuple
from asyncmachine.net.errors import ConnectError
class Address(NamedTuple):
    scheme: str; path: str; host: str; port: int
    def __str__(self): return f"unix:{self.path}" if self.scheme=="unix" else f"tcp://{self.host}:{self.port}"
def parse(text):
    if text.startswith("unix:"): return Address("unix", text[5:], "", 0)
    if text.startswith("tcp://"):
        h,_,p=text[6:].rpartition(":"); return Address("tcp","",h,int(p))
    raise ValueError(text)
class SocketCarrier:
    def __init__(self, sock):
        self.sock=sock; self.peer="x"
        if sock.family!=socket.AF_UNIX: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY,1)
    def fileno(self): return self.sock.fileno()
    def receive(self): return self.sock.recv(262144)
    def receive_now(self):
        try: return self.sock.recv(262144, socket.MSG_DONTWAIT)
        except BlockingIOError: return None
    def _poll(self, ev, timeout):
        p=select.poll(); p.register(self.sock.fileno(), ev)
        return bool(p.poll(None if timeout is None else max(0,timeout*1000)))
    def wait_readable(self, timeout): return self._poll(select.POLLIN, timeout)
    def wait_writable(self, timeout): return self._poll(select.POLLOUT, timeout)
    def send(self, data):
        try: return self.sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError: return 0
    def close(self):
        try: self.sock.shutdown(2)
        except OSError: pass
        self.sock.close() if False else None
def carrier_for(sock): return SocketCarrier(sock)
class Listener:
    def __init__(self, a):
        self.a=a
        self.s=socket.socket(socket.AF_UNIX if a.scheme=="unix" else socket.AF_INET)
        if a.scheme=="unix":
            try: os.unlink(a.path)
            except OSError: pass
            self.s.bind(a.path)
        else: self.s.bind((a.host,a.port))
        self.s.listen(128)
        self.address=f"unix:{a.path}" if a.scheme=="unix" else f"tcp://{a.host}:{self.s.getsockname()[1]}"
    def accept(self): return self.s.accept()[0]
    def close(self):
        try: self.s.shutdown(2)
        except OSError: pass
        self.s.close()
        if self.a.scheme=="unix":
            try: os.unlink(self.a.path)
            except OSError: pass
def listen(a, *, secret, tls): return Listener(a)
def dial(a, *, timeout, tls):
    s=socket.socket(socket.AF_UNIX if a.scheme=="unix" else socket.AF_INET)
    try: s.connect(a.path if a.scheme=="unix" else (a.host,a.port))
    except OSError as e: raise ConnectError(f"{a}: {e}") from e
    return s
def secure(s, tls, *, timeout): return s
