#!/usr/bin/env bash
# Builds the native modules and puts them beside their sources, each in one step, so that a failed or half-done build
# never leaves Python without a working module.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH

[[ -f build/build.ninja ]] || meson setup build >build.log 2>&1 || { cat build.log >&2; exit 1; }
rm -f build.log
ninja -C build ${VERBOSE:+-v} >build/build.log 2>&1 || { cat build/build.log >&2; exit 1; }
for module in build/ftnids/core/*.so; do
    target=ftnids/core/$(basename "$module")
    if ! cmp -s "$module" "$target"; then
        cp "$module" "$target.new"
        mv "$target.new" "$target"
    fi
done
