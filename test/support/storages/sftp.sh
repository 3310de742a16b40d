# OpenSSH: sftp, a shell, and git over ssh, by key or password. The user is known only to this sshd, by an /etc of its own
# in a mount namespace (a mount over /etc/passwd alone would be gone when somebody on the machine replaces that file).

install() { debian openssh-server openssh-client git; }

serve() {
  [ "$(id -u)" = 0 ] || fail 'sftp needs root, for its list of users'
  local port home=$folder/home
  port=$(free_port)
  mkdir -p "$home/.ssh" "$home/flows" "$home/git" /run/sshd
  [ -f "$folder/host_key" ] || ssh-keygen -q -t ed25519 -N '' -f "$folder/host_key"
  [ -f "$folder/id_ed25519" ] || ssh-keygen -q -t ed25519 -N '' -f "$folder/id_ed25519"
  cp "$folder/id_ed25519.pub" "$home/.ssh/authorized_keys"
  local etc=$folder/etc file
  mkdir -p "$etc"
  for file in group nsswitch.conf ld.so.cache ld.so.conf.d alternatives; do cp -a "/etc/$file" "$etc/" 2>/dev/null || true; done
  { grep -v "^$user:" /etc/passwd; echo "$user:x:20001:65534::$home:/bin/sh"; } >"$etc/passwd"
  (umask 077 && echo "$user:$(openssl passwd -6 "$password"):19000:0:99999:7:::" >"$etc/shadow")
  chown -R 20001:65534 "$home"
  chmod 755 "$home"
  cat >"$folder/sshd_config" <<CONF
ListenAddress 127.0.0.1
Port $port
HostKey $folder/host_key
PidFile none
UsePAM no
PasswordAuthentication yes
KbdInteractiveAuthentication no
PubkeyAuthentication yes
AuthorizedKeysFile .ssh/authorized_keys
StrictModes no
MaxStartups 100
MaxSessions 100
UseDNS no
Subsystem sftp internal-sftp
AllowUsers $user
CONF
  launch unshare -m --propagation private sh -c "mount --bind '$etc' /etc && exec /usr/sbin/sshd -D -e -f '$folder/sshd_config'"
  wait_for port_open "$port"
  printf '[127.0.0.1]:%s %s\n' "$port" "$(cut -d' ' -f1,2 "$folder/host_key.pub")" >"$folder/known_hosts"
  settings host 127.0.0.1 port "$port" username "$user" password "$password" private_key_file "$folder/id_ed25519" \
    known_hosts_file "$folder/known_hosts" data "$home/flows" git_root "$home/git"
}
