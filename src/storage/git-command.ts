// Runs git for one repository: never a question to a person, credentials only to the host that they are for, failures told
// apart by git's own words.

import type { StorageContext } from './context.ts'
import type { GitAddress } from './git-login.ts'
import { runProgram } from './program.ts'
import { type Endpoint, findNetworkError } from './reachability.ts'
import { isTransient } from './retry.ts'
import { TransientError } from './source.ts'
import { StorageError } from './storage.ts'

/** Older ones pass over GIT_CONFIG_COUNT, so over the login, without a word. */
const neededVersion = '2.31'

/** Variables that would let git work on another repository than the one it is told. */
const foreign =
  /^GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|NAMESPACE|PREFIX|COMMON_DIR|TRACE.*)$/

/** Said anew by `proxyEnvironment`. */
const proxyVariable = /^(https?|all|no)_proxy$/i

/**
 * A credential helper that reads two variables. Not an extra header: git would send that on to a host that it is
 * redirected to, while a helper is asked anew for each host.
 */
const helper = `!f() { test "$1" = get && printf 'username=%s\\npassword=%s\\n' "$RIGEL_GIT_USERNAME" "$RIGEL_GIT_PASSWORD"; }; f`

export class Git {
  readonly #address: GitAddress
  readonly #environment: Readonly<Record<string, string | undefined>>
  readonly #meter: StorageContext['meter']

  constructor(address: GitAddress, context: StorageContext) {
    this.#address = address
    this.#environment = buildEnvironment(address, context)
    this.#meter = context.meter
  }

