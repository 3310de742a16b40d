# pyftpdlib; also for ftps, where TLS is demanded on both channels.

install() { debian python3-pyftpdlib python3-openssl; }

serve() {
  local port passive=() tls=
  port=$(free_port)
  # Known ones for data, so that a proxy can have the same.
  while [ ${#passive[@]} -lt 32 ]; do passive+=("$(free_port)"); done
  mkdir -p "$folder/data"
  if [ "$name" = ftps ]; then
    certificates
    cat "$tls/cert.pem" "$tls/key.pem" >"$folder/both.pem"
  fi
  cat >"$folder/server.py" <<'PYTHON'
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import ThreadedFTPServer

port, root, user, password, pem, *passive = sys.argv[1:]
users = DummyAuthorizer()
users.add_user(user, password, root, perm="elradfmwMT")
handler = TLS_FTPHandler if pem else FTPHandler
handler.authorizer = users
handler.encoding = "utf8"
handler.passive_ports = [int(port) for port in passive]
if pem:
    handler.certfile = pem
    handler.tls_control_required = handler.tls_data_required = True
server = ThreadedFTPServer(("127.0.0.1", int(port)), handler)
server.max_cons = server.max_cons_per_ip = 512
server.serve_forever()
PYTHON
  launch /usr/bin/python3 "$folder/server.py" "$port" "$folder/data" "$user" "$password" "${tls:+$folder/both.pem}" "${passive[@]}"
  wait_for port_open "$port"
  settings host 127.0.0.1 port "$port" username "$user" password "$password" ca_file "${tls:+$tls/ca.pem}" \
    passive_ports "${passive[*]}" data "$folder/data"
}
