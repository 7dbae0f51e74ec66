# aria2c. Finds nobody by itself, no limit on peers, hash check on the first start only.
case $1 in
version) aria2c --version | head -1 ;;
prepare) ls "$TORRENTS"/*.torrent > "$STATE/list" ;;
start)
  ulimit -n 16384
  unverified=true; [ "$FRESH" = 1 ] && unverified=false
  exec aria2c --no-conf=true --enable-rpc=true --rpc-listen-port="$API" --disable-ipv6=true --interface="$IP" \
    --dir="$DATA" --listen-port="$PORT" --enable-dht=false --enable-dht6=false --enable-peer-exchange=false \
    --bt-enable-lpd=false --bt-max-peers=0 --seed-ratio=0.0 --check-integrity=true --bt-hash-check-seed=true \
    --bt-seed-unverified=$unverified --allow-overwrite=true --max-concurrent-downloads=2000 \
    --bt-max-open-files=2000 --max-overall-upload-limit="$RATE" --quiet=true --input-file="$STATE/list" ;;
ready)
  python3 - "$API" "$COUNT" <<'EOT' 2>/dev/null
import json, sys, urllib.request
ask = {"jsonrpc": "2.0", "id": 1, "method": "aria2.tellActive", "params": [["seeder"]]}
answer = urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/jsonrpc", json.dumps(ask).encode(), timeout=30)
seeding = sum(t.get("seeder") == "true" for t in json.load(answer)["result"])
sys.exit(seeding != int(sys.argv[2]))
EOT
  ;;
esac
