#!/usr/bin/env bash
# What `make demo` shows: a set of two replicas, each losing packets, and the alerts that leave the set.
# Ends with an error unless the replicas agree and the alerts are those of one lossless IDS.
set -euo pipefail
cd "$(dirname "$0")/.."
out=demo-out

rm -rf "$out"
status=0
.venv/bin/ftnids lab -n 2 --loss 0.05 --seed 1 --reference -o "$out" || status=$?

if [[ -s $out/alerts.jsonl ]]; then
    echo
    echo "The first of $(wc -l <"$out/alerts.jsonl") alerts ($out/alerts.jsonl):"
    head -n 5 "$out/alerts.jsonl" | .venv/bin/python -c '
import json, sys
for record in map(json.loads, sys.stdin):
    alert, ours = record["alert"], record["ftnids"]
    flow = "{src_ip}:{src_port} -> {dest_ip}:{dest_port}".format_map({"src_port": "-", "dest_port": "-"} | record)
    print("  seq {:<6} {:<42} {}  (seen by {})".format(ours["seq"], flow, alert["signature"], ", ".join(ours["replicas"])))
'
fi
exit "$status"
