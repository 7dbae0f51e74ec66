# The yardstick: examples/floor.rs. LARDER_PROGRAMS is the folder of the built examples.
case $1 in
version) [ -x "$LARDER_PROGRAMS/floor" ] && echo "examples/floor.rs" ;;
start)
  ulimit -n 16384
  exec "$LARDER_PROGRAMS/floor" --torrent "$TORRENTS/big.bin.torrent" --data "$DATA/big.bin" --listen "$IP:$PORT" ;;
ready) exec 3<>"/dev/tcp/$IP/$PORT" ;;
can-s4) echo "it has no limit to set"; exit 3 ;;
can-s5) echo "it serves one content"; exit 3 ;;
esac
