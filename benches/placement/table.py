#!/usr/bin/env python3
"""Plays docs/models with seeds that nothing was tuned on, and prints the table of docs/simulate.md.

    benches/placement/table.py target/release/larder [--seeds 11,12] [--trace FILE --epoch SECONDS]
"""
import argparse
import json
import pathlib
import subprocess

MODELS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "models"


def simulate(args, source, disk, uplink):
    command = args.larder.split() + source + [
        "--devices", "60", "--disk-bytes", disk, "--uplink-bytes-per-second", str(uplink),
        "--policy", "ours,pull,top,oracle", "--json",
    ]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return {outcome["policy"]: outcome for outcome in json.loads(run.stdout)}


def row(name, disk, uplink, o):
    ours, pull, top, oracle = (o[p] for p in ("ours", "pull", "top", "oracle"))
    ratio = "offload_ratio"
    cells = [
        name, disk, f"{uplink / 1e6:g} MB/s",
        *(f"{p[ratio]:.3f}" for p in (ours, pull, top, oracle)),
        f"{ours[ratio] / pull[ratio]:.2f}",
        f"{ours['fill_bytes'] / max(1, pull['fill_bytes']):.2f}",
        f"{ours[ratio] / oracle[ratio]:.2f}",
        f"{ours['net_offload_ratio']:.3f}", f"{pull['net_offload_ratio']:.3f}",
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("larder", help="the program, and `simulate` if it needs that")
    parser.add_argument("--seeds", default="11,12")
    parser.add_argument("--uplinks", default="20000000,2500000", help="bytes a second, of each device")
    parser.add_argument("--trace")
    parser.add_argument("--epoch", default="60")
    args = parser.parse_args()
    print("| demand | disk | uplink | ours | pull | top | oracle | ours ÷ pull | fills ÷ pull's "
          "| ours ÷ oracle | net, ours | net, pull |")
    print("| --- |" + " ---: |" * 11)
    if args.trace:
        for disk in ("3%", "10%"):
            source = ["--trace", args.trace, "--epoch", args.epoch]
            name = f"{pathlib.Path(args.trace).stem}, epoch {args.epoch}"
            row(name, disk, 20_000_000, simulate(args, source, disk, 20_000_000))
        return
    for model in sorted(MODELS.glob("*.toml")):
        for seed in args.seeds.split(","):
            for disk in ("3%", "10%"):
                for uplink in map(int, args.uplinks.split(",")):
                    source = ["--demand", str(model), "--seed", seed]
                    outcomes = simulate(args, source, disk, uplink)
                    row(f"{model.stem}, seed {seed}", disk, uplink, outcomes)


if __name__ == "__main__":
    main()
