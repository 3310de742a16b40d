# Samba, SMB 3 only, signing mandatory; the share `sealed` also demands encryption. The user is mapped to root inside this smbd.

install() { debian samba smbclient; }

serve() {
  [ "$(id -u)" = 0 ] || fail 'smb needs root, for its password file'
  local port
  port=$(free_port)
  mkdir -p "$folder"/{private,lock,state,cache,run,ncalrpc,flows,sealed}
  chmod 700 "$folder/private"
  echo "root = $user" >"$folder/users.map"
  cat >"$folder/smb.conf" <<CONF
[global]
server role = standalone server
smb ports = $port
interfaces = 127.0.0.1/8
bind interfaces only = yes
disable netbios = yes
server min protocol = SMB3
server signing = mandatory
map to guest = never
username map = $folder/users.map
passdb backend = tdbsam:$folder/private/passdb.tdb
private dir = $folder/private
lock directory = $folder/lock
state directory = $folder/state
cache directory = $folder/cache
pid directory = $folder/run
ncalrpc dir = $folder/ncalrpc
log file = $folder/smbd.log
log level = 1
load printers = no
printcap name = /dev/null
disable spoolss = yes
dns proxy = no
wide links = no
follow symlinks = yes
mangled names = no
unix charset = UTF-8
[flows]
path = $folder/flows
read only = no
valid users = root
[sealed]
path = $folder/sealed
read only = no
valid users = root
smb encrypt = required
CONF
  printf '%s\n%s\n' "$password" "$password" | smbpasswd -c "$folder/smb.conf" -s -a root >/dev/null
  launch smbd -F --no-process-group -s "$folder/smb.conf"
  wait_for port_open "$port"
  settings host 127.0.0.1 port "$port" username "$user" password "$password" \
    data "$folder/flows" data_encrypted "$folder/sealed"
}
