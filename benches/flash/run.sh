#!/usr/bin/env bash
# What the ledger of a busy device costs the flash, by the block device's own counter: for each of several
# ways to mount ext4 and numbers of contents, a ledger is kept for MINUTES (default 16: one report) on a
# disk of its own. Needs root. PROGRAM is `examples/wear`, built with --release.
set -euo pipefail
program=${1:?usage: run.sh PROGRAM [MINUTES]}
minutes=${2:-16}
folder=$(mktemp -d /tmp/larder-flash.XXXXXX)
disks=()
trap 'exit 1' INT TERM
trap 'for d in "${disks[@]}"; do umount "$folder/$d"; done; rm -r "$folder"' EXIT

measure() { # name, options of mount, contents
    local name=$1 options=$2 contents=$3 device before after
    device=$(findmnt -no SOURCE "$folder/$name")
    counter() { sync -f "$folder/$name"; awk '{print $7}' "/sys/block/${device#/dev/}/stat"; }
    # The first seconds make the files: they are not what a minute costs.
    "$program" "$folder/$name/data" "$contents" 30
    before=$(counter)
    "$program" "$folder/$name/data" "$contents" $((minutes * 60))
    after=$(counter)
    awk -v c="$contents" -v o="$options" -v s=$((after - before)) -v m="$minutes" \
        'BEGIN { printf "| %s | %d | %.1f KiB |\n", o, c, s / 2 / m }'
}

echo '| ext4, mounted | contents | written a minute |'
echo '| --- | --- | --- |'
for options in defaults lazytime commit=60; do
    for contents in 1 30 300; do
        name=$options-$contents
        truncate -s 64M "$folder/$name.img"
        mkfs.ext4 -q "$folder/$name.img"
        mkdir "$folder/$name"
        mount -o "loop,$options" "$folder/$name.img" "$folder/$name"
        disks+=("$name")
        mkdir -m 700 "$folder/$name/data"
        measure "$name" "$options" "$contents" &
    done
done
wait
