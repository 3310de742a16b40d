// Takes a pod's log stream apart into messages. Pure: chunks of bytes in, messages out.
//
// With `timestamps=true` each line begins with the time at which the container runtime received it, and the kubelet puts
// the pieces of long lines together again, so a message is a line. Source: kubelet pkg/kubelet/kuberuntime/logs.

export interface LogLine {
  /** `seconds.nanoseconds` since 1970, nine decimals, so that texts compare as times do. */
  readonly time: string
  readonly text: string
}

/** Longer lines arrive split. */
const longestLineBytes = 1_048_576
/** More than a time takes. */
const longestTime = 40

export class LogLineReader {
  #pieces: Buffer[] = []
  #bytes = 0
  /** Of a line whose beginning was given out already. */
  #openTime: string | undefined

  /** Lines that are complete by now. */
  push(chunk: Buffer): LogLine[] {
    const lines: LogLine[] = []
    let rest = chunk
    for (;;) {
      const end = rest.indexOf(0x0a)
      if (end < 0) break
      this.#keep(rest.subarray(0, end))
      lines.push(this.#close(true))
      rest = rest.subarray(end + 1)
    }
    this.#keep(rest)
    if (this.#bytes >= longestLineBytes) lines.push(this.#close(false))
    return lines
  }

  /** What is left when the stream has ended. */
  end(): LogLine[] {
    return this.#bytes > 0 ? [this.#close(true)] : []
  }

  #keep(piece: Buffer): void {
    if (piece.length === 0) return
    this.#pieces.push(piece)
    this.#bytes += piece.length
  }

  #close(isWhole: boolean): LogLine {
    const line = Buffer.concat(this.#pieces)
    this.#pieces = []
    this.#bytes = 0
    const cut = isWhole ? line.length : wholeCharacters(line)
    if (cut < line.length) this.#keep(Buffer.from(line.subarray(cut)))
    const space = this.#openTime === undefined ? line.indexOf(0x20) : -1
    const found = space > 0 && space <= longestTime ? toTime(line.toString('latin1', 0, space)) : undefined
    const time = this.#openTime ?? found ?? ''
    const from = found === undefined ? 0 : space + 1
    this.#openTime = isWhole ? undefined : time
    const end = line[cut - 1] === 0x0d && isWhole ? cut - 1 : cut
    return { time, text: line.toString('utf8', from, Math.max(from, end)) }
  }
}

/** Length without the beginning of a UTF-8 character at the end whose rest is missing. */
function wholeCharacters(line: Buffer): number {
  for (let back = 1; back <= Math.min(3, line.length); back++) {
    const byte = line[line.length - back] ?? 0
    if (byte < 0x80) return line.length
    if (byte >= 0xc0) return (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) > back ? line.length - back : line.length
  }
  return line.length
}

/** `2026-11-24T04:26:03.445475723Z` as `1795494363.445475723`; undefined when it is no time. */
function toTime(text: string): string | undefined {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text)
  if (!match) return undefined
  return `${Date.parse(`${match[1]}${match[3]}`) / 1000}.${(match[2] ?? '').padEnd(9, '0')}`
}

/** A time of ours for the API's `sinceTime`, which knows whole seconds only: the second in which it lies. */
export function toSinceTime(time: string): string {
  return new Date(Number(time.split('.')[0]) * 1000).toISOString()
}
