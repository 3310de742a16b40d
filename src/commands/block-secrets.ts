// Hides what may be secret in a block that is shown. The server masks what the type's schema calls a secret; free tables such
// as `settings` of remote-file-system hold credentials that no schema speaks of.

import { isTable } from '../config/settings-file.ts'

const MASK = '********'
// All of `headers`: which of them is a credential only the server knows. `acct` is FTP's third one, beside user and password.
const secretName =
  /secret|passw|passphrase|^pass$|pwd|^acct$|token|key|credential|connection_string|signature|sas\b|auth|cookie|headers$/i

/** The same with texts and numbers under telling names masked, and without passwords in addresses and connection strings. */
export function maskSecrets(data: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(data).map(([name, value]) => [name, mask(value, secretName.test(name))]))
}

function mask(value: unknown, isSecret: boolean): unknown {
  if (Array.isArray(value)) return value.map(item => mask(item, isSecret))
  if (isTable(value)) {
    return Object.fromEntries(
      Object.entries(value).map(([name, inner]) => [name, mask(inner, isSecret || secretName.test(name))]),
    )
  }
  if (typeof value === 'number') return isSecret ? MASK : value
  if (typeof value !== 'string' || value === '') return value
  return isSecret ? MASK : maskInText(value)
}

/** A login before the host, and what follows a telling name in a query (`?sig=…`) or a connection string (`;AccountKey=…`). */
function maskInText(text: string): string {
  return text
    .replace(/(:\/\/)[^/@\s]*@/g, `$1${MASK}@`)
    .replace(/(?<=^|[?&;\n])([^?&;=/\n]+)=([^&;\n]+)/g, (pair, name: string) =>
      name === 'sig' || secretName.test(name) ? `${name}=${MASK}` : pair,
    )
}
