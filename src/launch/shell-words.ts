// Splits a line into words by the quoting rules of the POSIX shell, without being a shell.
//
// `$`, `*`, `|`, `>` and `#` are ordinary characters here: nothing is expanded, nothing can be injected.

import { LaunchError } from './errors.ts'

/** `a 'b c' "d \"e\"" f\ g` gives four words. Throws a LaunchError for an open quote or a backslash at the end. */
export function splitWords(line: string): string[] {
  if (line.includes('\0')) throw new LaunchError('A command cannot hold a NUL character.')
  const words: string[] = []
  let word: string | undefined
  for (let at = 0; at < line.length; ) {
    const char = line.charAt(at)
    if (/[ \t\r\n]/.test(char)) {
      if (word !== undefined) words.push(word)
      word = undefined
      at += 1
      continue
    }
    const [text, length] = readPiece(line, at)
    word = (word ?? '') + text
    at += length
  }
  if (word !== undefined) words.push(word)
  return words
}

/** The piece of a word that begins at `at`, without its quotes, and how many characters of the line it takes. */
function readPiece(line: string, at: number): [text: string, length: number] {
  const char = line.charAt(at)
  if (char === "'") {
    const end = line.indexOf("'", at + 1)
    if (end < 0) throw unclosed(line, char)
    return [line.slice(at + 1, end), end + 1 - at]
  }
  if (char === '"') return readDoubleQuoted(line, at)
  if (char !== '\\') return [char, 1]
  if (at + 1 === line.length) throw new LaunchError('The command ends with a backslash that escapes nothing.')
  // A backslash before a line end joins the lines, as in a shell.
  return [line.charAt(at + 1) === '\n' ? '' : line.charAt(at + 1), 2]
}

function readDoubleQuoted(line: string, start: number): [text: string, length: number] {
  let text = ''
  for (let at = start + 1; at < line.length; at += 1) {
    const char = line.charAt(at)
    if (char === '"') return [text, at + 1 - start]
    const next = line.charAt(at + 1)
    if (char === '\\' && next !== '' && '$`"\\\n'.includes(next)) {
      if (next !== '\n') text += next
      at += 1
    } else {
      text += char
    }
  }
  throw unclosed(line, '"')
}

function unclosed(line: string, quote: string): LaunchError {
  return new LaunchError(`The command ${JSON.stringify(line)} opens a ${quote} quote and does not close it.`)
}
