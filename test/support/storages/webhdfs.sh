# Apache Hadoop's own mini cluster, a NameNode and a DataNode in one JVM, from Maven. It believes whatever user.name= says.

hadoop=3.4.1

install() {
  local out=$engines/webhdfs
  [ -f "$out/ready-$hadoop" ] && return
  command -v javac >/dev/null || debian openjdk-17-jdk-headless
  command -v mvn >/dev/null || debian maven
  mkdir -p "$out/lib" "$out/classes"
  nice mvn -q -B -f "$here/webhdfs/pom.xml" "-Dhadoop=$hadoop" dependency:copy-dependencies "-DoutputDirectory=$out/lib"
  javac -cp "$out/lib/*" -d "$out/classes" "$here/webhdfs/MiniHdfs.java"
  touch "$out/ready-$hadoop"
}

serve() {
  local port out=$engines/webhdfs
  port=$(free_port)
  mkdir -p "$folder/data"
  launch java --add-opens java.base/java.lang=ALL-UNNAMED --add-opens java.base/java.util=ALL-UNNAMED -Xmx384m \
    -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$out/classes:$out/lib/*" MiniHdfs "$folder/data" "$port"
  wait_for url_answers "http://127.0.0.1:$port/webhdfs/v1/?op=LISTSTATUS&user.name=$user" '^200'
  settings url "http://127.0.0.1:$port/webhdfs/v1/" host 127.0.0.1 port "$port" user "$user"
}
