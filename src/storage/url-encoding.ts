// Percent-encoding as signatures need it: exactly one way to write each character.

/** RFC 3986: everything but unreserved characters, also what encodeURIComponent leaves alone. */
export function encodePart(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    character => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}

export function encodePath(path: string): string {
  return path.split('/').map(encodePart).join('/')
}

/** Encoded and sorted by encoded name. */
export function encodeQuery(parameters: Readonly<Record<string, string>>): string {
  return Object.entries(parameters)
    .map(([name, value]) => `${encodePart(name)}=${encodePart(value)}`)
    .toSorted()
    .join('&')
}
