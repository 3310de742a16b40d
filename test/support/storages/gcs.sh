# fake-gcs-server, which checks nothing, and in front of it an nginx that wants a bearer token and gives it to service accounts.
#
# A second one keeps its objects in files, for the bench. The one in memory takes any name, but looks for an object among all of
# its bucket and puts two texts together for each that it passes: half a millisecond of a core for one object of 2,000.

install() {
  go_program fake-gcs-server github.com/fsouza/fake-gcs-server@v1.56.1
  debian nginx-light
}

fake_gcs() { # port option...
  local port=$1
  shift
  launch "$engines/bin/fake-gcs-server" -scheme http -host 127.0.0.1 -port "$port" \
    -public-host "127.0.0.1:$port" -external-url "http://127.0.0.1:$port" -log-level error "$@"
  wait_for url_answers "http://127.0.0.1:$port/storage/v1/b"
}

serve() {
  local port files guarded
  port=$(free_port)
  files=$(free_port)
  guarded=$(free_port)
  mkdir -p "$folder/data"
  fake_gcs "$port" -backend memory
  fake_gcs "$files" -backend filesystem -filesystem-root "$folder/data"
  nginx_serve "server {
    listen 127.0.0.1:$guarded;
    client_max_body_size 0;
    proxy_request_buffering off;
    location = /token {
      default_type application/json;
      return 200 '{\"access_token\":\"$token\",\"token_type\":\"Bearer\",\"expires_in\":3600}';
    }
    location / {
      if (\$http_authorization != 'Bearer $token') { return 401 '{\"error\":{\"code\":401,\"message\":\"Invalid Credentials\"}}'; }
      proxy_pass http://127.0.0.1:$port;
      proxy_set_header Host \$http_host;
    }
  }"
  wait_for port_open "$guarded"
  [ -f "$folder/key.pem" ] || openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$folder/key.pem" 2>/dev/null
  local key
  key=$(awk '{ printf "%s\\n", $0 }' "$folder/key.pem")
  cat >"$folder/service-account.json" <<JSON
{"type":"service_account","project_id":"rigel","private_key_id":"k","private_key":"$key","client_email":"rigel@rigel.iam.gserviceaccount.com","client_id":"1","token_uri":"http://127.0.0.1:$guarded/token"}
JSON
  settings endpoint "http://127.0.0.1:$port" endpoint_files "http://127.0.0.1:$files" endpoint_auth "http://127.0.0.1:$guarded" token "$token" \
    service_account_file "$folder/service-account.json"
}
