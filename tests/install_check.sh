#!/usr/bin/env bash
# install_check.sh TORCH_INDEX: installs synque-select with torch and torchvision from that package index
# in a new environment, ranks texts and images there, and fails above 2 GiB.
set -euo pipefail
index=${1:?give the address of a package index of CPU builds of torch and torchvision}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

megabytes() { du --summarize --block-size=MiB "$work/venv" | cut -f 1; }

python3 -m venv "$work/venv"
pip="$work/venv/bin/python -m pip install --quiet"
$pip torch torchvision --index-url "$index"
$pip "$root"
echo "synque-select: $(megabytes)"
cp "$root/tests/wheel_smoke.py" "$work/smoke.py"
cd "$work"
venv/bin/python smoke.py "$root"
$pip "$root[image,offline,report,tune]"
venv/bin/synque-select doctor --cache-dir "$work/cache"
size=$(megabytes)
echo "with the extras of make demo: $size"
[ "${size%MiB}" -lt 2048 ] || { echo "over 2 GiB"; exit 1; }
