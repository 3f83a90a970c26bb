#!/usr/bin/env bash
# What a newcomer does, for real: install the wheel in a clean environment, `ftnids init`, two replicas with Suricata on a
# hub, an attack over HTTP, the alert once; then one replica is killed and comes back.
#
#     tests/newcomer.sh [WHEEL]     as root; with no WHEEL one is built from this checkout.  PYTHON=... makes the environment
#
# It runs in PID and mount namespaces of its own, with its own /dev/shm and /run/netns, and makes network namespaces for
# everything that sends: whatever happens, also kill -9, nothing of it is left.  Exit status 0: all was as it should be.
# KEEP=DIR works in that directory and leaves it, to look at.
set -Eeuo pipefail
PATH=$PATH:/usr/sbin:/sbin
if [[ ${1-} != --inside ]]; then
    root=$(cd "$(dirname "$0")/.." && pwd)
    work=${KEEP:-$(mktemp -d)}
    mkdir -p "$work"
    trap '[[ -n ${KEEP-} ]] || rm -rf "$work"' EXIT
    [[ $EUID = 0 ]] || { echo "newcomer: needs root, for network namespaces" >&2; exit 2; }
    for program in ip tc ethtool suricata unshare; do
        command -v "$program" >/dev/null || { echo "newcomer: needs $program (scripts/setup.sh packages)" >&2; exit 2; }
    done
    # SIGKILL to `unshare` is one to the first process of the namespace, and so to all in it.
    timeout -s KILL "${NEWCOMER_SECONDS:-360}" unshare --mount --pid --fork --kill-child --mount-proc \
        "$0" --inside "$root" "$work" "${1-}"
    exit
fi

readonly ROOT=$2 WORK=$3 ATTACK='/files/../../etc/passwd' SID=8400001
WHEEL=$4
readonly LINK_A=10.83.0.1 LINK_B=10.83.0.2 SERVER=10.84.0.2
unset PYTHONPATH # the checkout is not to be seen
export FTNIDS_RING__ARENA_MB=32 FTNIDS_RING__RECOVERED_MB=16 # a small machine's share of /dev/shm
export FTNIDS_SYNC__FAILURE_MS=1000 # on a machine that is busy with tests a replica without a turn for 300 ms is not dead

say() { printf 'newcomer: %s\n' "$*"; }
fail() {
    say "FAILED: $*"
    for log in "$WORK"/*.log; do
        if [[ -s $log ]]; then
            echo "--- ${log##*/}"
            tail -n 30 "$log"
        fi
    done
    exit 1
} >&2
trap 'fail "line $LINENO: $BASH_COMMAND"' ERR

wait_for() { # wait_for SECONDS WHAT COMMAND...: look five times a second until COMMAND succeeds
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || fail "still not so: $what"
        sleep 0.2
    done
    say "$what"
}

# -- the wheel, in a clean environment -----------------------------------------------------------
install() {
    local python=${PYTHON:-$ROOT/.venv/bin/python} dependencies
    if [[ -z $WHEEL ]]; then
        PATH=$(dirname "$python"):$PATH "$python" -m pip wheel -q --no-build-isolation --no-deps -w "$WORK" "$ROOT"
        WHEEL=$(echo "$WORK"/ftnids-*.whl)
    fi
    "$python" -m venv --clear "$WORK/venv"
    if ! "$WORK/venv/bin/python" -m pip install -q --retries 1 --timeout 20 "$WHEEL" 2>"$WORK/pip.log"; then
        say "pip cannot get the dependencies here; taking those of $python"
        dependencies=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        "$WORK/venv/bin/python" -m pip install -q --no-index --no-deps "$WHEEL"
        echo "$dependencies" >"$("$WORK/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/there.pth"
    fi
    PATH=$WORK/venv/bin:$PATH
    cd "$WORK" # not in the checkout: what is imported is what was installed
    "$WORK/venv/bin/python" -c 'import ftnids, sys; sys.exit(not ftnids.__file__.startswith(sys.prefix))'
    say "installed $(ftnids --version) from ${WHEEL##*/}"
}

