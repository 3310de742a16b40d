# The server of ftp.sh, which demands TLS on both channels under this name.

. "$here/ftp.sh"
