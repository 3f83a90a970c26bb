#!/usr/bin/env bash
# Makes this checkout ready to build and run: Debian packages, .venv with every Python dependency, a working CRIU,
# promtool.
# `make` runs it before everything else; when nothing is missing it changes nothing and takes a moment.
# `scripts/setup.sh packages` adds the Debian packages alone.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin # where tc and ethtool live, also for users whose PATH leaves them out

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1"; }
header() { echo "#include <$1>" | gcc -E -; }
at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) = "$1" ]]; } # version $1 <= version $2
version_of() { "$@" 2>/dev/null | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1; }
suricata_7() { at_least 7.0 "$(version_of suricata -V)"; }
python_ready() { "$1" -c 'import sys, sysconfig, os, venv, ensurepip
sys.exit(sys.version_info < (3, 11) or not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'; }
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3} /usr/bin/python3; do
        if python_ready "$candidate" 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# -- Debian packages -------------------------------------------------------------------------
# A package counts as there when what it is for is there; docs/decisions/0003-dependencies.md says what that is.
missing=()
need() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

find_missing() {
    missing=()
    need gcc have gcc
    need g++ have g++
    need libc6-dev header stdio.h
    need pkgconf have pkg-config
    need libpcap-dev header pcap/pcap.h
    need libxxhash-dev header xxhash.h
    need python3-dev find_python
    need python3-venv find_python
    need iproute2 have tc
    need ethtool have ethtool
    need procps have sysctl
    need tmux have tmux
    need suricata suricata_7
    need spin have spin
    need redis-server have redis-server
    if [[ $release = bookworm ]]; then need libdaq-dev header daq_api.h; fi
    if ((EUID == 0)) && [[ $release != bookworm ]]; then need criu have criu; fi
}

# The mirror that this system takes Debian itself from, so that added suites come from the same place.
debian_mirror() {
    apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v release="$release" '$1 == "Debian" && $2 == release && $3 == "main" { print $4; exit }'
}

debian_source() { # debian_source URI SUITE: a deb822 stanza
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$1" "$2" \
        /usr/share/keyrings/debian-archive-keyring.gpg
}

backports_wanted() { # Debian 12's own Suricata is version 6; an already configured suite is used as it is
    [[ $release = bookworm && " ${missing[*]} " = *" suricata "* ]] &&
        ! apt-cache madison suricata | grep -q bookworm-backports
}

apt_names() { # the missing packages; only Suricata and the parser that it needs come from backports
    local names=" ${missing[*]} "
    if [[ $release = bookworm ]]; then
        names=${names/ suricata / suricata/bookworm-backports libhtp2/bookworm-backports }
    fi
    echo "$names"
}

install_packages() {
    local backports=/etc/apt/sources.list.d/ftnids-backports.sources mirror service new=()
    say "adding the Debian packages: ${missing[*]}"
    apt-get update -q
    if backports_wanted; then
        say "adding the suite bookworm-backports for Suricata 7: $backports"
        mirror=$(debian_mirror)
        [[ -n $mirror ]] || fail "no Debian mirror among this system's apt sources; add the suite bookworm-backports by hand"
        debian_source "$mirror" bookworm-backports >"$backports"
        apt-get update -q
    fi
    for service in suricata redis-server; do
        have "$service" >/dev/null || new+=("$service")
    done
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(apt_names) </dev/null
    if [[ -d /run/systemd/system ]]; then
        # These packages start a service of their own, a sensor on the first interface; ftnids starts its own processes.
        for service in "${new[@]}"; do
            systemctl disable --now "$service.service" >/dev/null 2>&1 || true
        done
    fi
}

packages() {
    find_missing
    ((${#missing[@]})) || return 0
    have apt-get >/dev/null || fail "this system has no apt; install what these Debian packages hold: ${missing[*]}"
    ((EUID == 0)) || fail "Debian packages are missing: ${missing[*]}
setup: as root run 'scripts/setup.sh packages', which adds them and nothing else; then run this again"
    install_packages
    find_missing
    ((${#missing[@]} == 0)) || fail "still missing after the installation: ${missing[*]}"
}

# -- Python ----------------------------------------------------------------------------------
requirements() {
    "$1" - <<'PYTHON'
import tomllib

with open("pyproject.toml", "rb") as file:
    pyproject = tomllib.load(file)
project = pyproject["project"]
extras = project["optional-dependencies"]
every = pyproject["build-system"]["requires"] + project["dependencies"] + extras["dev"] + extras["docs"]
print("\n".join(sorted(every)))
PYTHON
}

virtual_environment() {
    local python wanted stamp=.venv/requirements.txt
    python=$(find_python) || fail "Python 3.11 or newer with venv and headers is needed; name one with PYTHON=..."
    if ! .venv/bin/python -c '' 2>/dev/null; then
        say "making .venv with $("$python" -V)"
        "$python" -m venv --clear .venv
    fi
    wanted=$(requirements "$python")
    if [[ ! -f $stamp || $wanted != "$(<"$stamp")" ]]; then
        say "installing the Python packages that pyproject.toml lists into .venv"
        .venv/bin/python -m pip install -q --disable-pip-version-check -r /dev/stdin <<<"$wanted"
        echo "$wanted" >"$stamp"
    fi
    local packages
    packages=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    pwd >"$packages/ftnids.pth"
    printf '#!/bin/sh\nexec "%s/.venv/bin/python" -P -m ftnids "$@"\n' "$PWD" >.venv/bin/ftnids
    chmod +x .venv/bin/ftnids
}

# -- CRIU --------------------------------------------------------------------------------------
# CRIU 4.1 is the first that knows the vDSO of Linux 6 kernels. Debian 12 has 3.17, so Debian 13's packages are unpacked
# into .cache/criu, with their own C library, and started through that library's loader: nothing of the host changes.
unpack_criu() {
    local root=$PWD/.cache/criu.new mirror package
    mirror=$(debian_mirror)
    [[ -n $mirror ]] || return 1
    rm -rf "$root"
    mkdir -p "$root"/apt/{lists/partial,archives/partial,sources}
    : >"$root/apt/status"
    debian_source "$mirror" trixie >"$root/apt/sources/trixie.sources"
    cat >"$root/apt/apt.conf" <<APT
Dir::State "$root/apt";
Dir::State::status "$root/apt/status";
Dir::Cache "$root/apt";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "$root/apt/sources";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "$root/apt/sources";
Acquire::Languages "none";
Acquire::http::Timeout "20";
APT::Install-Recommends "false";
APT::Sandbox::User "";
APT
    APT_CONFIG=$root/apt/apt.conf apt-get update -qq &&
        APT_CONFIG=$root/apt/apt.conf apt-get install -qq -y --download-only criu >/dev/null || return 1
    for package in "$root"/apt/archives/*.deb; do
        dpkg -x "$package" "$root" || return 1
    done
    rm -rf "$root/apt" .cache/criu
    mv "$root" .cache/criu # whole or not at all
}

wrap_criu() {
    local loader library
    loader=$(find "$PWD/.cache/criu/usr/lib" -name 'ld-linux-*.so.*' | head -n 1)
    library=$(dirname "$loader")
    printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' \
        "$loader" "$library" "$PWD/.cache/criu/usr/sbin/criu" >.venv/bin/criu
    chmod +x .venv/bin/criu
}

checkpointing() {
    local system
    .venv/bin/criu -V >/dev/null 2>&1 && return
    rm -f .venv/bin/criu
    if system=$(have criu) && at_least 4.1 "$(version_of "$system" -V)"; then
        ln -s "$system" .venv/bin/criu
    elif [[ $release = bookworm ]]; then
        say "unpacking Debian 13's CRIU into .cache/criu (Debian 12's fails on Linux 6 kernels)"
        if [[ -x .cache/criu/usr/sbin/criu ]] || unpack_criu; then
            wrap_criu
        fi
    fi
    if [[ ! -x .venv/bin/criu ]]; then
        say "warning: no CRIU 4.1 or newer here and none to be had; checkpoints with it are off, their tests skip"
    elif ((EUID == 0)) && ! .venv/bin/criu check >/dev/null 2>&1; then
        say "warning: 'criu check' fails on this kernel: $(.venv/bin/criu check 2>&1 | grep -m 1 Error || true)"
    fi
}

# -- promtool ----------------------------------------------------------------------------------
# The tests check alert rules and metrics with it. Of Debian's prometheus only this program is unpacked: the package
# itself would start a server.
rule_checker() {
    local folder=.cache/promtool
    { .venv/bin/promtool --version || have promtool; } >/dev/null 2>&1 && return
    have apt-get >/dev/null || return 0
    rm -rf "$folder"
    mkdir -p "$folder"
    if (cd "$folder" && apt-get download -q prometheus && dpkg -x prometheus_*.deb .) >/dev/null 2>&1 &&
        [[ -x $folder/usr/bin/promtool ]]; then
        cp "$folder/usr/bin/promtool" .venv/bin/promtool
    else
        say "warning: no promtool to be had; the test of the alert rules skips"
    fi
    rm -rf "$folder"
}

release=$(. /etc/os-release && echo "${VERSION_CODENAME:-unknown}")
packages
if [[ ${1:-all} = all ]]; then
    virtual_environment
    checkpointing
    rule_checker
fi
