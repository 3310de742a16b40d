# git-http-backend behind nginx, plain and over TLS: /public/NAME.git is open, /private/NAME.git wants the password, or the
# token in any of the forms that GitHub, GitLab and Bitbucket take.

install() { debian nginx-light fcgiwrap git; }

serve() {
  local port secure cgi where name_of_token
  port=$(free_port)
  secure=$(free_port)
  certificates
  mkdir -p "$folder/repos/public" "$folder/repos/private"
  {
    printf '%s:%s\n' "$user" "$(openssl passwd -apr1 "$password")"
    for name_of_token in x-access-token oauth2 x-token-auth "$user-bot"; do
      printf '%s:%s\n' "$name_of_token" "$(openssl passwd -apr1 "$token")"
    done
    printf '%s:%s\n' "$token" "$(openssl passwd -apr1 '')"
  } >"$folder/htpasswd"
  printf '[safe]\n\tdirectory = *\n[uploadpack]\n\tallowFilter = true\n' >"$folder/.gitconfig"
  cgi="include /etc/nginx/fastcgi_params; fastcgi_param SCRIPT_FILENAME /usr/lib/git-core/git-http-backend;
    fastcgi_param GIT_PROJECT_ROOT $folder/repos; fastcgi_param GIT_HTTP_EXPORT_ALL 1; fastcgi_param PATH_INFO \$uri;
    fastcgi_param REMOTE_USER \$remote_user; fastcgi_param HOME $folder; fastcgi_param GIT_CONFIG_NOSYSTEM 1;
    fastcgi_param GIT_PROTOCOL \$http_git_protocol; fastcgi_pass unix:$folder/cgi.sock;"
  where="client_max_body_size 0; location /public/ { $cgi }
    location /private/ { auth_basic rigel; auth_basic_user_file $folder/htpasswd; $cgi }"
  rm -f "$folder/cgi.sock"
  launch fcgiwrap -c 4 -s "unix:$folder/cgi.sock"
  nginx_serve "server { listen 127.0.0.1:$port; $where }
  server { listen 127.0.0.1:$secure ssl; ssl_certificate $tls/cert.pem; ssl_certificate_key $tls/key.pem; $where }"
  wait_for port_open "$port"
  settings url "http://127.0.0.1:$port/" url_tls "https://127.0.0.1:$secure/" tls_port "$secure" username "$user" \
    password "$password" token "$token" ca_file "$tls/ca.pem" repos "$folder/repos"
}
