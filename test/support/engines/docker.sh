#!/usr/bin/env bash
# A private Docker engine for tests and measurements: data, socket, bridge and control group of its own, so that it never
# touches an engine that the machine already has. Needs root; knows Debian's packages.
#
#   docker.sh install   installs the engine from Debian's packages where it is missing
#   docker.sh start     starts it unless it runs, waits until it answers, prints NAME=value lines
#   docker.sh stop      ends its containers and the engine; images and volumes stay for the next start
#   docker.sh kill      SIGKILLs the engine and leaves it down, as a crash would; start brings it back
#   docker.sh clean     stop, then deletes its data
#   docker.sh status    prints the lines and exits 0 while it answers, else exits 1
#   docker.sh env       prints the lines without asking the engine
#
#   eval "$(test/support/engines/docker.sh start | sed 's/^/export /')"
#
# RIGEL_ENGINES          where engines live   (default: ${XDG_CACHE_HOME:-~/.cache}/rigel-engines)
# RIGEL_DOCKER_NAME      which engine         (default: docker); a second one, to be killed by tests, has another name
# RIGEL_DOCKER_SUBNET    the bridge's /24     (default: 172.30.77)
# RIGEL_DOCKER_FLAGS     more flags for dockerd, for example --live-restore (containers outlive the engine)
set -euo pipefail

ENGINES=${RIGEL_ENGINES:-${XDG_CACHE_HOME:-$HOME/.cache}/rigel-engines}
NAME=${RIGEL_DOCKER_NAME:-docker}
DIR=$ENGINES/$NAME
SOCK=$DIR/docker.sock
PIDFILE=$DIR/dockerd.pid
LOG=$DIR/dockerd.log
BRIDGE=rigel-${NAME}0
CGROUP=rigel-$NAME
SUBNET=${RIGEL_DOCKER_SUBNET:-172.30.77}
READY_SECONDS=60
STOP_SECONDS=30

say() { printf '%s\n' "$*" >&2; }
die() { say "docker.sh: $*"; exit 1; }

# The engine's own client where it is, because it fits the engine; a newer one works too.
client() { if [ -x /usr/bin/docker ]; then /usr/bin/docker -H "unix://$SOCK" "$@"; else docker -H "unix://$SOCK" "$@"; fi; }

print_env() {
  echo "DOCKER_HOST=unix://$SOCK"
  echo "RIGEL_TEST_DOCKER_HOST=unix://$SOCK"
  echo "RIGEL_DOCKER_GATEWAY=$SUBNET.1"
}

