# stopgap until the real one is here
from __future__ import annotations
import os, struct
from typing import NamedTuple
class Greeted(NamedTuple):
    session: bytes; received: int; resumed: bool; max_frame: int
def _rx(s,n):
    d=b""
    while len(d)<n:
        m=s.recv(n-len(d))
        if not m: raise OSError("eof")
        d+=m
    return d
def greet_client(sock, *, secret, max_frame, timeout, session=b"", received=0):
    sock.sendall(session.ljust(16,b"\0")+struct.pack(">QI",received,max_frame))
    d=_rx(sock,16+13); r,m,res=struct.unpack(">QI?",d[16:])
    return Greeted(d[:16],r,res,m)
def greet_server(sock, *, secret, max_frame, timeout, resume):
    d=_rx(sock,16+12); sid=d[:16]; rec,m=struct.unpack(">QI",d[16:])
    got=resume(sid) if sid.strip(b"\0") else None
    if got is None: sid=os.urandom(16); rec=0
    sock.sendall(sid+struct.pack(">QI?",got or 0,max_frame,got is not None))
    return Greeted(sid,rec,got is not None,m)
