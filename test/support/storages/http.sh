# nginx with index pages, plain and over TLS; /private/ wants basic auth.

install() { debian nginx-light; }

serve() {
  local port secure where
  port=$(free_port)
  secure=$(free_port)
  certificates
  mkdir -p "$folder/data/private"
  printf '%s:%s\n' "$user" "$(openssl passwd -apr1 "$password")" >"$folder/htpasswd"
  where="root $folder/data; autoindex on;
    location / { types { text/html html; text/plain txt; } }
    location /private/ { auth_basic rigel; auth_basic_user_file $folder/htpasswd; }"
  nginx_serve "server { listen 127.0.0.1:$port; $where }
  server { listen 127.0.0.1:$secure ssl; ssl_certificate $tls/cert.pem; ssl_certificate_key $tls/key.pem; $where }"
  wait_for port_open "$port"
  settings url "http://127.0.0.1:$port/" url_tls "https://localhost:$secure/" username "$user" password "$password" \
    ca_file "$tls/ca.pem" data "$folder/data"
}
