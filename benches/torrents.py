"""Content to serve, the same bytes each time, and its .torrent. Shared by the benches."""

import hashlib
import random


def bencode(value):
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    return b"d" + b"".join(bencode(k.encode()) + bencode(value[k]) for k in sorted(value)) + b"e"


def make_content(data, torrents, name, size, piece, seed):
    """Does nothing where it has been made before. Returns the .torrent's path."""
    data.mkdir(parents=True, exist_ok=True)
    torrents.mkdir(parents=True, exist_ok=True)
    torrent = torrents / f"{name}.torrent"
    if torrent.exists():
        return torrent
    source, left, hashes = random.Random(seed), size, b""
    with open(data / name, "wb") as file:
        while left:
            block = source.randbytes(min(piece, left))
            left -= len(block)
            hashes += hashlib.sha1(block).digest()
            file.write(block)
    info = {"name": name.encode(), "length": size, "piece length": piece, "pieces": hashes}
    torrent.write_bytes(bencode({"info": info}))
    return torrent
