# rtorrent as a daemon without a terminal. Finds nobody by itself, encrypts nothing, slots for all.
case $1 in
version) rtorrent -h 2>&1 | head -1 | grep -o 'version [0-9.]*[0-9]' ;;
prepare)
  mkdir -p "$STATE/session" "$STATE/torrents"
  # It refuses a torrent without a tracker. A dead one on loopback leaves the infohash as it is.
  python3 - "$TORRENTS" "$STATE/torrents" <<'EOT'
import pathlib, sys
for path in pathlib.Path(sys.argv[1]).glob("*.torrent"):
    torrent = path.read_bytes()
    (pathlib.Path(sys.argv[2]) / path.name).write_bytes(b"d8:announce20:http://127.0.0.1:9/a" + torrent[1:])
EOT
  cat > "$STATE/rc" <<EOT
system.daemon.set = true
session.path.set = $STATE/session
directory.default.set = $DATA
network.bind_address.set = $IP
network.port_range.set = $PORT-$PORT
network.port_random.set = no
network.scgi.open_port = 127.0.0.1:$API
dht.mode.set = disable
protocol.pex.set = no
trackers.use_udp.set = no
protocol.encryption.set = none
network.max_open_sockets.set = 4000
network.max_open_files.set = 4000
throttle.max_peers.normal.set = 4000
throttle.max_peers.seed.set = 4000
throttle.max_uploads.set = 1000
throttle.max_uploads.global.set = 5000
throttle.global_up.max_rate.set_kb = $((RATE / 1024))
pieces.memory.max.set = 1024M
EOT
  ;;
start)
  ulimit -n 16384
  if [ "$FRESH" = 1 ]; then exec rtorrent -n -o "import=$STATE/rc" "$STATE"/torrents/*.torrent; fi
  exec rtorrent -n -o "import=$STATE/rc" ;;
ready)
  python3 - "$API" "$COUNT" <<'EOT' 2>/dev/null
import socket, sys, xmlrpc.client
body = xmlrpc.client.dumps(("", "main", "d.complete=", "d.state=", "d.hashing="), "d.multicall2").encode()
head = f"CONTENT_LENGTH\0{len(body)}\0SCGI\0" + "1\0"
link = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 20)
link.sendall(f"{len(head)}:{head},".encode() + body)
answer = b"".join(iter(lambda: link.recv(65536), b""))
torrents = xmlrpc.client.loads(answer.split(b"\r\n\r\n", 1)[1])[0][0]
sys.exit(sum(t == [1, 1, 0] for t in torrents) != int(sys.argv[2]))
EOT
  ;;
esac
