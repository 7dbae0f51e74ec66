# libtorrent-rasterbar 2 through Debian's Python binding (so Debian's own Python), set up as a seeder.
case $1 in
version) /usr/bin/python3 -c 'import libtorrent; print("libtorrent", libtorrent.__version__)' ;;
prepare|stop) rm -f "$STATE/ready" ;;
start) ulimit -n 16384; rm -f "$STATE/ready"; exec /usr/bin/python3 "$(dirname "${BASH_SOURCE[0]}")/libtorrent_seed.py" ;;
ready) [ -e "$STATE/ready" ] ;;
esac
