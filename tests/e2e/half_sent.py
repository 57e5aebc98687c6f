"""HTTP/2 by hand: calls that send the beginning of a large message and no more, as fast as the server's windows let them."""
import socket
import struct
import time

SETTINGS, DATA, HEADERS, RST_STREAM, PING, GOAWAY, WINDOW_UPDATE = 4, 0, 1, 3, 6, 7, 8


def frame(kind, flags, stream, payload):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    return b"\x10" + bytes([len(name)]) + name + bytes([len(value)]) + value


class HalfSent:
    """One connection with many such calls. send() goes on until nothing more may be sent, or the time is up."""

    def __init__(self, address, path, calls, message_bytes):
        self.sock = socket.create_connection(address, 10)
        self.window, self.initial, self.streams, self.sent = 65535, 65535, {}, 0
        self.left = {1 + 2 * i: message_bytes for i in range(calls)}
        self.buffer, self.closed = b"", False
        headers = b"".join(literal(*h) for h in ((b":method", b"POST"), (b":scheme", b"http"), (b":path", path),
                                                 (b":authority", b"x"), (b"te", b"trailers"), (b"content-type", b"application/grpc")))
        self.sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, b""))
        for stream in self.left:
            self.streams[stream] = 0
            self.sock.sendall(frame(HEADERS, 4, stream, headers))

    def hear(self, wait_s):
        self.sock.settimeout(wait_s)
        try:
            part = self.sock.recv(1 << 16)
            self.closed = self.closed or not part
            self.buffer += part
        except TimeoutError:
            pass
        while len(self.buffer) >= 9:
            size = int.from_bytes(self.buffer[:3], "big")
            if len(self.buffer) < 9 + size:
                break
            kind, flags, stream = struct.unpack(">BBI", self.buffer[3:9])
            self.on_frame(kind, flags, stream, self.buffer[9:9 + size])
            self.buffer = self.buffer[9 + size:]

    def on_frame(self, kind, flags, stream, payload):
        if kind == SETTINGS and not flags & 1:
            for at in range(0, len(payload), 6):
                key, value = struct.unpack(">HI", payload[at:at + 6])
                if key == 4:
                    self.streams = {s: w + value for s, w in self.streams.items()}
                    self.initial = value
            self.sock.sendall(frame(SETTINGS, 1, 0, b""))
        elif kind == PING and not flags & 1:
            self.sock.sendall(frame(PING, 1, 0, payload))
        elif kind == WINDOW_UPDATE and stream == 0:
            self.window += struct.unpack(">I", payload)[0]
        elif kind == WINDOW_UPDATE and stream in self.streams:
            self.streams[stream] += struct.unpack(">I", payload)[0]
        elif kind == RST_STREAM or (kind == HEADERS and flags & 1):
            self.streams.pop(stream, None)
        elif kind == GOAWAY:
            self.closed = True

    def send(self, within_s):
        until = time.monotonic() + within_s
        begun = set()
        try:
            while time.monotonic() < until and not self.closed and self.streams:
                self.hear(0.001)
                for stream, window in list(self.streams.items()):
                    n = min(window, self.window, 16384, self.left[stream] - 1)
                    if n < 5:
                        continue
                    # the message's length, once, and then any bytes
                    head = b"" if stream in begun else struct.pack(">BI", 0, self.left[stream] - 5)
                    begun.add(stream)
                    self.sock.settimeout(10)
                    self.sock.sendall(frame(DATA, 0, stream, head + b"x" * (n - len(head))))
                    self.streams[stream] -= n
                    self.window -= n
                    self.left[stream] -= n
                    self.sent += n
        except OSError:
            self.closed = True
        return self.sent

    def close(self):
        self.sock.close()
