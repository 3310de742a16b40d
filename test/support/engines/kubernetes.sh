#!/usr/bin/env bash
# A real Kubernetes cluster of one node for the test-suite and CI, from source and packages alone:
# etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy and kubelet in one binary that
# is built from the Go module proxy and cached, with Debian's containerd, runc and CNI plugins beneath.
# Pods really run. The cluster lives in a network namespace and a mount namespace of its own.
#
#   kubernetes.sh install            installs what it needs from Debian's packages (root)
#   kubernetes.sh build              builds the binary unless it is cached
#   kubernetes.sh start              starts an EMPTY cluster unless one runs; prints KUBECONFIG=...
#   kubernetes.sh stop               ends every process of it; the binary and the loaded images stay cached
#   kubernetes.sh clean              stop, then deletes all but the binary
#   kubernetes.sh status             prints KUBECONFIG=... and exits 0 while it is ready, else exits 1
#   kubernetes.sh env                prints KUBECONFIG=... and the addresses
#   kubernetes.sh load ARCHIVE...    loads images (what `docker save` or images.sh writes) into the node
#   kubernetes.sh kill COMPONENT [SIGNAL]    ends one component and leaves it down (default KILL)
#   kubernetes.sh run COMPONENT      starts one component again, and waits until it answers
#   kubernetes.sh restart COMPONENT  both
#   kubernetes.sh expire             compacts etcd and empties the watch cache, so that old resource versions
#                                    and continue tokens are answered with 410 Gone (restarts kube-apiserver)
#   kubernetes.sh expose PORT...     lets the cluster reach servers on the host's loopback: pods at
#                                    RIGEL_K8S_HOST_IP:PORT, the node itself (image pulls) at 127.0.0.1:PORT
#   kubernetes.sh logs COMPONENT     prints the path of its log
#   components: etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy containerd kubelet forward
#
# RIGEL_ENGINES       where engines live (default: ${XDG_CACHE_HOME:-~/.cache}/rigel-engines)
# RIGEL_K8S_PORT      the API server's port on the host's loopback (default: 16443)
# RIGEL_K8S_NAME      a short name, for a cluster beside the usual one; it needs a port and a network of its own
# RIGEL_K8S_NET       first two bytes of the private networks (default: 172.30; uses .78, .79 and .80)
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ENGINES=${RIGEL_ENGINES:-${XDG_CACHE_HOME:-$HOME/.cache}/rigel-engines}
NAME=${RIGEL_K8S_NAME:-}
DIR=$ENGINES/kubernetes${NAME:+-$NAME}
SRC=$HERE/kubernetes
VERSION=$(sed -n 's,^\s*\(require \)\?k8s.io/kubernetes \(v[0-9.]*\).*,\2,p' "$SRC/go.mod" | head -1)
PORT=${RIGEL_K8S_PORT:-16443}
NET=${RIGEL_K8S_NET:-172.30}
HOST_IP=$NET.78.1 NODE_IP=$NET.78.2 POD_NET=$NET.79 SERVICE_NET=$NET.80
NS=rigel-k8s${NAME:+-$NAME} VETH=rigel-k8s${NAME:-0}
NODE=rigel-node
PAUSE=rigel.test/pause:1
BIN=$DIR/bin PKI=$DIR/pki CONF=$DIR/conf LOGS=$DIR/log PIDS=$DIR/pid STATE=$DIR/state
CONTAINERD_SOCK=$DIR/containerd.sock
CGROUP=rigel-k8s${NAME:+-$NAME}
READY_SECONDS=120

say() { printf '%s\n' "$*" >&2; }
die() { say "kubernetes.sh: $*"; exit 1; }

print_env() {
  echo "KUBECONFIG=$DIR/admin.kubeconfig"
  echo "RIGEL_K8S_HOST_IP=$HOST_IP"
  echo "RIGEL_K8S_NODE_IP=$NODE_IP"
  echo "RIGEL_K8S_KUBECTL=$BIN/kubectl"
  echo "RIGEL_TEST_KUBECONFIG=$DIR/admin.kubeconfig"
  echo "RIGEL_TEST_KUBECTL=$BIN/kubectl"
  echo "RIGEL_TEST_KUBERNETES_HOST=$HOST_IP"
}

