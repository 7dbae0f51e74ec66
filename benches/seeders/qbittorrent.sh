# qbittorrent-nox (libtorrent inside). Finds nobody by itself, encrypts nothing, slots and connections for all.
url="http://127.0.0.1:$API/api/v2"
case $1 in
version)
  program=$(qbittorrent-nox --version) &&
    echo "$program, libtorrent $(dpkg-query -W -f '${Version}' libtorrent-rasterbar2.0 2>/dev/null || echo '?')" ;;
prepare)
  mkdir -p "$STATE/profile/qBittorrent/config"
  cat > "$STATE/profile/qBittorrent/config/qBittorrent.conf" <<EOT
[LegalNotice]
Accepted=true
[Network]
PortForwardingEnabled=false
[Preferences]
WebUI\\Address=127.0.0.1
WebUI\\Port=$API
WebUI\\LocalHostAuth=false
WebUI\\CSRFProtection=false
WebUI\\HostHeaderValidation=false
WebUI\\UseUPnP=false
General\\Locale=en
[BitTorrent]
Session\\Port=$PORT
Session\\Interface=lo
Session\\InterfaceName=lo
Session\\InterfaceAddress=$IP
Session\\BTProtocol=TCP
Session\\DHTEnabled=false
Session\\PeXEnabled=false
Session\\LSDEnabled=false
Session\\Encryption=2
Session\\QueueingSystemEnabled=false
Session\\MaxConnections=-1
Session\\MaxConnectionsPerTorrent=-1
Session\\MaxUploads=-1
Session\\MaxUploadsPerTorrent=-1
Session\\MultiConnectionsPerIp=true
Session\\GlobalUPSpeedLimit=$((RATE / 1024))
Session\\GlobalDLSpeedLimit=0
Session\\IgnoreLimitsOnLAN=false
Session\\DefaultSavePath=$DATA
Session\\DisableAutoTMMByDefault=true
[Core]
AutoDeleteAddedTorrentFile=Never
EOT
  ;;
start) ulimit -n 16384; exec qbittorrent-nox --profile="$STATE/profile" --webui-port="$API" ;;
add)
  python3 - "$url" "$DATA" "$TORRENTS" <<'EOT'
import pathlib, sys, time, urllib.request
url, data, folder = sys.argv[1:]
for _ in range(300):
    try:
        urllib.request.urlopen(url + "/app/version", timeout=5).read()
        break
    except OSError:
        time.sleep(0.1)
torrents = sorted(pathlib.Path(folder).glob("*.torrent"))
fields = {"savepath": data}
if len(torrents) >= 1000:  # it checks about one small torrent a second
    fields["skip_checking"] = "true"
edge = "edge-of-a-part"
for at in range(0, len(torrents), 50):
    body = b""
    for path in torrents[at:at + 50]:
        body += (f'--{edge}\r\nContent-Disposition: form-data; name="torrents"; filename="{path.name}"\r\n'
                 "Content-Type: application/x-bittorrent\r\n\r\n").encode() + path.read_bytes() + b"\r\n"
    for name, value in fields.items():
        body += f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
    body += f"--{edge}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    urllib.request.urlopen(urllib.request.Request(url + "/torrents/add", body, headers), timeout=120).read()
EOT
  ;;
ready)
  python3 - "$url" "$COUNT" <<'EOT' 2>/dev/null
import json, sys, urllib.request
torrents = json.load(urllib.request.urlopen(sys.argv[1] + "/torrents/info", timeout=30))
sys.exit(sum(t["state"] in ("uploading", "stalledUP", "forcedUP") for t in torrents) != int(sys.argv[2]))
EOT
  ;;
stop)
  python3 - "$url" <<'EOT' >/dev/null 2>&1
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/app/shutdown", b""), timeout=10)
EOT
  sleep 2 ;;
esac
