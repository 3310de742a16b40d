#!/usr/bin/env bash
# A private Podman for tests: its API over a socket of its own, storage, configuration and containers apart from whatever
# else the machine has. Needs root; knows Debian's package.
#
#   podman.sh start   installs it where it is missing, starts it unless it runs, waits until it answers, prints NAME=value
#   podman.sh load ARCHIVE   gives it an image, as `images.sh archive` makes them
#   podman.sh stop    ends its containers and the service, and deletes its data
#   podman.sh status  prints the lines and exits 0 while it answers, else exits 1
#
# RIGEL_ENGINES   where engines live (default: ${XDG_CACHE_HOME:-~/.cache}/rigel-engines)
set -euo pipefail

DIR=${RIGEL_ENGINES:-${XDG_CACHE_HOME:-$HOME/.cache}/rigel-engines}/podman
SOCK=$DIR/podman.sock
PIDFILE=$DIR/podman.pid
LOG=$DIR/podman.log
export CONTAINERS_CONF=$DIR/containers.conf

say() { printf '%s\n' "$*" >&2; }
die() { say "podman.sh: $*"; exit 1; }

# vfs needs nothing of the kernel.
client() { podman --root "$DIR/root" --runroot "$DIR/run" --tmpdir "$DIR/tmp" --storage-driver vfs --cgroup-manager cgroupfs "$@"; }
answers() { curl -sf --max-time 5 --unix-socket "$SOCK" http://podman/_ping >/dev/null 2>&1; }
print_env() { echo "RIGEL_TEST_PODMAN_HOST=unix://$SOCK"; }

our_pid() {
  local pid
  pid=$(cat "$PIDFILE" 2>/dev/null) || return 1
  [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] || return 1
  tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "--root $DIR/root " || return 1
  echo "$pid"
}

install_packages() {
  command -v podman >/dev/null && command -v curl >/dev/null && return 0
  command -v apt-get >/dev/null || die "needs podman and knows only apt-get to install it"
  say 'installing podman'
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >&2
  apt-get install -y -qq --no-install-recommends podman curl >&2
}

# Podman's own limits are above what a machine that is itself confined may give; these are enough for tests.
write_configuration() {
  cat >"$CONTAINERS_CONF" <<EOF
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
[containers]
log_driver = "k8s-file"
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
EOF
}

start() {
  [ "$(id -u)" = 0 ] || die "must run as root"
  install_packages
  mkdir -p "$DIR/run"
  exec 9>"$DIR/lock"
  flock -w 120 9 || die "another start or stop holds $DIR/lock"
  if our_pid >/dev/null && answers; then print_env; return; fi
  write_configuration
  rm -f "$PIDFILE" "$SOCK"
  # 9>&- : the service must not inherit the lock.
  setsid podman --root "$DIR/root" --runroot "$DIR/run" --tmpdir "$DIR/tmp" --storage-driver vfs --cgroup-manager cgroupfs \
    system service --time=0 "unix://$SOCK" </dev/null >"$LOG" 2>&1 9>&- &
  local spawned=$! i
  echo "$spawned" >"$PIDFILE"
  for ((i = 0; i < 600; i++)); do
    if answers; then print_env; return; fi
    kill -0 "$spawned" 2>/dev/null || { tail -n 20 "$LOG" >&2; die "the service ended while starting; see $LOG"; }
    sleep 0.1
  done
  die "the service did not answer within 60 s; see $LOG"
}

stop() {
  [ -d "$DIR" ] || return 0
  local pid
  client rm --all --force --time 0 >/dev/null 2>&1 || true
  if pid=$(our_pid); then
    kill -TERM "$pid" 2>/dev/null || true
    for ((i = 0; i < 100; i++)); do our_pid >/dev/null || break; sleep 0.1; done
    ! our_pid >/dev/null || kill -KILL "$pid" 2>/dev/null || true
  fi
  awk -v d="$DIR/" 'index($2, d) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r m; do umount -l "$m" || true; done
  rm -rf "$DIR"
}

case ${1:-} in
  start) start ;;
  load) client load -q -i "${2:?usage: podman.sh load ARCHIVE}" >&2 ;;
  stop) stop ;;
  status) if our_pid >/dev/null && answers; then print_env; else say "not running"; exit 1; fi ;;
  *) say "usage: podman.sh start|load|stop|status"; exit 2 ;;
esac