  /** Output of a command that works on this machine only. */
  async local(directory: string, words: readonly string[], signal: AbortSignal): Promise<string> {
    const { login } = this.#address
    const secrets = login ? [login.password || login.username, basicForm(login)] : []
    const call = { program: 'git', arguments: words, environment: this.#environment, directory, secrets }
    const { exitCode, output, errors } = await runProgram(call, signal)
    if (exitCode === 0) return output.toString('utf8')
    throw await this.#failure(words, errors, signal)
  }

  /** Output of a command that asks the server. */
  async remote(directory: string, words: readonly string[], signal: AbortSignal): Promise<string> {
    if (this.#meter) this.#meter.requests += 1
    return this.local(directory, words, signal)
  }

  async #failure(words: readonly string[], errors: string, signal: AbortSignal): Promise<Error> {
    const said = readWords(errors) || 'it said nothing'
    // Git asks for a name when the server has said 401, and again when it has refused what the helper gave.
    const refused = /could not read (Username|Password)/.test(said) ? ': the server asks for credentials (401)' : ''
    const sentence = `git ${words.find(word => !word.startsWith('-')) ?? ''} failed${refused} (${said})`
    // What a server says must neither send us anywhere nor empty the cache.
    const own = errors.replaceAll(/^remote:.*$/gm, '')
    const full = readFullDisk(own)
    if (full) return new StorageError(sentence, { blame: 'host', cause: full })
    const endpoint = findUnreached(own)
    const cause = endpoint && (await findNetworkError(endpoint, signal))
    if (cause && !isTransient(cause)) return new StorageError(sentence, { cause })
    if (endpoint || isPassing(said)) return new TransientError(sentence, { cause })
    const old = await this.#findOldVersion(signal)
    return new StorageError(
      old === undefined ? sentence : `${sentence}; git ${old} is too old, ${neededVersion} or newer is needed`,
    )
  }

  /** Undefined when git is new enough, or does not say. Asked anew each time, for somebody may have seen to it. */
  async #findOldVersion(signal: AbortSignal): Promise<string | undefined> {
    const call = { program: 'git', arguments: ['--version'], environment: this.#environment }
    const { output } = await runProgram(call, signal)
    const [, version, major, minor] = /(([0-9]+)\.([0-9]+)[0-9.]*)/.exec(output.toString('utf8')) ?? []
    return Number(major) * 1000 + Number(minor) < 2031 ? version : undefined
  }
}

const passing = [
  /Connection (refused|reset|timed out|closed)|Operation timed out/i,
  /requested URL returned error: (408|429|5\d\d)|HTTP (408|429|5\d\d)/,
  /early EOF|RPC failed|unexpected disconnect|remote end hung up|transfer closed|bytes\/sec.*too slow|Empty reply/i,
]

function isPassing(words: string): boolean {
  if (/Permission denied|Host key verification failed|not found|does not exist/i.test(words)) return false
  return passing.some(pattern => pattern.test(words))
}

/** What curl, ssh and git itself say of a host that they did not reach; only git's own protocol leaves out the port. */
const unreached: readonly { readonly words: RegExp; readonly port?: number }[] = [
  { words: /Could not resolve (?:host|proxy): (?<host>[^\s;]+)/ },
  { words: /Failed to connect to (?<host>\S+) port (?<port>\d+)/ },
  { words: /Could not resolve hostname (?<host>[^\s:]+)/ },
  { words: /connect to host (?<host>\S+) port (?<port>\d+): / },
  { words: /unable to look up (?<host>\S+) \(/ },
  { words: /unable to connect to (?<host>[^\s:]+):/, port: 9418 },
]

/** The repository's host, a proxy, a submodule's host, one on ssh's way. */
function findUnreached(own: string): Endpoint | undefined {
  for (const { words, port: usual } of unreached) {
    const { host, port } = words.exec(own)?.groups ?? {}
    if (host) return { host, port: port === undefined ? usual : Number(port) }
  }
  return undefined
}

/** The error that git has met and put into words, with its code. */
function readFullDisk(own: string): Error | undefined {
  const words = /: (No space left on device|Disk quota exceeded)$/m.exec(own)?.[1]
  if (words === undefined) return undefined
  return Object.assign(new Error(words), { code: words.startsWith('Disk') ? 'EDQUOT' : 'ENOSPC' })
}

/** What is worth telling: git's and the server's own lines, without progress and advice. */
function readWords(errors: string): string {
  const lines = errors
    .split(/[\r\n]+/)
    .map(line => line.trim())
    .filter(
      line =>
        line !== '' &&
        !/^(hint:|Cloning into|warning: redirecting)|^(remote: )?(Enumerating|Counting|Compressing|Total)\b/.test(line),
    )
  return lines.join('; ').slice(0, 600)
}

function basicForm({ username, password }: { username: string; password: string }): string {
  return Buffer.from(`${username}:${password}`).toString('base64')
}

function buildEnvironment({ url, login }: GitAddress, context: StorageContext): Record<string, string | undefined> {
  const own = Object.fromEntries(
    Object.entries(context.environment).filter(([name]) => !foreign.test(name) && !proxyVariable.test(name)),
  )
  const config: [string, string][] = [
    // A server that sends less than a byte a second for half a minute has gone.
    ['http.lowSpeedLimit', '1'],
    ['http.lowSpeedTime', '30'],
    ['advice.detachedHead', 'false'],
    ['core.logAllRefUpdates', 'false'],
    ['gc.auto', '0'],
    ['maintenance.auto', 'false'],
  ]
  if (login) {
    // The empty one takes away the helpers of this machine: it is this login or none.
    config.push([`credential.${new URL(url).origin}.helper`, ''], [`credential.${new URL(url).origin}.helper`, helper])
  }
  const first = Number(own.GIT_CONFIG_COUNT) || 0
  const settings = config.flatMap(([key, value], at) => [
    [`GIT_CONFIG_KEY_${first + at}`, key],
    [`GIT_CONFIG_VALUE_${first + at}`, value],
  ])
  return {
    HOME: context.home,
    ...own,
    ...proxyEnvironment(context),
    ...Object.fromEntries(settings),
    GIT_CONFIG_COUNT: String(first + config.length),
    GIT_TERMINAL_PROMPT: '0',
    GIT_ASKPASS: '',
    GIT_LITERAL_PATHSPECS: '1',
    // English, for `isPassing` and `findUnreached`.
    LC_ALL: 'C.UTF-8',
    LANGUAGE: '',
    GIT_SSH_COMMAND:
      own.GIT_SSH_COMMAND || own.GIT_SSH ? own.GIT_SSH_COMMAND : 'ssh -o BatchMode=yes -o ConnectTimeout=10',
    ...(login ? { RIGEL_GIT_USERNAME: login.username, RIGEL_GIT_PASSWORD: login.password } : {}),
  }
}

/** In small letters: curl takes no `HTTP_PROXY`. A proxy of git's own settings goes before these. */
function proxyEnvironment({ proxies }: StorageContext): Record<string, string | undefined> {
  return { http_proxy: proxies.http, https_proxy: proxies.https, all_proxy: proxies.all, no_proxy: proxies.no }
}
