// Puts the pieces of a container's long lines, and characters that lie across two pieces, together again. Pure.

import type { LogMessage } from './docker-log-frames.ts'

/** Longer lines arrive split. Counted in bytes. */
const longestLineBytes = 1_048_576

type Stream = LogMessage['stream']
const streams: readonly Stream[] = ['stdout', 'stderr']

/** Bytes of a character that the end of a split line has left over, per stream, in base64. */
export type Carry = Readonly<Record<Stream, string>>

export class LineJoiner {
  readonly #pieces: Record<Stream, Buffer[]> = { stdout: [], stderr: [] }
  readonly #bytes: Record<Stream, number> = { stdout: 0, stderr: 0 }
  readonly #carry: Record<Stream, Buffer> = { stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) }

  /** A line has begun that is not given out yet. */
  get isOpen(): boolean {
    return this.#bytes.stdout + this.#bytes.stderr > 0
  }

  get carry(): Carry {
    return { stdout: this.#carry.stdout.toString('base64'), stderr: this.#carry.stderr.toString('base64') }
  }

  /** The lines that are complete with this message: none or one. */
  add({ stream, text, endsLine }: LogMessage): string[] {
    if (endsLine && this.#bytes[stream] === 0 && this.#carry[stream].length === 0) return [toLine(text)]
    this.#pieces[stream].push(text)
    this.#bytes[stream] += text.length
    if (endsLine) return [this.#close(stream, false)]
    return this.#bytes[stream] < longestLineBytes ? [] : [this.#close(stream, true)]
  }

  /** Gives out what is there of each line. `goesOn`: the rest will follow, so half a character is kept for it. */
  flush(goesOn: boolean): string[] {
    const open = streams.filter(stream => this.#bytes[stream] > 0 || (!goesOn && this.#carry[stream].length > 0))
    return open.map(stream => this.#close(stream, goesOn))
  }

  /** Forgets pieces: the stream is read again from a position that lies before them. */
  reset(carry: Carry): void {
    for (const stream of streams) {
      this.#pieces[stream] = []
      this.#bytes[stream] = 0
      this.#carry[stream] = Buffer.from(carry[stream], 'base64')
    }
  }

  #close(stream: Stream, goesOn: boolean): string {
    const line = Buffer.concat([this.#carry[stream], ...this.#pieces[stream]])
    const end = goesOn ? line.length - halfCharacterBytes(line) : line.length
    this.#carry[stream] = Buffer.from(line.subarray(end))
    this.#pieces[stream] = []
    this.#bytes[stream] = 0
    return toLine(line.subarray(0, end))
  }
}

/** A terminal ends lines with a carriage return as well. */
function toLine(text: Buffer): string {
  return (text.at(-1) === 0x0d ? text.subarray(0, -1) : text).toString('utf8')
}

/** How many bytes at the end are the beginning of a UTF-8 character whose rest is missing: 0 to 3. */
function halfCharacterBytes(text: Buffer): number {
  for (let back = 1; back <= Math.min(3, text.length); back++) {
    const byte = text[text.length - back] ?? 0
    if (byte < 0x80) return 0
    if (byte >= 0xc0) return (byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2) > back ? back : 0
  }
  return 0
}
