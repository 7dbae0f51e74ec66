#!/usr/bin/env python3
"""What the household does, and what answers it. Each verb runs as a process of its own in a namespace.

    traffic.py ping ADDRESS FILE        50 echoes a second until it is ended; a line `sent round-trip` for each
    traffic.py upload ADDRESS SECONDS   one TCP connection, as fast as it goes; prints when it began and ended
    traffic.py download ADDRESS SECONDS the same the other way round
    traffic.py serve ADDRESS            takes uploads and gives downloads until it is ended

Times are seconds since 1970.
"""

import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time

PING_INTERVAL = 0.02
# A ping that is late by more is lost: three times what the uplink's buffer holds.
PING_PATIENCE = 1.0
ECHO_REQUEST, ECHO_REPLY = 8, 0
UPLOAD_PORT, DOWNLOAD_PORT = 9000, 9001
CHUNK = bytes(1 << 16)
# Linux's, which Python does not name.
SO_TIMESTAMPNS = 35


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(identifier, sequence):
    payload = bytes(48)
    head = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, identifier, sequence)
    return struct.pack("!BBHHH", ECHO_REQUEST, 0, checksum(head + payload), identifier, sequence) + payload


class Pings:
    """Replies are timed by the kernel, so that a busy machine delays only what it really delays."""

    def __init__(self, address, file):
        self.address, self.file = address, file
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.setblocking(False)
        self.identifier = os.getpid() & 0xFFFF
        self.sequence, self.sent = 0, {}

    def send(self):
        self.sequence = (self.sequence + 1) & 0xFFFF
        packet = echo_request(self.identifier, self.sequence)
        self.sent[self.sequence] = time.time()
        self.socket.sendto(packet, (self.address, 0))

    def take_replies(self):
        while True:
            try:
                data, more, _, _ = self.socket.recvmsg(256, 256)
            except BlockingIOError:
                return
            kind, _, _, identifier, sequence = struct.unpack_from("!BBHHH", data, 20)
            if kind != ECHO_REPLY or identifier != self.identifier or sequence not in self.sent:
                continue
            seconds, nanoseconds = struct.unpack_from("qq", more[0][2])
            sent = self.sent.pop(sequence)
            self.file.write(f"{sent:.6f} {seconds + nanoseconds / 1e9 - sent:.6f}\n")

    def give_up(self, now):
        for sequence in [s for s, sent in self.sent.items() if now - sent > PING_PATIENCE]:
            self.file.write(f"{self.sent.pop(sequence):.6f} lost\n")

    def run(self):
        due = time.monotonic()
        while True:
            select.select([self.socket], [], [], max(0, due - time.monotonic()))
            self.take_replies()
            if time.monotonic() >= due:
                # After a pause of the machine the beat goes on; what was missed is not sent in a burst.
                due = max(due + PING_INTERVAL, time.monotonic())
                self.send()
                self.give_up(time.time())


def ping(address, path):
    with open(path, "w", buffering=1) as file:
        Pings(address, file).run()


def connect(address, port):
    connection = socket.create_connection((address, port), timeout=30)
    # Ends at once: what waits in buffers here would go on for seconds.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return connection


def upload(address, seconds):
    connection = connect(address, UPLOAD_PORT)
    began = time.time()
    while (left := began + seconds - time.time()) > 0:
        connection.settimeout(left)
        try:
            connection.send(CHUNK)
        except TimeoutError:
            break
    connection.close()
    print(json.dumps({"began": began, "ended": time.time()}))


def download(address, seconds):
    connection = connect(address, DOWNLOAD_PORT)
    began = time.time()
    while (left := began + seconds - time.time()) > 0:
        connection.settimeout(left)
        try:
            connection.recv(1 << 18)
        except TimeoutError:
            break
    connection.close()
    print(json.dumps({"began": began, "ended": time.time()}))


def each_connection(address, port, handle):
    listener = socket.create_server((address, port))

    def accept():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def take(connection):
    with connection:
        try:
            while connection.recv(1 << 18):
                pass
        except OSError:
            pass


def give(connection):
    with connection:
        try:
            while True:
                connection.sendall(CHUNK)
        except OSError:
            pass


def serve(address):
    each_connection(address, UPLOAD_PORT, take)
    each_connection(address, DOWNLOAD_PORT, give)
    print("ready", flush=True)
    signal.pause()


def main():
    verb, address, *rest = sys.argv[1:]
    if verb == "ping":
        ping(address, *rest)
    elif verb == "serve":
        serve(address)
    else:
        {"upload": upload, "download": download}[verb](address, float(*rest))


if __name__ == "__main__":
    main()
