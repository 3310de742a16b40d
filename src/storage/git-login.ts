// Who git is to be: credentials apart from the address, so that they are in no command line, no .git/config and no message.

import { StorageError } from './storage.ts'

export interface GitLogin {
  /** For people, such as `access token of the block`. */
  readonly kind: string
  readonly username: string
  readonly password: string
}

export interface GitAddress {
  /** Without credentials. */
  readonly url: string
  readonly login: GitLogin | undefined
}

/** The forms that `git clone` takes: `https://host/x.git`, `ssh://user@host/x.git`, `user@host:x.git`, a path. */
const scheme = /^([a-z][a-z0-9+.-]*):\/\//i

/**
 * Takes credentials out of an address that holds them (`https://token@host/…`); those that are given beside it go first.
 * Throws a StorageError for what git would not take, or would take for an option or a program.
 */
export function readGitAddress(text: string, login: GitLogin | undefined, secureOnly = false): GitAddress {
  const kind = scheme.exec(text)?.[1]?.toLowerCase()
  if (text === '' || text.startsWith('-') || /[\0\n\r]/.test(text) || /^[a-z0-9+.-]+::/i.test(text)) {
    throw new StorageError('The address of the repository is not one that git takes')
  }
  if (kind !== 'http' && kind !== 'https') {
    if (login) throw new StorageError(`${upperFirst(login.kind)}: it can only be used with a repository at https://`)
    if (kind !== undefined) refusePassword(parseUrl(text))
    return { url: text, login: undefined }
  }
  const url = parseUrl(text)
  if (login && secureOnly && kind !== 'https') {
    throw new StorageError(`${upperFirst(login.kind)}: it can only be used with a repository at https://`)
  }
  const own = url.username || url.password ? loginOfUrl(url) : undefined
  url.username = ''
  url.password = ''
  return { url: own ? url.href : text, login: checkLogin(login ?? own) }
}

function parseUrl(text: string): URL {
  const url = URL.parse(text)
  // It is not shown: a password in it may be why.
  if (!url) throw new StorageError('The address of the repository is not a URL')
  return url
}

/** Git would hand it on in a command line, and ssh does not even take one. */
function refusePassword({ password }: URL): void {
  if (password === '') return
  throw new StorageError('The address of the repository holds a password, which only one at https:// can be given')
}

function loginOfUrl({ username, password }: URL): GitLogin {
  return {
    kind: "credentials in the repository's address",
    username: decode(username),
    password: decode(password),
  }
}

/** What people paste is often not encoded, and then a lone `%` is a character of it. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** The protocol of credential helpers has one value on a line. */
function checkLogin(login: GitLogin | undefined): GitLogin | undefined {
  if (login && /[\0\n\r]/.test(login.username + login.password)) {
    throw new StorageError(`${upperFirst(login.kind)}: there is a line break in it`)
  }
  return login
}

/** `user:token`, or a token that takes the user's place as GitHub reads it, or comes with the host's fixed user. */
export function loginOfToken(kind: string, token: string | null | undefined, user?: string): GitLogin | undefined {
  if (!token) return undefined
  const colon = token.indexOf(':')
  if (colon > 0) return { kind, username: token.slice(0, colon), password: token.slice(colon + 1) }
  return user === undefined ? { kind, username: token, password: '' } : { kind, username: user, password: token }
}

function upperFirst(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}
