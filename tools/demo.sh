#!/usr/bin/env bash
# Starts a cluster on free ports, streams one completion to the terminal with its TTFT and ITL, stops, exits 0.
#     tools/demo.sh BIN MODEL
set -euo pipefail
bin=$1 model=$2
log=$(mktemp)
up=

stop() {
    [ -n "$up" ] || return 0
    kill -TERM "$up" 2>/dev/null || true
    wait "$up" 2>/dev/null || status=$?
    up=
}

finish() {
    status=0
    stop
    rm -f "$log"
}
trap finish EXIT

"$bin/baton" up --model "$model" --listen 127.0.0.1:0 --grpc 127.0.0.1:0 --log-level warn >"$log" &
up=$!
for _ in $(seq 600); do
    grep -q '^ready ' "$log" && break
    kill -0 "$up" 2>/dev/null || { echo "demo: the cluster did not start" >&2; exit 1; }
    sleep 0.1
done
grep -E '^(node|ready) ' "$log" || { echo "demo: the cluster did not become ready" >&2; exit 1; }
url=$(sed -n 's/^ready .*http=\([^ ]*\).*/\1/p' "$log")
prompt="Once upon a time"
printf '\n%s' "$prompt"
"$bin/baton" complete --url "$url" --prompt "$prompt" --max-tokens 80 --temperature 0.8 --seed 1 --timing
status=0
stop
[ "$status" = 0 ] || { echo "demo: the cluster ended with status $status" >&2; exit 1; }
