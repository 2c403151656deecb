#!/usr/bin/env bash
# Builds the wheel, installs it in an environment of its own and tries it from outside the checkout.
# The environment sees the packages of the one that calls it, but not the checkout.
set -euo pipefail
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$python" -m build --wheel --outdir "$work/dist" "$root" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$python" -m venv "$work/venv"
site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
# the libraries that the wheel depends on, without the editable install of the checkout
"$python" - "$site" <<'PY'
import pathlib, sys, sysconfig
source, target = pathlib.Path(sysconfig.get_paths()["purelib"]), pathlib.Path(sys.argv[1])
for path in source.iterdir():
    if "synque" not in path.name.lower() and path.suffix != ".pth" and not (target / path.name).exists():
        (target / path.name).symlink_to(path)
PY
"$work/venv/bin/python" -m pip install --quiet --no-deps --no-index "$work"/dist/*.whl
cp "$root/tests/wheel_smoke.py" "$work/smoke.py"
cd "$work"
"$work/venv/bin/python" smoke.py "$root"
"$work/venv/bin/synque-select" --help >/dev/null
echo "wheel-check: ok"
