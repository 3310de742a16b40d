// Cuts bytes into lines of bounded length without ever cutting a UTF-8 character in two. Pure.

/** Bytes; a longer line is delivered in pieces of at most this size. */
export const LONGEST_LINE = 64 * 1024

export interface Lines {
  readonly lines: readonly string[]
  /** How many bytes of the input they are made of. */
  readonly consumed: number
}

/**
 * Takes the whole lines at the start of `bytes`, without line ends. What has no line end yet is left for later, unless
 * `bytes` is as long as a line may be (a piece is taken) or `atEnd` says that nothing will follow.
 */
export function splitLines(bytes: Buffer, atEnd: boolean): Lines {
  const end = bytes.lastIndexOf(0x0a)
  if (end >= 0 && !atEnd) return { lines: decodeLines(bytes.subarray(0, end)), consumed: end + 1 }
  if (atEnd) {
    const isFinished = end >= 0 && end === bytes.length - 1
    const lines = bytes.length === 0 ? [] : decodeLines(isFinished ? bytes.subarray(0, end) : bytes)
    return { lines, consumed: bytes.length }
  }
  if (bytes.length < LONGEST_LINE) return { lines: [], consumed: 0 }
  const consumed = wholeCharacters(bytes)
  return { lines: [bytes.toString('utf8', 0, consumed)], consumed }
}

function decodeLines(bytes: Buffer): readonly string[] {
  return bytes
    .toString('utf8')
    .split('\n')
    .map(line => (line.endsWith('\r') ? line.slice(0, -1) : line))
}

/** Length of `bytes` without a character at its end that is not complete. */
function wholeCharacters(bytes: Buffer): number {
  for (let back = 1; back <= 4; back += 1) {
    const byte = bytes[bytes.length - back] ?? 0
    if ((byte & 0xc0) === 0x80) continue // In the middle of a character: its first byte is further to the left.
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1
    return length > back ? bytes.length - back : bytes.length
  }
  return bytes.length // Not UTF-8 at all.
}