install_packages() {
  local missing=()
  command -v dockerd >/dev/null || missing+=(docker.io)
  command -v iptables >/dev/null || missing+=(iptables)
  command -v ip >/dev/null || missing+=(iproute2)
  command -v curl >/dev/null || missing+=(curl)
  [ ${#missing[@]} -eq 0 ] && return 0
  command -v apt-get >/dev/null || die "needs ${missing[*]} and knows only apt-get to install them"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >&2
  # Without this answer, the package would start an engine of its own where a service manager runs.
  local answer=/usr/sbin/policy-rc.d made=0
  if [ ! -e $answer ]; then printf '#!/bin/sh\nexit 101\n' >$answer; chmod +x $answer; made=1; fi
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
  [ $made = 0 ] || rm -f $answer
}

# The pid of our engine, if it runs. The command line is compared so that a reused pid is not taken for it.
our_pid() {
  local pid
  pid=$(cat "$PIDFILE" 2>/dev/null) || return 1
  [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "--data-root $DIR/data " || return 1
  echo "$pid"
}

# The engine's own containerd. It dies with the engine, but while nobody has collected it its pid looks
# alive, and the next engine would wait for it in vain; a process that has ended has no command line.
containerd_pid() {
  local pid file=$DIR/exec/containerd/containerd.pid
  pid=$(cat "$file" 2>/dev/null) || return 1
  if [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$DIR/exec/containerd"; then echo "$pid"; return; fi
  rm -f "$file"
  return 1
}

answers() { curl -sf --max-time 2 --unix-socket "$SOCK" http://docker/_ping >/dev/null 2>&1; }

make_bridge() {
  if ! ip link show "$BRIDGE" >/dev/null 2>&1; then
    ip link add "$BRIDGE" type bridge
    ip addr add "$SUBNET.1/24" dev "$BRIDGE"
  fi
  ip link set "$BRIDGE" up
}

# Where nothing has delegated the control groups, the engine needs to find them mounted.
check_cgroups() {
  [ -e /sys/fs/cgroup/cgroup.controllers ] || [ -d /sys/fs/cgroup/memory ] || die "no control groups under /sys/fs/cgroup"
}

start() {
  [ "$(id -u)" = 0 ] || die "must run as root"
  install_packages
  mkdir -p "$DIR"
  # A unix socket's path holds 107 bytes; the engine's own containerd needs the longest one.
  local longest="$DIR/exec/containerd/containerd-debug.sock"
  [ ${#longest} -le 107 ] || die "path too long for a socket, set RIGEL_ENGINES to a shorter one: $longest"
  exec 9>"$DIR/lock"
  flock -w 120 9 || die "another start or stop holds $DIR/lock"
  if our_pid >/dev/null && answers; then print_env; return; fi
  check_cgroups
  make_bridge
  rm -f "$PIDFILE" "$SOCK"
  containerd_pid >/dev/null || true
  # 9>&- : the engine must not inherit the lock.
  setsid dockerd --data-root "$DIR/data" --exec-root "$DIR/exec" -H "unix://$SOCK" --pidfile "$PIDFILE" \
    --bridge "$BRIDGE" --fixed-cidr "$SUBNET.0/24" \
    --cgroup-parent "/$CGROUP" --storage-driver overlay2 --group root --shutdown-timeout 5 \
    --default-address-pool "base=$(echo "$SUBNET" | cut -d. -f1,2).128.0/17,size=24" \
    --insecure-registry 127.0.0.0/8 --log-level warn ${RIGEL_DOCKER_FLAGS:-} \
    </dev/null >"$LOG" 2>&1 9>&- &
  local spawned=$! i
  for ((i = 0; i < READY_SECONDS * 10; i++)); do
    if answers; then print_env; return; fi
    kill -0 "$spawned" 2>/dev/null || { tail -n 20 "$LOG" >&2; die "the engine ended while starting; see $LOG"; }
    sleep 0.1
  done
  tail -n 20 "$LOG" >&2
  die "the engine did not answer within $READY_SECONDS s; see $LOG"
}

# What a killed engine leaves: one shim for each container, known by the path of our containerd's socket,
# and the containers' processes, known by our control group.
shims() {
  local f
  for f in $(grep -lzxF -- "$DIR/exec/containerd/containerd.sock" /proc/[0-9]*/cmdline 2>/dev/null); do
    f=${f%/cmdline}
    case $(readlink "$f/exe" 2>/dev/null) in */containerd-shim*) echo "${f#/proc/}" ;; esac
  done
}
cgroup_dirs() {
  local root
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo "/sys/fs/cgroup/$CGROUP"; return; fi
  for root in $(awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/self/mounts); do echo "$root/$CGROUP"; done
}
container_processes() {
  local dir
  for dir in $(cgroup_dirs); do case $dir in */pids/* | "/sys/fs/cgroup/$CGROUP") find "$dir" -name cgroup.procs -exec cat {} + 2>/dev/null || true ;; esac; done
}

stop() {
  [ -d "$DIR" ] || return 0
  exec 9>"$DIR/lock"
  flock -w 120 9 || die "another start or stop holds $DIR/lock"
  local pid i containers dir
  if pid=$(our_pid); then
    if answers; then
      containers=$(client ps -aq 2>/dev/null || true)
      # shellcheck disable=SC2086
      [ -z "$containers" ] || client rm -f $containers >/dev/null 2>&1 || true
    fi
    kill -TERM "$pid" 2>/dev/null || true
    for ((i = 0; i < STOP_SECONDS * 10; i++)); do our_pid >/dev/null || break; sleep 0.1; done
    if our_pid >/dev/null; then
      say "the engine did not end within $STOP_SECONDS s, killing it"
      kill -KILL "$pid" 2>/dev/null || true
    fi
  fi
  pid=$(containerd_pid) && kill -TERM "$pid" 2>/dev/null || true
  for pid in $(shims) $(container_processes | sort -u); do kill -KILL "$pid" 2>/dev/null || true; done
  sleep 0.1
  awk -v d="$DIR/" 'index($2, d) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r m; do umount -l "$m" || true; done
  for dir in $(cgroup_dirs); do [ ! -d "$dir" ] || find "$dir" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
  # Containers that nobody could remove would come back with the next start.
  rm -rf "$DIR/data/containers" "$DIR/exec" "$PIDFILE" "$SOCK"
  ip link del "$BRIDGE" 2>/dev/null || true
}

case ${1:-} in
  install) install_packages ;;
  start) start ;;
  stop) stop ;;
  kill)
    if p=$(our_pid); then
      kill -KILL "$p"
      for ((i = 0; i < 100; i++)); do our_pid >/dev/null || break; sleep 0.05; done
    fi
    ;;
  clean) stop; rm -rf "$DIR" ;;
  status) if our_pid >/dev/null && answers; then print_env; else say "not running"; exit 1; fi ;;
  env) print_env ;;
  *) say "usage: docker.sh install|start|stop|kill|clean|status|env"; exit 2 ;;
esac
