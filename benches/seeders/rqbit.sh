# rqbit, server mode. RQBIT names the program; else it is looked for in PATH and where cargo installs.
# Finds nobody by itself. Debian does not package it: see README.md.
program=${RQBIT:-$(command -v rqbit || echo "${CARGO_HOME:-/root/.cargo}/bin/rqbit")}
case $1 in
version) [ -x "$program" ] && "$program" --version ;;
start)
  ulimit -n 16384
  limit=()
  [ "$RATE" = 0 ] || limit=(--ratelimit-upload "$RATE")
  exec "$program" -v warn --http-api-listen-addr "127.0.0.1:$API" --disable-dht --disable-dht-persistence \
    --disable-lsd --disable-trackers --disable-upnp-port-forward --ipv4-only --listen-ip "$IP" --listen-port "$PORT" \
    --peer-limit 5000 "${limit[@]}" \
    server start "$DATA" --persistence-location "$STATE/session" --fastresume ;;
add)
  python3 - "http://127.0.0.1:$API/torrents?overwrite=true" "$TORRENTS" <<'EOT'
import pathlib, sys, time, urllib.error, urllib.request
url, folder = sys.argv[1:]
for path in sorted(pathlib.Path(folder).glob("*.torrent")):
    for _ in range(100):
        try:
            urllib.request.urlopen(urllib.request.Request(url, path.read_bytes()), timeout=60).read()
            break
        except urllib.error.HTTPError as e:
            raise SystemExit(f"{e} {e.read()}")
        except OSError:
            time.sleep(0.1)
EOT
  ;;
ready)
  python3 - "http://127.0.0.1:$API/torrents?with_stats=true" "$COUNT" <<'EOT' 2>/dev/null
import json, sys, urllib.request
torrents = json.load(urllib.request.urlopen(sys.argv[1], timeout=30))["torrents"]
stats = [t.get("stats", {}) for t in torrents]
sys.exit(sum(bool(s.get("finished")) and s["state"] == "live" for s in stats) != int(sys.argv[2]))
EOT
  ;;
esac
