"""Seeds every torrent of a folder with libtorrent until told to stop; `libtorrent.sh` starts it."""

import os
import pathlib
import time

import libtorrent

env = os.environ
session = libtorrent.session({
    "listen_interfaces": f"{env['IP']}:{env['PORT']}",
    "enable_dht": False, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "enable_incoming_utp": False, "enable_outgoing_utp": False,
    "in_enc_policy": 2, "out_enc_policy": 2,
    "connections_limit": 5000, "unchoke_slots_limit": -1, "choking_algorithm": 0,
    "active_seeds": -1, "active_limit": -1, "active_checking": 4, "dont_count_slow_torrents": False,
    "upload_rate_limit": int(env["RATE"]), "rate_limit_ip_overhead": False, "alert_mask": 0,
    "max_allowed_in_request_queue": 2000,
})
handles = []
for path in sorted(pathlib.Path(env["TORRENTS"]).glob("*.torrent")):
    params = libtorrent.add_torrent_params()
    params.ti = libtorrent.torrent_info(str(path))
    params.save_path = env["DATA"]
    params.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
    if env["FRESH"] != "1":
        params.flags |= libtorrent.torrent_flags.seed_mode
    handles.append(session.add_torrent(params))
while not all(handle.status().is_seeding for handle in handles):
    time.sleep(0.05)
pathlib.Path(env["STATE"], "ready").touch()
while True:
    time.sleep(3600)
