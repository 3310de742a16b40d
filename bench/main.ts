// The bench: Prefect 2.20.25's own agent and ours, side by side, as one table.
//
//   npm run bench [-- start idle calls share burst instant spawn]     BENCH_IDLE_MINUTES=10 for the table in docs
//
// Rows by name, all of these when none is named. `spawn`, `storage` and `docker` are programs of their own, run as they
// are. Figures, not tests: the machine and whatever else it does decide, so the load stands beside each group.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import process from 'node:process'
import { buildMarkdown, describeMachine, type Row, readLoad } from './figures.ts'
import { Ground } from './ground.ts'
import { measureBurst } from './row-burst.ts'
import { measureCalls } from './row-calls.ts'
import { measureIdle } from './row-idle.ts'
import { measureInstant } from './row-instant.ts'
import { measureShare } from './row-share.ts'
import { measureStart } from './row-start.ts'

const groups: Readonly<Record<string, (ground: Ground) => Promise<readonly Row[]>>> = {
  start: measureStart,
  idle: measureIdle,
  calls: measureCalls,
  share: measureShare,
  burst: measureBurst,
  instant: ground => measureInstant(ground.packed),
}
const programs = ['spawn', 'storage', 'docker']

const asked = process.argv.slice(2)
const unknown = asked.filter(name => !(name in groups) && !programs.includes(name))
if (unknown.length > 0) {
  console.error(`There is no row ${unknown.join(', ')}; there are ${[...Object.keys(groups), ...programs].join(', ')}.`)
  process.exitCode = 2
} else {
  console.log(describeMachine())
  await measureRows(asked.length > 0 ? asked : [...Object.keys(groups), 'spawn'])
}

async function measureRows(names: readonly string[]): Promise<void> {
  const rows: Row[] = []
  const loads: string[] = []
  const own = names.filter(name => name in groups)
  if (own.length > 0) {
    await using ground = await Ground.open()
    for (const name of own) {
      const before = readLoad()
      try {
        const found = (await groups[name]?.(ground)) ?? []
        rows.push(...found)
        for (const { what, prefect, rigel, target } of found) console.log(`${what}: ${prefect} | ${rigel} | ${target}`)
      } catch (error) {
        // The other rows are worth having all the same; that one is missing is said, and the exit code tells.
        console.error(`${name} could not be measured:`, error)
        process.exitCode = 1
      }
      loads.push(`${name} ${before} to ${readLoad()}`)
    }
  }
  if (rows.length > 0) console.log(`\n${buildMarkdown(rows)}\n\nload average: ${loads.join(', ')}`)
  for (const name of names.filter(name => programs.includes(name))) await runProgram(name)
}

async function runProgram(name: string): Promise<void> {
  const file = join(import.meta.dirname, `${name}.ts`)
  if (!existsSync(file)) return console.log(`\n${name}: this checkout has no ${name}.ts beside main.ts`)
  console.log(`\n${name} (load average ${readLoad()}):`)
  const child = spawn(process.execPath, [file], { stdio: 'inherit' })
  const [code] = await once(child, 'exit')
  if (code !== 0) process.exitCode = 1
}
