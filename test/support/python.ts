// A Python program that stays and answers, for what takes seconds of a processor to be imported: each line of JSON on its
// standard input is a question, each on its standard output the answer to it.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'

export interface Python extends AsyncDisposable {
  /** One question at a time. */
  ask(question: unknown): Promise<unknown>
}

export function startPython(
  python: string,
  program: string,
  options: { readonly cwd?: string; readonly env: NodeJS.ProcessEnv },
): Python {
  const child = spawn(python, [program], { ...options, stdio: ['pipe', 'pipe', 'inherit'] })
  const closed = once(child, 'close')
  const answers = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  return {
    async ask(question) {
      child.stdin.write(`${JSON.stringify(question)}\n`)
      const { value, done } = await answers.next()
      if (done) throw new Error(`${program} ended without an answer`)
      return JSON.parse(value)
    },
    async [Symbol.asyncDispose]() {
      child.stdin.end()
      await closed
    },
  }
}
