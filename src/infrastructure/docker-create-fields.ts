// The checked pass-through to Docker's create call: what the block itself has no field for.
//
// In: `container_create_kwargs` (docker-py's names, as Prefect's docker worker takes them, and the docker command's own)
// and `container_create` (the fields of Docker's HTTP API). Out: fields of the create body, each known and of its kind.
// Fields by which the agent keeps its promises (name, labels, restart ...) are refused with the reason.

import { InfrastructureError } from './infrastructure.ts'

export interface CreateFields {
  /** Beside `Image`, `Cmd` ... in the body. */
  readonly config: Readonly<Record<string, unknown>>
  readonly host: Readonly<Record<string, unknown>>
}

type Kind = 'text' | 'texts' | 'command' | 'count' | 'amount' | 'flag' | 'object' | 'objects'

/** API name, its kind, the names by which docker-py and the command line know it. Source: Docker Engine API 1.41. */
const CONFIG: readonly (readonly [string, Kind, ...string[]])[] = [
  ['Hostname', 'text', 'hostname'],
  ['Domainname', 'text', 'domainname'],
  ['User', 'text', 'user'],
  ['ExposedPorts', 'object'],
  ['Tty', 'flag', 'tty'],
  ['OpenStdin', 'flag', 'stdin_open'],
  ['Healthcheck', 'object', 'healthcheck'],
  ['Volumes', 'object'],
  ['WorkingDir', 'text', 'working_dir', 'workdir'],
  ['Entrypoint', 'command', 'entrypoint'],
  ['MacAddress', 'text', 'mac_address'],
  ['StopSignal', 'text', 'stop_signal'],
  ['StopTimeout', 'count', 'stop_timeout'],
  ['NetworkingConfig', 'object', 'networking_config'],
]

const HOST: readonly (readonly [string, Kind, ...string[]])[] = [
  ['CpuShares', 'count', 'cpu_shares'],
  ['CpuPeriod', 'count', 'cpu_period'],
  ['CpuQuota', 'count', 'cpu_quota'],
  ['CpuRealtimePeriod', 'count', 'cpu_rt_period'],
  ['CpuRealtimeRuntime', 'count', 'cpu_rt_runtime'],
  ['CpuCount', 'count', 'cpu_count'],
  ['CpuPercent', 'count', 'cpu_percent'],
  ['CpusetCpus', 'text', 'cpuset_cpus'],
  ['CpusetMems', 'text', 'cpuset_mems'],
  ['NanoCpus', 'count', 'nano_cpus'],
  ['BlkioWeight', 'count', 'blkio_weight'],
  ['BlkioWeightDevice', 'objects', 'blkio_weight_device'],
  ['BlkioDeviceReadBps', 'objects', 'device_read_bps'],
  ['BlkioDeviceWriteBps', 'objects', 'device_write_bps'],
  ['BlkioDeviceReadIOps', 'objects', 'device_read_iops'],
  ['BlkioDeviceWriteIOps', 'objects', 'device_write_iops'],
  ['MemoryReservation', 'amount', 'mem_reservation'],
  ['KernelMemory', 'amount', 'kernel_memory'],
  ['MemorySwappiness', 'count', 'mem_swappiness'],
  ['OomKillDisable', 'flag', 'oom_kill_disable'],
  ['OomScoreAdj', 'count', 'oom_score_adj'],
  ['PidsLimit', 'count', 'pids_limit'],
  ['Ulimits', 'objects', 'ulimits'],
  ['Init', 'flag', 'init'],
  ['CapAdd', 'texts', 'cap_add'],
  ['CapDrop', 'texts', 'cap_drop'],
  ['CgroupnsMode', 'text', 'cgroupns'],
  ['CgroupParent', 'text', 'cgroup_parent'],
  ['Dns', 'texts', 'dns'],
  ['DnsOptions', 'texts', 'dns_opt'],
  ['DnsSearch', 'texts', 'dns_search'],
  ['ExtraHosts', 'texts', 'extra_hosts'],
  ['GroupAdd', 'texts', 'group_add'],
  ['IpcMode', 'text', 'ipc_mode', 'ipc'],
  ['PidMode', 'text', 'pid_mode', 'pid'],
  ['UTSMode', 'text', 'uts_mode', 'uts'],
  ['UsernsMode', 'text', 'userns_mode', 'userns'],
  ['Links', 'texts', 'links'],
  ['Mounts', 'objects', 'mounts'],
  ['Binds', 'texts'],
  ['VolumesFrom', 'texts', 'volumes_from'],
  ['VolumeDriver', 'text', 'volume_driver'],
  ['Tmpfs', 'object', 'tmpfs'],
  ['Devices', 'objects', 'devices'],
  ['DeviceCgroupRules', 'texts', 'device_cgroup_rules'],
  ['DeviceRequests', 'objects', 'device_requests'],
  ['PortBindings', 'object'],
  ['PublishAllPorts', 'flag', 'publish_all_ports'],
  ['ReadonlyRootfs', 'flag', 'read_only'],
  ['SecurityOpt', 'texts', 'security_opt'],
  ['ShmSize', 'amount', 'shm_size'],
  ['StorageOpt', 'object', 'storage_opt'],
  ['Sysctls', 'object', 'sysctls'],
  ['Runtime', 'text', 'runtime'],
  ['Isolation', 'text', 'isolation'],
  ['LogConfig', 'object', 'log_config'],
  ['Annotations', 'object', 'annotations'],
]

