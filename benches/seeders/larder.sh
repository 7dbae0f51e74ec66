# Larder for comparison benches: called as `bash larder.sh VERB`, with STATE DATA TORRENTS COUNT IP PORT
# API RATE CONNS FRESH in the environment. LARDERD names the program; else it is the tree's release
# build. No hub: larderd serves what was preloaded. RATE is payload for other seeders; Larder's limit
# is on the wire, headers included, so that it serves about 0.5 % less payload than RATE.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
D=${LARDERD:-${CARGO_TARGET_DIR:-$here/target}/release/larderd}
status() { # the document of the owner's page
  python3 - "$STATE/data/status.sock" <<'EOT'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
while d := s.recv(1 << 16):
    sys.stdout.write(d.decode())
EOT
}
case $1 in
version) "$D" --version ;;
prepare)
  rate=$RATE
  # From 10 Gbit/s on there is no limit.
  [ "$RATE" = 0 ] && rate=1250000000
  cat > "$STATE/larderd.toml" <<EOT
data_dir = "$STATE/data"
[serve]
listen = ["$IP:$PORT"]
egress_bytes_per_second_max = $rate
connections_max = 5000
connections_per_ip_max = 5000
connections_per_content_max = 5000
[cache]
quota_bytes = 1099511627776
reserve_bytes = 0
[admin]
listen = "127.0.0.1:$API"
EOT
  ;;
start)
  ulimit -n 16384
  # The data are taken in before the daemon runs: it has the store to itself.
  if [ "$FRESH" = 1 ]; then
    "$D" preload --config "$STATE/larderd.toml" --torrents "$TORRENTS" --data "$DATA" | tail -1 || exit 1
  fi
  exec "$D" --config "$STATE/larderd.toml" ;;
add|stop) ;;
ready)
  status 2>/dev/null | python3 -c '
import json, os, sys
held = json.load(sys.stdin)["cache"]["contents"]
sys.exit(sum(c["state"] == "serving" for c in held) != int(os.environ["COUNT"]))' 2>/dev/null ;;
mode) ;;
can-*) ;;
esac
