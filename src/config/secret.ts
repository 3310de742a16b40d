// A value that must not be seen: it shows as `***` wherever it is printed, and is read by calling `reveal`.

export class Secret<T> {
  readonly #value: T

  constructor(value: T) {
    this.#value = value
  }

  reveal(): T {
    return this.#value
  }

  toString(): string {
    return '***'
  }

  toJSON(): string {
    return '***'
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '***'
  }
}

/** Names of environment variables whose values are not for the eye, whoever made them up. */
const secretName = /KEY|SECRET|PASSWORD|PASSWD|TOKEN|AUTH|CREDENTIAL|CUSTOM_HEADERS|CONNECTION_URL|_PROXY$/

/**
 * Environment variables as a plain record, except that printing it (JSON or console) masks what looks secret.
 * Reading, spreading and `Object.entries` give the true values.
 */
export function maskWhenPrinted(env: Record<string, string>): Record<string, string> {
  const masked = () =>
    Object.fromEntries(
      Object.entries(env).map(([name, value]) => [name, secretName.test(name) ? '***' : maskUrl(value)]),
    )
  for (const name of ['toJSON', Symbol.for('nodejs.util.inspect.custom')]) {
    Object.defineProperty(env, name, { value: masked, enumerable: false })
  }
  return env
}

/** Takes user and password out of a URL; any other text is returned as it is. */
export function maskUrl(text: string): string {
  return text.replace(/^([a-z][a-z0-9+.-]*:\/\/)[^/@]*@/i, '$1***@')
}