# ---------------------------------------------------------------- packages and build

install_packages() {
  local missing=() pair
  for pair in containerd:containerd runc:runc iptables:iptables ip:iproute2 nsenter:util-linux openssl:openssl curl:curl conntrack:conntrack; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  [ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ] || missing+=(containernetworking-plugins)
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

# What the binary was made of; another digest means another build.
build_key() { cat "$SRC"/go.mod "$SRC"/go.sum "$SRC"/main.go "$SRC"/pause/main.go | sha256sum | cut -c1-16; }

build() {
  local key version_package=k8s.io/component-base/version flags work=$DIR/build component
  # One set of programs for all clusters, under a path of each one's own, by which its processes are known.
  if [ -n "$NAME" ]; then
    mkdir -p "$DIR" "$ENGINES/kubernetes/bin"
    ln -sfn ../kubernetes/bin "$BIN"
  fi
  key=$(build_key)
  [ "$(cat "$BIN/key" 2>/dev/null)" = "$key" ] && return 0
  command -v go >/dev/null || die "needs Go to build the cluster"
  say "building Kubernetes $VERSION (once; 6 to 10 minutes on 2 cores)"
  mkdir -p "$BIN" "$work"
  # Its own caches, deleted afterwards: together they hold 4 GB that nothing else uses.
  export GOCACHE=${RIGEL_K8S_GOCACHE:-$work/cache} GOMODCACHE=${RIGEL_K8S_GOMODCACHE:-$work/mod} CGO_ENABLED=0
  export GOFLAGS="${GOFLAGS:-} -modcacherw" GOTOOLCHAIN=local
  flags="-s -w -X $version_package.gitVersion=$VERSION -X $version_package.gitMajor=1 -X $version_package.gitMinor=$(echo "$VERSION" | cut -d. -f2)"
  flags+=" -X $version_package.gitTreeState=clean"
  (cd "$SRC" && nice -n "${RIGEL_BUILD_NICE:-0}" go build -trimpath -buildvcs=false -ldflags "$flags" -o "$BIN/kube" .)
  (cd "$SRC" && nice -n "${RIGEL_BUILD_NICE:-0}" go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$BIN/pause" ./pause)
  for component in etcd kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl; do ln -sf kube "$BIN/$component"; done
  echo "$key" >"$BIN/key"
  rm -rf "$work"
}

# ---------------------------------------------------------------- processes

# The pid of a component that we started, if it runs. Its command line is compared, for pids are reused.
pid_of() {
  local pid
  pid=$(cat "$PIDS/$1" 2>/dev/null) || return 1
  [ -n "$pid" ] && [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$DIR/" || return 1
  echo "$pid"
}

# spawn COMPONENT PROGRAM ARG...: in the cluster's network namespace; nsenter and unshare exec, so the pid stays.
spawn() {
  local name=$1 enter=()
  shift
  case $name in
    forward | expose-*-host) ;;
    # Mounts of pods and containers stay inside, and vanish with the last process.
    containerd)
      # Private first: where the host shares its mounts, a plain copy would hand ours back to it.
      enter=(nsenter "--net=/run/netns/$NS" unshare --mount --propagation private sh -c 'mount --make-rshared / && exec "$@"' sh)
      # Where kubelet outlived it, its namespace holds the mounts of the running pods.
      ! pid_of kubelet >/dev/null || enter=(nsenter "--net=/run/netns/$NS" "--mount=/proc/$(pid_of kubelet)/ns/mnt")
      ;;
    kubelet) enter=(nsenter "--net=/run/netns/$NS" "--mount=/proc/$(pid_of containerd)/ns/mnt") ;;
    *) enter=(nsenter "--net=/run/netns/$NS") ;;
  esac
  mkdir -p "$LOGS" "$PIDS"
  # The lock's descriptor stays ours.
  (cd / && exec setsid "${enter[@]}" "$@") </dev/null >>"$LOGS/$name.log" 2>&1 9>&- &
  echo $! >"$PIDS/$name"
}

