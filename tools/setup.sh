#!/usr/bin/env bash
# Installs the Debian packages that building and testing need, when any is missing. With neither root nor sudo it
# prints the exact line to type and stops.
set -euo pipefail
packages=(build-essential cmake ninja-build pkg-config git ca-certificates
          libgrpc-dev protobuf-c-compiler libprotobuf-c-dev protobuf-compiler
          libucx-dev libyaml-dev libjansson-dev libpcre2-dev libutf8proc-dev libmicrohttpd-dev libcurl4-openssl-dev
          libcriterion-dev python3 python3-venv iproute2
          clang clang-format clang-tidy libclang-rt-14-dev)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
install=(apt-get install -y --no-install-recommends "${missing[@]}")
if [ "$(id -u)" = 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo)
else
    echo "missing packages; as root, run:" >&2
    echo "  apt-get update && ${install[*]}" >&2
    exit 1
fi
echo "installing: ${missing[*]}"
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" "${install[@]}"
