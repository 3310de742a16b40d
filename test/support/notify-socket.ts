// A service manager's socket for tests, as NOTIFY_SOCKET names it: it hears what is said, or does not listen at all.
// Needs python3, for Node has no Unix datagram sockets.

import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

import { makeDirectory } from './directory.ts'
import { until } from './until.ts'

export interface NotifySocket extends AsyncDisposable {
  readonly socket: string
  /** What was said so far, line by line. */
  readonly lines: readonly string[]
}

/** What a service manager does with its socket: takes messages, and closes the descriptors that come along. */
const listener = `
import os, socket, sys
server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
server.bind(sys.argv[1])
print("listening", flush=True)
while sys.argv[2] == "reads":
    data, control, _, _ = server.recvmsg(4096, 1024)
    for _, kind, descriptors in control:
        if kind == socket.SCM_RIGHTS:
            for at in range(0, len(descriptors), 4):
                os.close(int.from_bytes(descriptors[at:at + 4], sys.byteorder))
    print("\\n".join(line for line in data.decode().split("\\n") if line and line != "BARRIER=1"), flush=True)
sys.stdin.read()
`

export async function listen(how: 'reads' | 'is deaf'): Promise<NotifySocket> {
  const directory = await makeDirectory()
  const socket = join(directory.path, 'notify')
  const child = spawn('python3', ['-c', listener, socket, how], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = new Promise(resolve => child.once('exit', resolve))
  const lines: string[] = []
  createInterface({ input: child.stdout }).on('line', line => {
    if (line !== '') lines.push(line)
  })
  await until(() => lines.includes('listening'))
  lines.length = 0
  return {
    socket,
    lines,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL')
      await ended
      await directory[Symbol.asyncDispose]()
    },
  }
}