/** Fields that the block has under its own name, or that would break a promise of the agent. */
const REFUSED: Readonly<Record<string, string>> = {
  ...refused(
    'the agent starts a run exactly once',
    'RestartPolicy restart_policy restart AttachStdin AttachStdout detach',
  ),
  ...refused('the agent names containers, so that none starts twice', 'name Name'),
  ...refused('use the block\'s field "auto_remove"', 'AutoRemove auto_remove remove'),
  ...refused('use the block\'s field "image"', 'Image image'),
  ...refused('use the block\'s field "command"', 'Cmd command'),
  ...refused('use the block\'s field "env"', 'Env environment env'),
  ...refused('use the block\'s field "labels"', 'Labels labels'),
  ...refused('use the block\'s fields "networks" and "network_mode"', 'NetworkMode network_mode network'),
  ...refused('use the block\'s field "volumes"', 'volumes'),
  ...refused('use the block\'s field "mem_limit"', 'Memory mem_limit memory'),
  ...refused('use the block\'s field "memswap_limit"', 'MemorySwap memswap_limit'),
  ...refused('use the block\'s field "privileged"', 'Privileged privileged'),
}

function refused(reason: string, names: string): Record<string, string> {
  return Object.fromEntries(names.split(' ').map(name => [name, reason]))
}

/** Throws an InfrastructureError that blames the run for an unknown name, a wrong kind, or a refused field. */
export function readCreateFields(input: {
  readonly kwargs: Readonly<Record<string, unknown>>
  readonly raw: Readonly<Record<string, unknown>>
}): CreateFields {
  const config: Record<string, unknown> = {}
  const host: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(input.raw)) {
    if (name === 'HostConfig') {
      if (!isObject(value)) throw fault('container_create.HostConfig', 'must be an object')
      for (const [inner, innerValue] of Object.entries(value))
        put(host, HOST, `container_create.HostConfig.${inner}`, inner, innerValue)
    } else put(config, CONFIG, `container_create.${name}`, name, value)
  }
  for (const [name, value] of Object.entries(input.kwargs)) putKwarg({ config, host }, name, value)
  return { config, host }
}

type Table = readonly (readonly [string, Kind, ...string[]])[]

function put(into: Record<string, unknown>, table: Table, path: string, name: string, value: unknown): void {
  if (value === null || value === undefined) return
  const row = table.find(([api]) => api === name)
  if (!row) throw fault(path, REFUSED[name] ?? unknownField(name, table === HOST ? CONFIG : HOST, table))
  into[row[0]] = readKind(path, row[1], value)
}

function unknownField(name: string, other: Table, table: Table): string {
  if (other.some(([api]) => api === name)) {
    return other === HOST ? 'belongs into "HostConfig"' : 'belongs beside "HostConfig", not into it'
  }
  const near = table.find(([api]) => api.toLowerCase() === name.toLowerCase().replaceAll('_', ''))
  return `is no field of Docker's create call${near ? `; did you mean "${near[0]}"?` : ''}`
}

