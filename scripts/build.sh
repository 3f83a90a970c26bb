#!/usr/bin/env bash
# Builds the native modules and puts them beside their sources, each in one step, so that a failed or half-done build
# never leaves Python without a working module.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH

# A Snort 3 in a prefix of its own has its libdaq there: FTNIDS_SNORT names it, else PATH.
snort=$(command -v "${FTNIDS_SNORT:-snort}" || true)
folder=$([[ -z $snort ]] || echo "$(dirname "$(dirname "$(realpath "$snort")")")/lib/pkgconfig")
[[ -f $folder/libdaq.pc ]] || folder=
inputs=$folder$(ls /usr/include/daq_api.h 2>/dev/null || true) # what a build that is there was made without
if [[ ! -f build/build.ninja || $inputs != "$(cat build/.daq 2>/dev/null)" ]]; then
    again=$([[ ! -f build/build.ninja ]] || echo --reconfigure)
    meson setup build $again -Dpkg_config_path="$folder" >build.log 2>&1 || { cat build.log >&2; exit 1; }
    echo "$inputs" >build/.daq
fi
rm -f build.log
ninja -C build ${VERBOSE:+-v} >build/build.log 2>&1 || { cat build/build.log >&2; exit 1; }
place() { # place MODULE TARGET
    if ! cmp -s "$1" "$2"; then
        mkdir -p "$(dirname "$2")"
        cp "$1" "$2.new"
        mv "$2.new" "$2"
    fi
}
for module in build/ftnids/core/*.so; do
    place "$module" "ftnids/core/$(basename "$module")"
done
for api in 2 3; do # libdaq loads whatever is called daq_*.so in a folder
    if [[ -f build/snort_adapter/daq/daq_ftnids_$api.so ]]; then
        place "build/snort_adapter/daq/daq_ftnids_$api.so" "snort_adapter/daq/$api/daq_ftnids.so"
    fi
done
