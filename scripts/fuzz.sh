#!/usr/bin/env bash
# Gets what `make fuzz` needs and nothing else does: clang with libFuzzer, and atheris under .cache/fuzz/python.
# Then fuzzes; arguments go to `python -m fuzz`.
set -euo pipefail
cd "$(dirname "$0")/.."

fuzzer_works() {
    local program
    program=$(mktemp)
    echo 'int LLVMFuzzerTestOneInput(const unsigned char *d, unsigned long n) { (void)d; return n > 9000; }' |
        clang -x c -fsanitize=fuzzer,address,undefined - -o "$program" >/dev/null 2>&1
    local status=$?
    rm -f "$program"
    return $status
}

install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@" </dev/null >/dev/null
}

if ! fuzzer_works; then
    if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
        echo "fuzz: clang with libFuzzer is missing (Debian: clang, libclang-rt-dev of its version); add it as root" >&2
        exit 1
    fi
    echo "fuzz: adding clang and its sanitizer libraries (about 110 MB)"
    apt-get update -q >/dev/null
    install clang
    version=$(clang -dumpversion)
    install "libclang-rt-${version%%.*}-dev"
    fuzzer_works || { echo "fuzz: clang is there, but -fsanitize=fuzzer does not work" >&2; exit 1; }
fi

if [[ ! -d .cache/fuzz/python/atheris ]]; then
    echo "fuzz: adding atheris under .cache/fuzz/python"
    mkdir -p .cache/fuzz/python
    .venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --target .cache/fuzz/python atheris ||
        echo "fuzz: no atheris for this Python; the Python targets are fuzzed without coverage" >&2
fi

exec .venv/bin/python -m fuzz "$@"