function putKwarg(
  into: { readonly config: Record<string, unknown>; readonly host: Record<string, unknown> },
  name: string,
  value: unknown,
): void {
  const path = `container_create_kwargs.${name}`
  if (value === null || value === undefined) return
  const special = SPECIAL[name]
  if (special) {
    const fields = special(path, value)
    Object.assign(into.host, fields.host)
    Object.assign(into.config, fields.config)
    return
  }
  for (const [table, target] of [
    [CONFIG, into.config],
    [HOST, into.host],
  ] as const) {
    const row = table.find(([, , ...names]) => names.includes(name))
    if (row) {
      target[row[0]] = readKind(path, row[1], name === 'extra_hosts' ? toHostList(value) : value)
      return
    }
  }
  throw fault(path, REFUSED[name] ?? 'is not known; write it into "container_create" as the API has it')
}

/** Names of the command line whose values take more than a new name. */
const SPECIAL: Readonly<Record<string, (path: string, value: unknown) => Partial<CreateFields>>> = {
  cpus: (path, value) => {
    const cpus = Number(value)
    if (!(cpus > 0)) throw fault(path, 'must be a number of processors, such as 1.5')
    return { host: { NanoCpus: Math.round(cpus * 1e9) } }
  },
  gpus: (path, value) => {
    const count = value === 'all' ? -1 : Number(value)
    if (!Number.isInteger(count)) throw fault(path, 'must be "all" or a number')
    return { host: { DeviceRequests: [{ Count: count, Capabilities: [['gpu']] }] } }
  },
  ports: (path, value) => {
    if (!isObject(value)) throw fault(path, 'must be an object such as {"8080/tcp": 80}')
    const bindings = Object.entries(value).map(([port, host]): [string, unknown] => [
      port.includes('/') ? port : `${port}/tcp`,
      [{ HostPort: host === null ? '' : readKind(path, 'text', host) }],
    ])
    const exposed = bindings.map(([port]): [string, unknown] => [port, {}])
    return {
      host: { PortBindings: Object.fromEntries(bindings) },
      config: { ExposedPorts: Object.fromEntries(exposed) },
    }
  },
}

/** docker-py takes a mapping here, Docker a list. */
function toHostList(value: unknown): unknown {
  return isObject(value) ? Object.entries(value).map(([host, address]) => `${host}:${String(address)}`) : value
}

function readKind(path: string, kind: Kind, value: unknown): unknown {
  switch (kind) {
    case 'text':
      if (typeof value === 'string') return value
      if (typeof value === 'number') return String(value)
      throw fault(path, 'must be a text')
    case 'texts':
      if (Array.isArray(value) && value.every(item => typeof item === 'string')) return value
      throw fault(path, 'must be a list of texts')
    case 'command':
      if (typeof value === 'string') return [value]
      return readKind(path, 'texts', value)
    case 'flag':
      if (typeof value === 'boolean') return value
      throw fault(path, 'must be true or false')
    case 'count':
      if (Number.isInteger(Number(value)) && value !== '') return Number(value)
      throw fault(path, 'must be a whole number')
    case 'amount': {
      const amount = readAmount(value)
      if (amount === undefined) throw fault(path, 'must be bytes, or a number with b, k, m or g')
      return amount
    }
    case 'object':
      if (isObject(value)) return value
      throw fault(path, 'must be an object')
    case 'objects':
      if (Array.isArray(value) && value.every(isObject)) return value
      throw fault(path, 'must be a list of objects, as the API has them')
  }
}

function readAmount(value: unknown): number | undefined {
  const match = /^(\d+)\s*([bkmg]?)b?$/i.exec(String(value))
  const power = ['', 'k', 'm', 'g'].indexOf((match?.[2] ?? '').toLowerCase().replace('b', ''))
  return match?.[1] ? Number(match[1]) * 1024 ** power : undefined
}

function fault(path: string, what: string): InfrastructureError {
  return new InfrastructureError(`Field "${path}" of the docker-container block ${what}.`, { blame: 'run' })
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
