import assert from 'node:assert/strict'
import process from 'node:process'
import test from 'node:test'

import { decideDetach, type HostFacts, readControlGroup, readHostFacts } from '../../src/agent/host.ts'

const host: HostFacts = {
  pid: 4711,
  ancestors: [
    { pid: 900, name: 'bash' },
    { pid: 1, name: 'systemd' },
  ],
  init: 'systemd',
  isContainer: false,
  service: undefined,
}
const container: HostFacts = { ...host, pid: 7, ancestors: [{ pid: 1, name: 'tini' }], init: 'tini', isContainer: true }
const unit = 'rigel.service'

const able: [what: string, facts: HostFacts][] = [
  ['started from a shell', host],
  ['whose parents cannot be seen', { ...host, ancestors: [] }],
  ['that is a service with KillMode=process', { ...host, service: { unit, killMode: 'process' } }],
  ['that is a service with KillMode=none', { ...host, service: { unit, killMode: 'none' } }],
  ['in a container with a whole init system', { ...host, isContainer: true, service: { unit, killMode: 'process' } }],
  [
    'in a container below supervisord',
    { ...container, ancestors: [{ pid: 1, name: 'supervisord' }], init: 'supervisord' },
  ],
]

for (const [what, facts] of able) {
  test(`an agent ${what} can detach`, () => {
    assert.deepEqual(decideDetach(facts), { canDetach: true })
  })
}

const unable: [what: string, facts: HostFacts, reason: RegExp][] = [
  ['that is process 1', { ...container, pid: 1, ancestors: [], init: 'node' }, /is process 1/],
  ["below a container's init", container, /process 1 is tini, which ends with the agent/],
  [
    "below a shell that is a container's process 1",
    {
      ...container,
      ancestors: [
        { pid: 6, name: 'npm' },
        { pid: 1, name: 'sh' },
      ],
      init: 'sh',
    },
    /process 1 is sh/,
  ],
  [
    'in a pod that shares its process namespace',
    { ...container, ancestors: [], init: 'pause' },
    /outside its container/,
  ],
  ['brought into a container by a shell', { ...container, ancestors: [{ pid: 30, name: 'bash' }] }, /outside/],
  [
    'that is a service of the usual kind',
    { ...host, service: { unit, killMode: 'control-group' } },
    /rigel\.service has KillMode=control-group/,
  ],
  ['that is a service with KillMode=mixed', { ...host, service: { unit, killMode: 'mixed' } }, /KillMode=mixed/],
  ['whose service does not tell', { ...host, service: { unit, killMode: undefined } }, /could not be read/],
  ['whose service has no name', { ...host, service: { unit: undefined, killMode: undefined } }, /of unknown name/],
]

for (const [what, facts, reason] of unable) {
  test(`an agent ${what} cannot detach, and says why`, () => {
    const decision = decideDetach(facts)
    assert.ok(!decision.canDetach)
    assert.match(decision.reason, reason)
  })
}

const groups: [text: string, want: ReturnType<typeof readControlGroup>][] = [
  ['0::/system.slice/rigel.service\n', { unit: 'rigel.service', isUser: false }],
  ['0::/system.slice/system-rigel.slice/rigel@a.service/payload\n', { unit: 'rigel@a.service', isUser: false }],
  [
    '0::/user.slice/user-1000.slice/user@1000.service/app.slice/rigel.service\n',
    { unit: 'rigel.service', isUser: true },
  ],
  ['12:pids:/x.service\n1:name=systemd:/system.slice/rigel.service\n0::/\n', { unit: 'rigel.service', isUser: false }],
  ['0::/user.slice/user-1000.slice/session-3.scope\n', undefined],
  ['0::/user.slice/user-1000.slice/user@1000.service/app.slice/terminal.scope\n', undefined],
  ['0::/\n', undefined],
  ['', undefined],
]

for (const [text, want] of groups) {
  test(`the control group ${JSON.stringify(text)} belongs to ${want?.unit ?? 'no service'}`, () => {
    assert.deepEqual(readControlGroup(text), want)
  })
}

const never = new AbortController().signal

test('the facts of this process name its parents and no service', async () => {
  const facts = await readHostFacts({ environment: { PATH: process.env.PATH }, pid: process.pid }, never)
  assert.equal(facts.pid, process.pid)
  assert.equal(facts.ancestors[0]?.pid, process.ppid)
  assert.equal(facts.service, undefined)
})

test('an INVOCATION_ID that only came along from a terminal makes no service', async () => {
  const environment = { INVOCATION_ID: 'f00', SYSTEMD_EXEC_PID: '1', PATH: process.env.PATH }
  assert.equal((await readHostFacts({ environment, pid: process.pid }, never)).service, undefined)
})

test('a process that the service manager has started is a service', async () => {
  const environment = { INVOCATION_ID: 'f00', SYSTEMD_EXEC_PID: String(process.pid), PATH: process.env.PATH }
  assert.ok((await readHostFacts({ environment, pid: process.pid }, never)).service)
})