# A process that has ended but is not yet collected has no command line, so pid_of does not count it.
end() { # end COMPONENT SIGNAL SECONDS
  local pid i
  pid=$(pid_of "$1") || { rm -f "$PIDS/$1"; return 0; }
  kill "-$2" "$pid" 2>/dev/null || true
  for ((i = 0; i < $3 * 20; i++)); do pid_of "$1" >/dev/null || break; sleep 0.05; done
  if pid_of "$1" >/dev/null; then
    kill -KILL "$pid" 2>/dev/null || true
    for ((i = 0; i < 100; i++)); do pid_of "$1" >/dev/null || break; sleep 0.05; done
  fi
  rm -f "$PIDS/$1"
}

wait_for() { # wait_for COMPONENT COMMAND...
  local name=$1 i
  shift
  for ((i = 0; i < READY_SECONDS * 10; i++)); do
    "$@" >/dev/null 2>&1 && return 0
    pid_of "$name" >/dev/null || [ $i -lt 10 ] || { tail -n 15 "$LOGS/$name.log" >&2; die "$name ended while starting; see $LOGS/$name.log"; }
    sleep 0.1
  done
  tail -n 15 "$LOGS/$name.log" >&2
  die "$name did not answer within $READY_SECONDS s; see $LOGS/$name.log"
}

in_net() { nsenter "--net=/run/netns/$NS" "$@"; }
etcd_get() { in_net curl -sf --max-time 5 "http://127.0.0.1:2379$1" "${@:2}"; }
kubectl() { "$BIN/kubectl" --kubeconfig "$DIR/admin.kubeconfig" "$@"; }
ctr_k8s() { ctr -a "$CONTAINERD_SOCK" -n k8s.io "$@"; }
healthy() { in_net curl -sfk --max-time 2 "$1" >/dev/null; }
api_ready() { curl -sf --max-time 2 --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" "https://127.0.0.1:$PORT/readyz" >/dev/null; }

run_component() {
  case $1 in
    etcd)
      # No flush: a test cluster needs no durability, and the disk is shared.
      spawn etcd "$BIN/etcd" --name rigel --data-dir "$STATE/etcd" --unsafe-no-fsync --log-level warn \
        --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
        --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster rigel=http://127.0.0.1:2380
      ;;
    kube-apiserver)
      spawn kube-apiserver "$BIN/kube-apiserver" --etcd-servers http://127.0.0.1:2379 \
        --bind-address 0.0.0.0 --secure-port 6443 --advertise-address "$NODE_IP" --service-cluster-ip-range "$SERVICE_NET.0/24" \
        --tls-cert-file "$PKI/apiserver.crt" --tls-private-key-file "$PKI/apiserver.key" --client-ca-file "$PKI/ca.crt" \
        --authorization-mode Node,RBAC --service-account-issuer https://kubernetes.default.svc.cluster.local \
        --service-account-key-file "$PKI/sa.pub" --service-account-signing-key-file "$PKI/sa.key" \
        --kubelet-client-certificate "$PKI/apiserver-kubelet.crt" --kubelet-client-key "$PKI/apiserver-kubelet.key" \
        --kubelet-preferred-address-types InternalIP --profiling=false
      ;;
    kube-controller-manager)
      spawn kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig "$CONF/kube-controller-manager.kubeconfig" \
        --leader-elect=false --use-service-account-credentials --root-ca-file "$PKI/ca.crt" \
        --service-account-private-key-file "$PKI/sa.key" --cluster-signing-cert-file "$PKI/ca.crt" --cluster-signing-key-file "$PKI/ca.key" \
        --bind-address 127.0.0.1 --profiling=false
      ;;
    kube-scheduler)
      spawn kube-scheduler "$BIN/kube-scheduler" --kubeconfig "$CONF/kube-scheduler.kubeconfig" --leader-elect=false --bind-address 127.0.0.1 --profiling=false
      ;;
    kube-proxy) spawn kube-proxy "$BIN/kube-proxy" --config "$CONF/kube-proxy.yaml" --hostname-override "$NODE" ;;
    containerd) spawn containerd containerd --config "$CONF/containerd.toml" ;;
    kubelet)
      spawn kubelet "$BIN/kubelet" --config "$CONF/kubelet.yaml" --kubeconfig "$CONF/kubelet.kubeconfig" --root-dir "$STATE/kubelet" \
        --cert-dir "$STATE/kubelet-pki" --hostname-override "$NODE" --node-ip "$NODE_IP"
      ;;
    forward) spawn forward "$BIN/kube" forward "127.0.0.1:$PORT" "$NODE_IP:6443" ;;
    *) die "no component $1" ;;
  esac
}

