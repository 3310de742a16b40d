"""Starts Prefect servers by forking a process that has imported them, for that takes seconds of a processor each time.

    python prefect-nursery.py SOCKET       prints a line when it listens; ends with its standard input

A connection is a server. It asks for it with a line of JSON, {"home": ..., "port": ...}, and ends it by going away. The
settings are those of this process, whose PREFECT_HOME is ".": each server is started in its home.
"""

import json
import os
import select
import signal
import socket
import sys
import threading
import time

GRACE_SECONDS = 10


def serve(connection):
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    order = json.loads(connection.makefile().readline())
    os.chdir(order["home"])
    log = os.open("server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    threading.Thread(target=end_with, args=[connection], daemon=True).start()
    uvicorn.run(
        "prefect.server.api.server:create_app",
        factory=True,
        port=order["port"],
        timeout_keep_alive=5,
        log_level="warning",
    )


def end_with(connection):
    connection.recv(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("listening", flush=True)
# Nobody waits for what ends.
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
# Without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)
while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
    connection, _ = listener.accept()
    # Not before someone wants one: many test files do not.
    import prefect.server.api.server
    import uvicorn

    if os.fork() == 0:
        serve(connection)
        break
    connection.close()
