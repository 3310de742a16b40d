// Takes a container's log stream apart into messages. Pure: chunks of bytes in, messages out.
//
// Without a terminal, Docker sends frames (one byte of stream, three of nothing, four of length) of one message each.
// With a terminal, it sends bare text. A message is a line, or a piece of 16 KiB of a longer one, and begins with the
// time at which the engine received it. Source: Docker Engine API, "Attach to a container", and moby's daemon/logger.
// Podman's messages are what was written at once: a line may come in pieces of any length (seen with 4.3).

export interface LogMessage {
  readonly stream: 'stdout' | 'stderr'
  /** `seconds.nanoseconds` since 1970, nine decimals, so that texts compare as times do. */
  readonly time: string
  readonly text: Buffer
  /** False for a piece of a line that goes on in this stream's next message. */
  readonly endsLine: boolean
}

/** moby's copier cuts longer lines into pieces of this many bytes; json-file may make one longer by repairing UTF-8. */
const pieceBytes = 16_384
const repairBytes = 16
/** More than any engine writes before the first space of a message. */
const longestTime = 64

export interface LogReader {
  /** Messages that are complete by now. */
  push(chunk: Buffer): LogMessage[]
  /** What is left when the stream has ended. */
  end(): LogMessage[]
}

export interface LogFormat {
  readonly hasTerminal: boolean
  readonly isPodman: boolean
}

export function createLogReader({ hasTerminal, isPodman }: LogFormat): LogReader {
  return hasTerminal ? new TerminalReader() : new FrameReader(isPodman)
}

class FrameReader implements LogReader {
  readonly #isPodman: boolean
  #parts: Buffer[] = []
  #bytes = 0

  constructor(isPodman: boolean) {
    this.#isPodman = isPodman
  }

  push(chunk: Buffer): LogMessage[] {
    this.#parts.push(chunk)
    this.#bytes += chunk.length
    const messages: LogMessage[] = []
    // Joined only when a frame may be complete, so that a long one is not copied with each chunk.
    let buffer = this.#bytes < this.#needed() ? undefined : Buffer.concat(this.#parts)
    if (!buffer) return messages
    while (buffer.length >= 8) {
      const end = 8 + buffer.readUInt32BE(4)
      if (buffer.length < end) break
      messages.push(readMessage(buffer[0] === 2 ? 'stderr' : 'stdout', buffer.subarray(8, end), this.#isPodman))
      buffer = buffer.subarray(end)
    }
    this.#parts = buffer.length > 0 ? [buffer] : []
    this.#bytes = buffer.length
    return messages
  }

  /** A frame that was cut in two by the end of the stream is asked for again by its time. */
  end(): LogMessage[] {
    return []
  }

  #needed(): number {
    const [first] = this.#parts
    return first && first.length >= 8 ? 8 + first.readUInt32BE(4) : 8
  }
}

class TerminalReader implements LogReader {
  #rest: Buffer = Buffer.alloc(0)

  push(chunk: Buffer): LogMessage[] {
    this.#rest = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    const messages: LogMessage[] = []
    for (;;) {
      const length = this.#findEnd()
      if (length === undefined) return messages
      messages.push(readMessage('stdout', this.#rest.subarray(0, length), false))
      this.#rest = this.#rest.subarray(length)
    }
  }

  end(): LogMessage[] {
    const rest = this.#rest
    this.#rest = Buffer.alloc(0)
    return rest.length > 0 ? [readMessage('stdout', rest, false)] : []
  }

  /** Length of the first message with its time, if it is complete: up to its line end, or to the next piece's time. */
  #findEnd(): number | undefined {
    const space = this.#rest.indexOf(0x20)
    const head = space < 0 || space > longestTime ? 0 : space + 1
    const newline = this.#rest.indexOf(0x0a, head)
    const longest = head + pieceBytes
    if (newline >= 0 && newline < longest) return newline + 1
    if (this.#rest.length < longest + repairBytes + longestTime) return newline >= 0 ? newline + 1 : undefined
    const nearby = this.#rest.toString('latin1', longest, longest + repairBytes + longestTime)
    const next = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(?:Z|[+-]\d\d:\d\d) /.exec(nearby)
    if (next && next.index <= repairBytes) return longest + next.index
    return newline >= 0 ? newline + 1 : undefined
  }
}

function readMessage(stream: 'stdout' | 'stderr', message: Buffer, hasShortPieces: boolean): LogMessage {
  const space = message.indexOf(0x20)
  const time = space > 0 && space <= longestTime ? toTime(message.toString('latin1', 0, space)) : undefined
  const text = time === undefined ? message : message.subarray(space + 1)
  const hasNewline = text.at(-1) === 0x0a
  // The `local` log driver loses the newline of a line that was cut into pieces; a piece is never shorter than 16 KiB.
  const endsLine = hasNewline || (text.length < pieceBytes && !hasShortPieces)
  return { stream, time: time ?? '', text: hasNewline ? text.subarray(0, -1) : text, endsLine }
}

/** `2026-11-24T04:26:03.445475723Z` as `1795494363.445475723`; undefined when it is no time. */
function toTime(text: string): string | undefined {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text)
  if (!match) return undefined
  const seconds = Date.parse(`${match[1]}${match[3]}`) / 1000
  return `${seconds}.${(match[2] ?? '').padEnd(9, '0')}`
}