wait_component() {
  case $1 in
    etcd) wait_for etcd etcd_get /health ;;
    kube-apiserver) wait_for kube-apiserver api_ready ;;
    kube-controller-manager) wait_for "$1" healthy https://127.0.0.1:10257/healthz ;;
    kube-scheduler) wait_for "$1" healthy https://127.0.0.1:10259/healthz ;;
    kube-proxy) wait_for "$1" healthy http://127.0.0.1:10256/healthz ;;
    containerd) wait_for containerd ctr_k8s version ;;
    kubelet) wait_for kubelet healthy http://127.0.0.1:10248/healthz ;;
    forward) ;;
  esac
}

# ---------------------------------------------------------------- configuration

certificate() { # certificate FILE SUBJECT [SUBJECT-ALT-NAMES]
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$PKI/$1.key" -out "$PKI/$1.csr" -subj "$2" 2>/dev/null
  openssl x509 -req -in "$PKI/$1.csr" -CA "$PKI/ca.crt" -CAkey "$PKI/ca.key" -CAcreateserial -days 3650 -out "$PKI/$1.crt" \
    -extfile <(printf 'extendedKeyUsage=clientAuth,serverAuth\n%s\n' "${3:+subjectAltName=$3}") 2>/dev/null
  rm -f "$PKI/$1.csr"
}

kubeconfig() { # kubeconfig FILE CERTIFICATE SERVER
  cat >"$1" <<YAML
apiVersion: v1
kind: Config
current-context: rigel
clusters: [{name: rigel, cluster: {server: "$3", certificate-authority-data: $(base64 -w0 <"$PKI/ca.crt")}}]
users: [{name: $2, user: {client-certificate-data: $(base64 -w0 <"$PKI/$2.crt"), client-key-data: $(base64 -w0 <"$PKI/$2.key")}}]
contexts: [{name: rigel, context: {cluster: rigel, user: $2}}]
YAML
  chmod 600 "$1"
}

make_pki() {
  [ "$(cat "$PKI/for" 2>/dev/null)" = "$NET" ] && return 0
  rm -rf "$PKI"
  mkdir -p "$PKI"
  chmod 700 "$PKI"
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=rigel-test-ca -keyout "$PKI/ca.key" -out "$PKI/ca.crt" 2>/dev/null
  openssl ecparam -name prime256v1 -genkey -noout -out "$PKI/sa.key" 2>/dev/null
  openssl ec -in "$PKI/sa.key" -pubout -out "$PKI/sa.pub" 2>/dev/null
  certificate apiserver /CN=kube-apiserver "IP:127.0.0.1,IP:$NODE_IP,IP:$SERVICE_NET.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
  certificate admin /O=system:masters/CN=admin
  certificate apiserver-kubelet /O=system:masters/CN=kube-apiserver-kubelet-client
  certificate kube-controller-manager /CN=system:kube-controller-manager
  certificate kube-scheduler /CN=system:kube-scheduler
  certificate kube-proxy /CN=system:kube-proxy
  certificate kubelet "/O=system:nodes/CN=system:node:$NODE"
  echo "$NET" >"$PKI/for"
}

