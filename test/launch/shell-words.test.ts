import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import test from 'node:test'

import * as fc from 'fast-check'

import { LaunchError } from '../../src/launch/errors.ts'
import { splitWords } from '../../src/launch/shell-words.ts'

const table: [line: string, words: string[]][] = [
  ['', []],
  ['  ./job.sh \t --daily\n', ['./job.sh', '--daily']],
  [`'a b' "c d" e\\ f`, ['a b', 'c d', 'e f']],
  [`a'b'"c"d`, ['abcd']],
  [`'' ""`, ['', '']],
  [`"a\\"b" "a\\nb" 'a\\nb'`, ['a"b', 'a\\nb', 'a\\nb']],
  [`"\\$HOME" '$HOME'`, ['$HOME', '$HOME']],
  ['a\\\nb "c\\\nd"', ['ab', 'cd']],
  ['echo $HOME * a|b >c #d && e', ['echo', '$HOME', '*', 'a|b', '>c', '#d', '&&', 'e']],
]

for (const [line, words] of table) {
  test(`${JSON.stringify(line)} splits into ${words.length} words`, () => {
    assert.deepEqual(splitWords(line), words)
  })
}

for (const line of [`a 'b`, 'a "b', 'a "b\\"', 'a\\', 'a\0b']) {
  test(`${JSON.stringify(line)} is refused`, () => {
    assert.throws(() => splitWords(line), LaunchError)
  })
}

const text = fc.string({ unit: fc.constantFrom(...`ab '"\\$\`\n\t*#~é`.split('')), maxLength: 8 })

test('words that are quoted in single quotes come back whole', () => {
  fc.assert(
    fc.property(fc.array(text), words => {
      const line = words.map(word => `'${word.replaceAll("'", String.raw`'\''`)}'`).join(' ')
      assert.deepEqual(splitWords(line), words)
    }),
  )
})

test('words that are quoted in double quotes or by backslashes come back whole', () => {
  fc.assert(
    fc.property(fc.array(text), fc.boolean(), (words, inQuotes) => {
      const quoted = words.map(word => {
        if (inQuotes) return `"${word.replaceAll(/[$`"\\]/g, '\\$&')}"`
        return word === '' ? "''" : word.replaceAll(/[^\n]/g, '\\$&').replaceAll('\n', "'\n'")
      })
      assert.deepEqual(splitWords(quoted.join(' ')), words)
    }),
  )
})

test('a real shell splits quoted words in the same way', () => {
  const pieces = fc.constantFrom(`'`, `"`, 'a', ' ', '\\', '\n', `'b c'`, `"d e"`, '\\ ')
  fc.assert(
    fc.property(fc.array(pieces, { maxLength: 10 }), parts => {
      const line = parts.join('')
      let words: string[]
      try {
        words = splitWords(line)
      } catch {
        return
      }
      // `set -- LINE` in a real shell; a line end would end the command there, and one behind a backslash would vanish: it
      // stands in quotes only, and an escaped quote begins none.
      fc.pre(!/\n/.test(line.replaceAll(/\\[^\n]|'[^']*'|"(?:\\[^\n]|[^"\\])*"/g, '')))
      const script = `set -- ${line}\nfor word do printf '%s\\0' "$word"; done`
      const out = execFileSync('/bin/sh', ['-c', script], { encoding: 'utf8', env: {} })
      assert.deepEqual(out.split('\0').slice(0, -1), words)
    }),
    { numRuns: 60 },
  )
})
