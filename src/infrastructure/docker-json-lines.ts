// Reads the streams of JSON lines that an engine answers with: events, and the progress of a pull.

import type { Readable } from 'node:stream'

/** Lines of a stream of JSON lines; one of more than 1 MiB is no event and is dropped. */
export async function* readLines(stream: Readable): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of stream) {
    rest += decoder.decode(chunk, { stream: true })
    const lines = rest.split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) if (line.trim() !== '') yield line
    if (rest.length > 1_048_576) rest = ''
  }
  if (rest.trim() !== '') yield rest
}

/** Undefined for what is no JSON. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // Half a line of a stream that was cut: the reconciliation makes up for it.
    return undefined
  }
}
