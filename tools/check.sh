#!/usr/bin/env bash
# Everything that is checked without running the product: format, tidy rules, scripts, and a build of all of it with
# warnings as errors: the release build, which `make test` finds ready. Every stage runs; the failed ones are named.
set -uo pipefail
cd "$(dirname "$0")/.."
jobs=${JOBS:-$(nproc)}
failed=()

stage() {
    local name=$1 begin=$SECONDS
    shift
    if "$@"; then
        echo "check: $name ok ($((SECONDS - begin)) s)"
    else
        failed+=("$name")
        echo "check: $name FAILED"
    fi
}

tracked() {
    git ls-files -z -- "$@" | while IFS= read -r -d '' file; do
        [ -f "$file" ] && printf '%s\0' "$file"
    done
}

check_format() {
    tracked '*.c' '*.h' '*.cu' '*.cuh' | xargs -0 -r -n 40 -P "$jobs" clang-format --dry-run -Werror
}

check_tidy() {
    python3 -B tests/tidy/test_tidy.py >build/tidy_self.log 2>&1 || { cat build/tidy_self.log; return 1; }
    python3 -B tests/tidy/tidy.py .
}

check_python() {
    tracked '*.py' | PYTHONPYCACHEPREFIX=build/pycache xargs -0 -r python3 -m py_compile
}

check_shell() {
    local ok=0 file
    while IFS= read -r -d '' file; do
        bash -n "$file" || ok=1
    done < <(tracked '*.sh' .ci/run)
    return $ok
}

check_build() {
    cmake --preset release -DBATON_WERROR=ON >build/check_build.log 2>&1 &&
        cmake --build --preset release -j "$jobs" -- -k 0 >>build/check_build.log 2>&1 && return
    grep -E -A 6 'error|FAILED' build/check_build.log | head -n 120
    return 1
}

mkdir -p build
stage format check_format
stage tidy check_tidy
stage python check_python
stage shell check_shell
stage build check_build
if [ ${#failed[@]} -gt 0 ]; then
    echo "check: failed: ${failed[*]}"
    exit 1
fi
