#!/usr/bin/env bash
# The benchmark table: kernels, one engine, KV handoffs, and a cluster of one prefill and one decode node under 32
# requests at a time. JSON files go to build/bench/.
#     tools/bench.sh BIN MODEL
set -euo pipefail
bin=$1 model=$2
out=build/bench
mkdir -p "$out"
log=$(mktemp)
up=

finish() {
    if [ -n "$up" ]; then
        kill -TERM "$up" 2>/dev/null || true
        wait "$up" 2>/dev/null || true
    fi
    rm -f "$log"
}
trap finish EXIT

echo "== kernels =="
"$bin/baton" bench kernels --quick --json "$out/kernels.json"
echo
echo "== one engine =="
"$bin/baton" bench model "$model" --quick --json "$out/model.json"
echo
echo "== KV handoffs between two processes =="
"$bin/baton" bench transfer --quick --json "$out/transfer.json"
echo
echo "== one prefill and one decode node, 32 requests at a time =="
"$bin/baton" up --model "$model" --listen 127.0.0.1:0 --grpc 127.0.0.1:0 --log-level warn >"$log" &
up=$!
for _ in $(seq 600); do
    grep -q '^ready ' "$log" && break
    kill -0 "$up" 2>/dev/null || { echo "bench: the cluster did not start" >&2; exit 1; }
    sleep 0.1
done
url=$(sed -n 's/^ready .*http=\([^ ]*\).*/\1/p' "$log")
[ -n "$url" ] || { echo "bench: the cluster did not become ready" >&2; exit 1; }
"$bin/baton" complete --url "$url" --prompt "Once upon a time" --max-tokens 16 >/dev/null
"$bin/baton" bench serve --url "$url" --concurrency 32 --requests 256 --input-tokens 128 --output-tokens 64 \
    --slo ttft=2000,itl=200 --json "$out/serve.json"
echo
echo "JSON: $out/kernels.json $out/model.json $out/transfer.json $out/serve.json"
