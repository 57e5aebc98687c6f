#!/usr/bin/env bash
# Builds the libFuzzer targets and runs each for FUZZ_SECONDS (default 60) from its seeds. Findings are left in
# build/fuzz/findings/; any makes this fail. Names as arguments run only those: tools/fuzz.sh config json
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
jobs=${JOBS:-$(nproc)}
cmake --preset fuzz >/dev/null
if [ $# -gt 0 ]; then
    names=("$@")
else
    mapfile -t names < <(cd tests/fuzz && ls fuzz_*.c | sed 's/^fuzz_//; s/\.c$//')
fi
targets=()
for name in "${names[@]}"; do
    targets+=("fuzz_$name")
done
cmake --build --preset fuzz -j "$jobs" --target "${targets[@]}"
mkdir -p build/fuzz/findings
failed=()
for name in "${names[@]}"; do
    corpus=build/fuzz/corpus/$name
    log=build/fuzz/$name.log
    mkdir -p "$corpus"
    if build/fuzz/bin/"fuzz_$name" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/findings/$name-" "$corpus" "tests/fuzz/seeds/$name" >"$log" 2>&1; then
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        echo "fuzz $name: ok, ${runs:-?} runs in $seconds s"
    else
        failed+=("$name")
        echo "fuzz $name: FAILED, see $log"
        tail -n 40 "$log"
    fi
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz: failed: ${failed[*]}"
    exit 1
fi