# -- a hub: what comes in from the client or the server goes out to the other one and to both sensors -----
inside() { # inside NAMESPACE COMMAND...
    ip netns exec "$@"
}
port() { # port NAMESPACE INTERFACE: a cable from there to the hub, where its end is called to-NAMESPACE
    inside hub ip link add "to-$1" type veth peer "$2" netns "$1"
    inside hub ip link set "to-$1" up arp off
    inside "$1" ip link set "$2" up
    inside hub ethtool -K "to-$1" rx off tx off sg off tso off gso off gro off >/dev/null
    inside "$1" ethtool -K "$2" rx off tx off sg off tso off gso off gro off rxvlan off txvlan off >/dev/null
}
repeat() { # repeat FROM TO...: what comes in from that namespace goes out to the others
    local from=to-$1 to copies=()
    shift
    for to in "$@"; do copies+=(action mirred egress mirror dev "to-$to"); done
    inside hub tc qdisc add dev "$from" ingress
    inside hub tc filter add dev "$from" parent ffff: protocol all u32 match u32 0 0 "${copies[@]}"
}
make_network() {
    local name
    mount --make-rprivate /
    mkdir -p /run/netns
    mount -t tmpfs newcomer /run/netns
    mount -t tmpfs newcomer /dev/shm
    for name in hub client server a b; do
        ip netns add "$name"
        for switch in /proc/sys/net/ipv6/conf/{all,default}/disable_ipv6; do
            inside "$name" sh -c "[ ! -e $switch ] || echo 1 >$switch"
        done
        inside "$name" ip link set lo up
    done
    port client eth0
    port server eth0
    for name in a b; do
        port "$name" eth1 # no address: a sensor's eye
        inside "$name" ip link set eth1 arp off
    done
    inside client ip address add 10.84.0.1/24 dev eth0
    inside server ip address add "$SERVER/24" dev eth0
    repeat client server a b
    repeat server client a b
    inside hub ip link add sync type bridge
    inside hub ip link set sync up
    for name in a b; do # the network between the replicas
        inside hub ip link add "sync-$name" type veth peer eth2 netns "$name"
        inside hub ip link set "sync-$name" master sync up
        inside "$name" ip link set eth2 up
    done
    inside a ip address add "$LINK_A/24" dev eth2
    inside b ip address add "$LINK_B/24" dev eth2
    say "a hub with a client, a server and two sensors"
}

# -- traffic ---------------------------------------------------------------------------------------
serve() {
    mkdir -p "$WORK/www"
    echo '<h1>nothing to see</h1>' >"$WORK/www/index.html"
    inside server python -m http.server --bind "$SERVER" --directory "$WORK/www" 80 >"$WORK/server.log" 2>&1 &
    wait_for 20 "the web server answers" ask /
}
ask() { # ask PATH: a page, by HTTP, as it is written
    inside client python - "$SERVER" "$1" <<'PYTHON'
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], timeout=5)
connection.request("GET", sys.argv[2])
connection.getresponse().read()
PYTHON
}

# -- what the operator sees -----------------------------------------------------------------------
files=(-c "set/replica-a.toml" -c "set/replica-b.toml")
attacks() { # how often the attack stands in `ftnids alerts`
    { ftnids alerts "${files[@]}" 2>/dev/null || true; } | grep -c ":$SID:" || true
}
attacks_are() { [[ $(attacks) = "$1" ]]; }
status_is() { # status_is LEVEL WORDS: exit status 0 healthy, 1 degraded, 2 down, and what it says; asked of replica a
    local level=0
    ftnids status -c set/replica-a.toml >"$WORK/status.txt" 2>&1 || level=$?
    [[ $level = "$1" ]] && grep -q "$2" "$WORK/status.txt"
}
start() { # start NAME: a replica, in the background; its process id in pids[NAME]
    ip netns exec "$1" ftnids run -c "set/replica-$1.toml" >>"$WORK/replica-$1.log" 2>&1 &
    pids[$1]=$!
}
stop() { # stop NAME: in order, and it ends well
    kill -TERM "${pids[$1]}"
    wait "${pids[$1]}" || fail "replica $1 ended with status $?"
}

declare -A pids=()
install
make_network
inside a ftnids init set -i eth1 --cluster newcomer --ids suricata \
    --address "tcp://$LINK_A:5701" --address "tcp://$LINK_B:5701"
inside a ftnids run -c set/replica-a.toml -T
inside b ftnids run -c set/replica-b.toml -T
start a
start b
wait_for 60 "both replicas run: status 0" status_is 0 "2 members in one view"
serve
ask "$ATTACK"
wait_for 30 "the attack is in ftnids alerts" attacks_are 1
ftnids alerts "${files[@]}"

kill -KILL "${pids[b]}"
wait "${pids[b]}" 2>/dev/null || true
wait_for 30 "replica b is killed: status 1" status_is 1 "b: dead"
cat "$WORK/status.txt"
ask "$ATTACK"
wait_for 30 "the set goes on: a second attack, a second alert" attacks_are 2

start b
wait_for 60 "replica b is back: status 0" status_is 0 "2 members in one view"
cat "$WORK/status.txt"
ask "$ATTACK"
wait_for 30 "a third attack, a third alert" attacks_are 3

stop b
stop a
attacks_are 3 || fail "$(attacks) alerts of three attacks, at the end"
say "three attacks, three alerts: PASS"