configure() {
  local name cni=/usr/lib/cni
  [ -x $cni/bridge ] || cni=/opt/cni/bin
  make_pki
  mkdir -p "$CONF/cni" "$CONF/registries" "$STATE"
  kubeconfig "$DIR/admin.kubeconfig" admin "https://127.0.0.1:$PORT"
  for name in kube-controller-manager kube-scheduler kube-proxy kubelet; do kubeconfig "$CONF/$name.kubeconfig" "$name" https://127.0.0.1:6443; done
  echo "nameserver $HOST_IP" >"$CONF/resolv.conf"
  cat >"$CONF/containerd.toml" <<TOML
version = 2
root = "$DIR/containerd"
state = "$STATE/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[debug]
level = "warn"
[grpc]
address = "$CONTAINERD_SOCK"
[ttrpc]
address = "$CONTAINERD_SOCK.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
path = "$STATE/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "$PAUSE"
# Machines that withhold CAP_SYS_RESOURCE refuse a score below the caller's own.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$cni"
conf_dir = "$CONF/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "$CONF/registries"
TOML
  cat >"$CONF/cni/10-rigel.conflist" <<JSON
{"cniVersion": "1.0.0", "name": "rigel", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true, "promiscMode": false,
   "ipam": {"type": "host-local", "dataDir": "$STATE/cni-ipam", "ranges": [[{"subnet": "$POD_NET.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  cat >"$CONF/kube-proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: "$CONF/kube-proxy.kubeconfig"}
mode: iptables
clusterCIDR: $POD_NET.0/24
bindAddress: 0.0.0.0
oomScoreAdj: 0
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
# The limits of connection tracking belong to the host.
conntrack: {maxPerCore: 0, min: 0, tcpCloseWaitTimeout: 0s, tcpEstablishedTimeout: 0s}
YAML
  cat >"$CONF/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$PKI/ca.crt"}}
authorization: {mode: Webhook}
healthzBindAddress: 127.0.0.1
containerRuntimeEndpoint: "unix://$CONTAINERD_SOCK"
cgroupDriver: cgroupfs
cgroupRoot: "/$CGROUP"
enforceNodeAllocatable: [pods]
failSwapOn: false
oomScoreAdj: 0
failCgroupV1: false
podLogsDir: "$STATE/pod-logs"
volumePluginDir: "$STATE/volume-plugins"
resolvConf: "$CONF/resolv.conf"
clusterDomain: cluster.local
makeIPTablesUtilChains: true
serializeImagePulls: false
registryPullQPS: 0
# Images are loaded by hand and cannot be pulled again: never collect them.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: "1%", imagefs.available: "1%", nodefs.inodesFree: "1%"}
# Quick enough for tests.
nodeStatusUpdateFrequency: 5s
YAML
}

# ---------------------------------------------------------------- namespaces and control groups

make_network() {
  [ -e "/run/netns/$NS" ] || ip netns add "$NS"
  if ! ip link show "$VETH" >/dev/null 2>&1; then
    ip link add "$VETH" type veth peer name eth0 netns "$NS"
    ip addr add "$HOST_IP/30" dev "$VETH"
  fi
  ip link set "$VETH" up
  in_net ip link set lo up
  in_net ip addr replace "$NODE_IP/30" dev eth0
  in_net ip link set eth0 up
  in_net ip route replace default via "$HOST_IP"
  in_net sysctl -qw net.ipv4.ip_forward=1
  # Pods and cluster addresses, reached from the host.
  ip route replace "$POD_NET.0/24" via "$NODE_IP"
  ip route replace "$SERVICE_NET.0/24" via "$NODE_IP"
}

remove_network() {
  ip netns del "$NS" 2>/dev/null || true
  ip link del "$VETH" 2>/dev/null || true
}

cgroup_roots() { # the folder of each hierarchy, or of the unified one
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup; else
    awk '$3 ~ /^cgroup2?$/ { print $2 }' /proc/self/mounts
  fi
}

make_cgroups() {
  local root dir
  for root in $(cgroup_roots); do
    dir=$root/$CGROUP
    mkdir -p "$dir"
    # A new group of the cpuset hierarchy is empty, and takes no process until it is filled in.
    if [ -e "$dir/cpuset.cpus" ] && [ -e "$root/cpuset.cpus" ] && [ ! -e /sys/fs/cgroup/cgroup.controllers ]; then
      cat "$root/cpuset.cpus" >"$dir/cpuset.cpus"
      cat "$root/cpuset.mems" >"$dir/cpuset.mems"
    fi
  done
}

# Every process in the pods' control groups, whatever became of the engine that started it.
pod_processes() {
  local root
  for root in $(cgroup_roots); do
    case $root in */pids | /sys/fs/cgroup) find "$root/$CGROUP" -name cgroup.procs -exec cat {} + 2>/dev/null || true ;; esac
  done
}

remove_cgroups() {
  local root
  for root in $(cgroup_roots); do
    [ ! -d "$root/$CGROUP" ] || find "$root/$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}

# kubelet sets these for the whole machine when it starts; they are put back once it runs.
SYSCTLS="vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys.root_maxkeys kernel.keys.root_maxbytes"
save_sysctls() { local s; for s in $SYSCTLS; do echo "$s=$(sysctl -n "$s")"; done >"$STATE/sysctls"; }
restore_sysctls() { local s; while read -r s; do sysctl -qw "$s" || true; done <"$STATE/sysctls"; }

# ---------------------------------------------------------------- commands

COMPONENTS="forward kubelet kube-proxy kube-scheduler kube-controller-manager kube-apiserver etcd containerd"

load() {
  local archive sum
  mkdir -p "$DIR/loaded"
  for archive in "$@"; do
    sum=$(stat -c '%i-%s-%Y' "$archive")-$(basename "$archive")
    [ -e "$DIR/loaded/$sum" ] && continue
    ctr_k8s images import "$archive" >/dev/null 2>"$LOGS/load.log" || { cat "$LOGS/load.log" >&2; die "cannot load $archive"; }
    : >"$DIR/loaded/$sum"
  done
}

make_pause() {
  local work=$DIR/pause-image
  [ -s "$DIR/pause.tar" ] && [ "$DIR/pause.tar" -nt "$BIN/pause" ] && return 0
  rm -rf "$work"
  mkdir -p "$work/root"
  cp "$BIN/pause" "$work/root/pause"
  tar -C "$work/root" -cf "$work/layer.tar" .
  "$HERE/images.sh" pack "$PAUSE" "$DIR/pause.tar" '{"Entrypoint":["/pause"],"User":"65535:65535"}' "$work/layer.tar"
  rm -rf "$work"
}

lock() {
  mkdir -p "$DIR"
  exec 9>"$DIR/lock"
  flock -w "$1" 9 || die "another command holds $DIR/lock"
}

is_ready() { pid_of kubelet >/dev/null && pid_of kube-apiserver >/dev/null && api_ready; }

start() {
  [ "$(id -u)" = 0 ] || die "must run as root"
  local longest="$STATE/containerd/io.containerd.grpc.v1.cri/containerd.sock" c
  [ ${#longest} -le 107 ] || die "path too long for a socket, set RIGEL_ENGINES to a shorter one: $longest"
  lock 1800
  if is_ready; then print_env; return; fi
  install_packages
  build
  halt
  rm -rf "$STATE" "$LOGS"
  mkdir -p "$STATE" "$LOGS" "$PIDS"
  configure
  make_network
  make_cgroups
  make_pause
  save_sysctls
  run_component etcd
  run_component containerd
  wait_component etcd
  run_component kube-apiserver
  run_component forward
  wait_component containerd
  load "$DIR/pause.tar"
  wait_component kube-apiserver
  run_component kube-controller-manager
  run_component kube-scheduler
  run_component kube-proxy
  run_component kubelet
  for c in kubelet kube-controller-manager kube-scheduler; do wait_component $c; done
  wait_for kubelet kubectl wait --for=condition=Ready "node/$NODE" --timeout 2s
  wait_for kube-controller-manager kubectl -n default get serviceaccount default
  wait_component kube-proxy
  restore_sysctls
  print_env
}

# The pids of the processes that name our socket as theirs: one shim for each pod.
shims() {
  local f
  for f in $(grep -lzxF -- "$CONTAINERD_SOCK" /proc/[0-9]*/cmdline 2>/dev/null); do
    f=${f%/cmdline}
    case $(readlink "$f/exe" 2>/dev/null) in */containerd-shim*) echo "${f#/proc/}" ;; esac
  done
}

# Ends everything at once: the state is thrown away, so nothing needs to be put in order first.
# Processes are found by our pid files, the pods' control groups and our socket's path.
halt() {
  local c i p links=''
  # Inside, these are the pods' network namespaces; outside, empty files that stay behind.
  ! p=$(pid_of containerd) || links=$(awk '$2 ~ "^/(var/)?run/netns/cni-" { print $2 }' "/proc/$p/mounts")
  for c in $COMPONENTS $(cd "$PIDS" 2>/dev/null && ls -d expose-* 2>/dev/null || true); do
    [ $c = containerd ] || end $c KILL 1
  done
  for ((i = 0; i < 50; i++)); do
    p=$(pod_processes | sort -u)
    [ -n "$p" ] || break
    # shellcheck disable=SC2086
    kill -KILL $p 2>/dev/null || true
    sleep 0.05
  done
  # The records of containers would come back with the images at the next start.
  if pid_of containerd >/dev/null; then
    p=$(timeout 10 ctr -a "$CONTAINERD_SOCK" -n k8s.io tasks ls -q 2>/dev/null || true)
    # shellcheck disable=SC2086
    [ -z "$p" ] || timeout 30 ctr -a "$CONTAINERD_SOCK" -n k8s.io tasks rm -f $p >/dev/null 2>&1 || true
    p=$(timeout 10 ctr -a "$CONTAINERD_SOCK" -n k8s.io containers ls -q 2>/dev/null || true)
    # shellcheck disable=SC2086
    [ -z "$p" ] || timeout 30 ctr -a "$CONTAINERD_SOCK" -n k8s.io containers rm $p >/dev/null 2>&1 || true
  fi
  end containerd TERM 5
  for p in $(shims); do kill -KILL "$p" 2>/dev/null || true; done
  for p in $links; do mountpoint -q "$p" || rm -f "$p"; done
  remove_network
  remove_cgroups
  awk -v d="$DIR/" 'index($2, d) == 1 { print $2 }' /proc/self/mounts | sort -r | while read -r p; do umount -l "$p" || true; done
  # kubelet's links to the pods' logs stand in a fixed folder.
  find /var/log/containers -maxdepth 1 -lname "$DIR/*" -delete 2>/dev/null || true
}

expose() {
  local port
  for port in "$@"; do
    pid_of "expose-$port-host" >/dev/null || spawn "expose-$port-host" "$BIN/kube" forward "$HOST_IP:$port" "127.0.0.1:$port"
    pid_of "expose-$port-node" >/dev/null || spawn "expose-$port-node" "$BIN/kube" forward "127.0.0.1:$port" "$HOST_IP:$port"
  done
  for port in "$@"; do
    wait_for "expose-$port-host" bash -c "exec 3<>/dev/tcp/$HOST_IP/$port"
    wait_for "expose-$port-node" in_net bash -c "exec 3<>/dev/tcp/127.0.0.1/$port"
  done
}

expire() {
  local revision
  revision=$(etcd_get /v3/kv/range -d '{"key":"AA==","limit":"1"}' | grep -o '"revision":"[0-9]*"' | grep -o '[0-9]*')
  etcd_get /v3/kv/compaction -d "{\"revision\":\"$revision\",\"physical\":true}" >/dev/null
  end kube-apiserver KILL 5
  run_component kube-apiserver
  wait_component kube-apiserver
}

case ${1:-} in
  install) install_packages ;;
  build) lock 1800; build ;;
  start) start ;;
  stop) lock 120; halt; rm -rf "$STATE" ;;
  clean) lock 120; halt; find "$DIR" -mindepth 1 -maxdepth 1 ! -name bin ! -name lock -exec rm -rf {} + ;;
  status) if is_ready; then print_env; else say "not running"; exit 1; fi ;;
  env) print_env ;;
  load) shift; lock 120; load "$@" ;;
  kill) lock 120; end "$2" "${3:-KILL}" 10 ;;
  run) lock 120; pid_of "$2" >/dev/null || run_component "$2"; wait_component "$2" ;;
  restart) lock 120; end "$2" TERM 10; run_component "$2"; wait_component "$2" ;;
  expire) lock 120; expire ;;
  expose) shift; lock 120; expose "$@" ;;
  logs) echo "$LOGS/$2.log" ;;
  *) sed -n 's/^# \{0,1\}//; 2,28p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
