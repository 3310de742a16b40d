// Speaks to a share through the system's `smbclient`, for no JavaScript library manages SMB3 with signing and encryption: it
// is given commands on its input, and what it prints is read.

import type { StorageContext } from './context.ts'
import { type ProgramCall, runProgram } from './program.ts'
import { findNetworkError } from './reachability.ts'
import { isTransient } from './retry.ts'
import { TransientError } from './source.ts'
import { StorageError } from './storage.ts'

const smbPort = 445

export interface SmbShare {
  readonly host: string
  readonly port: number | undefined
  readonly share: string
  readonly username: string | undefined
  readonly password: string | undefined
  readonly domain: string | undefined
  /** Demand encryption, also of a server that does not. */
  readonly encrypt: boolean
}

export class SmbClient {
  readonly #share: SmbShare
  readonly #context: StorageContext

  constructor(share: SmbShare, context: StorageContext) {
    this.#share = share
    this.#context = context
  }

  /** What it prints for these commands, one line each; failures of single commands are in the text. `hear` as in a ProgramCall. */
  async run(commands: readonly string[], signal: AbortSignal, hear?: ProgramCall['hear']): Promise<string> {
    const { host, port, share, encrypt } = this.#share
    for (const command of commands) checkLength(command)
    const { environment, home, meter } = this.#context
    if (meter) meter.requests += 1
    const protection = encrypt ? 'encrypt' : this.#share.username === undefined ? undefined : 'sign'
    const { exitCode, isTooMuch, output, errors } = await runProgram(
      {
        program: 'smbclient',
        arguments: [
          `//${host}/${share}`,
          // Not this machine's smb.conf: what it says is for a server.
          '--configfile=/dev/null',
          ...(port === undefined ? [] : [`--port=${port}`]),
          ...(this.#share.username === undefined ? ['--no-pass'] : []),
          // Signed at least: smbclient would go on as nobody when the password is wrong.
          ...(protection === undefined ? [] : [`--client-protection=${protection}`]),
        ],
        environment: {
          PATH: environment.PATH,
          HOME: home,
          TZ: 'UTC',
          LC_ALL: 'C.UTF-8',
          ...loginEnvironment(this.#share),
        },
        hear,
        input: `${commands.join('\n')}\n`,
        secrets: [this.#share.password ?? ''],
      },
      signal,
    )
    const text = output.toString('latin1')
    // What it has said until then looks like all of it.
    if (exitCode === undefined) {
      throw isTooMuch
        ? new StorageError(`smbclient says more than ${output.length} bytes of it`)
        : new TransientError('smbclient was ended by somebody else')
    }
    // It also ends with 1 when the last command has failed; that is told from the text.
    if (exitCode === 0 || text.includes('Try "help"')) return text
    const error = smbError('Connecting', `${errors}\n${Buffer.from(text, 'latin1').toString('utf8')}`)
    const cause = await findNetworkError({ host, port: port ?? smbPort }, signal)
    if (!cause) throw error
    throw isTransient(cause) ? new TransientError(error.message, { cause }) : new StorageError(error.message, { cause })
  }
}

/** It reads lines into so many bytes (BUFSIZ of glibc), and takes what is longer for a second command. */
const lineBytes = 8192

function checkLength(command: string): void {
  if (Buffer.byteLength(command) > lineBytes - 2)
    throw new StorageError(`smbclient takes no path as long as that in ${command.slice(0, 300)}…`)
}

/** Neither command line nor file; smbclient takes what follows a `%` in USER for the password. */
function loginEnvironment({ username, password, domain }: SmbShare): Record<string, string> {
  if (username === undefined) return {}
  if (username.includes('%'))
    throw new StorageError('There is a "%" in the name of the user, which smbclient cannot take')
  return { USER: domain === undefined ? username : `${domain}\\${username}`, PASSWD: password ?? '' }
}

/** What people may not know by heart. */
const meanings: Readonly<Record<string, string>> = {
  BAD_NETWORK_NAME: 'there is no such share',
  OBJECT_NAME_NOT_FOUND: 'not found',
  OBJECT_PATH_NOT_FOUND: 'not found',
  NO_SUCH_FILE: 'not found',
  NOT_A_DIRECTORY: 'it is a file, not a folder',
  LOGON_FAILURE: 'wrong user or password',
  ACCESS_DENIED: 'no right to it',
  SHARING_VIOLATION: 'somebody has it open for themselves',
}

const passing =
  /CONNECTION_(REFUSED|RESET|DISCONNECTED|ABORTED)|IO_TIMEOUT|HOST_UNREACHABLE|NETWORK_(UNREACHABLE|NAME_DELETED)|UNEXPECTED_NETWORK_ERROR|PIPE_DISCONNECTED|END_OF_FILE/

/** The line in which a command says that it failed. Where it says what it does, a file may be called anything. */
export function findFailure(said: string): string | undefined {
  return said.split('\n').find(line => line.includes('NT_STATUS_') && !/^(getting|putting) file /.test(line))
}

/** The error that the first NT_STATUS of a text stands for. */
export function smbError(what: string, text: string): StorageError | TransientError {
  const line = findFailure(text) ?? text
  const status = /NT_STATUS_(\w+)/.exec(line)?.[1] ?? ''
  const meaning = meanings[status]
  const said = line.trim().slice(0, 300) || 'smbclient said nothing'
  const sentence = `${what} failed${meaning === undefined ? '' : `, ${meaning}`} (${said})`
  return passing.test(status) ? new TransientError(sentence) : new StorageError(sentence)
}

/** A path of this machine, in quotes, for which smbclient has no other signs. */
export function quoteLocalPath(path: string): string {
  if (/["\n\r]/.test(path)) throw new StorageError(`smbclient cannot write to "${path}", for there are quotes in it`)
  return `"${path}"`
}

/** In quotes, which no name on a share can hold; nor can it hold control characters or what would be a pattern. */
export function quotePath(path: string): string {
  if (/["*?<>|:\\]|[^ -\uFFFF]/.test(path))
    throw new StorageError(`${JSON.stringify(path)} has characters that no name on an SMB share can have`)
  return `"${path.replaceAll('/', '\\')}"`
}
