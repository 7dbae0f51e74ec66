#!/usr/bin/env bash
# What the ledger of a busy device costs the flash, by the block device's own counter: for each of several
# filesystems and numbers of contents, a ledger is kept for MINUTES (default 16: one report) on a
# disk of its own. Needs root. PROGRAM is `examples/wear`, built with --release.
set -euo pipefail
program=${1:?usage: run.sh PROGRAM [MINUTES]}
minutes=${2:-16}
folder=$(mktemp -d /tmp/larder-flash.XXXXXX)
disks=()
trap 'exit 1' INT TERM
trap 'for d in "${disks[@]}"; do umount "$folder/$d"; done; rm -r "$folder"' EXIT

measure() { # name, contents
    local name=$1 contents=$2 device before after
    device=$(findmnt -no SOURCE "$folder/$name")
    counter() { sync -f "$folder/$name"; awk '{print $7}' "/sys/block/${device#/dev/}/stat"; }
    # The first seconds make the files: they are not what a minute costs.
    "$program" "$folder/$name/data" "$contents" 30
    before=$(counter)
    "$program" "$folder/$name/data" "$contents" $((minutes * 60))
    after=$(counter)
    awk -v c="$contents" -v n="$name" -v s=$((after - before)) -v m="$minutes" \
        'BEGIN { sub(/-[0-9]+$/, "", n); printf "| %s | %d | %.0f KiB |\n", n, c, s / 2 / m }'
}

start() { # name, contents, options of mount, command that makes the filesystem
    local name=$1-$2 contents=$2 options=$3
    command -v "$4" >/dev/null || return 0
    truncate -s 400M "$folder/$name.img"
    "${@:4}" "$folder/$name.img" >/dev/null 2>&1
    mkdir "$folder/$name"
    mount -o "loop$options" "$folder/$name.img" "$folder/$name" 2>/dev/null || return 0
    disks+=("$name")
    mkdir -m 700 "$folder/$name/data"
    measure "$name" "$contents" &
}

echo '| filesystem | contents | written a minute |'
echo '| --- | --- | --- |'
start 'ext4' 1 '' mkfs.ext4 -b 4096
start 'ext4' 30 '' mkfs.ext4 -b 4096
start 'ext4' 300 '' mkfs.ext4 -b 4096
start 'ext4, lazytime' 30 ,lazytime mkfs.ext4 -b 4096
start 'ext4, commit=60' 1 ,commit=60 mkfs.ext4 -b 4096
start 'ext4, commit=60' 30 ,commit=60 mkfs.ext4 -b 4096
start 'ext4, commit=60' 300 ,commit=60 mkfs.ext4 -b 4096
start 'ext4 without a journal' 30 '' mkfs.ext4 -b 4096 -O '^has_journal'
start 'xfs' 30 '' mkfs.xfs
start 'f2fs' 30 '' mkfs.f2fs
start 'btrfs' 30 '' mkfs.btrfs
start 'vfat' 30 '' mkfs.vfat
wait
