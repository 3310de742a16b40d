// The examples of docs/storage.md by `rigel fetch` against the real servers: what stands there is what works. Of each example only
// values are changed, and a port is added where a test server has another one than the world.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import test from 'node:test'
import { fileURLToPath } from 'node:url'
import { isTable } from '../../src/config/settings-file.ts'
import { runCli } from '../commands/support.ts'
import { readTree } from '../storage/support.ts'
import { makeDirectory } from '../support/directory.ts'
import { needs } from '../support/requires.ts'
import { blocks, protocols, type Real } from './docs-rows.ts'

const page = readFileSync(fileURLToPath(new URL('../../docs/storage.md', import.meta.url)), 'utf8')

/** There is one github.com. */
const elsewhere = ['github://org:repo@main/flows']

/** The cells of the rows below the head that begins so. */
function readRows(head: string): readonly (readonly string[])[] {
  const table = page.slice(page.indexOf(head)).split('\n\n')[0] ?? ''
  return table
    .split('\n')
    .slice(2)
    .map(line =>
      line
        .split('|')
        .slice(1, -1)
        .map(cell => cell.trim()),
    )
}

async function check(slug: string, example: string, { values, added, settings, environment = {} }: Real) {
  await using directory = await makeDirectory()
  let text = example
  for (const [from, to] of Object.entries(values)) {
    assert.ok(text.includes(from), `the example no longer has ${from}`)
    text = text.replaceAll(from, () => to)
  }
  const data: unknown = JSON.parse(text)
  assert.ok(isTable(data))
  const own = isTable(data.settings) ? data.settings : {}
  const block = { ...data, ...added, ...(settings ? { settings: { ...own, ...settings } } : {}) }
  await writeFile(join(directory.path, 'block.json'), JSON.stringify({ block_type_slug: slug, data: block }))
  const env = {
    ...environment,
    PREFECT_HOME: join(directory.path, 'prefect'),
    RIGEL_CACHE_DIR: join(directory.path, 'cache'),
  }
  const { code, stderr } = await runCli(['fetch', 'to', '--block-file', 'block.json'], { env, cwd: directory.path })
  assert.equal(code, 0, stderr)
  const names = Object.keys(await readTree(join(directory.path, 'to'))).map(path => path.split('/').at(-1))
  assert.ok(names.includes('flow.py'), names.join())
}

const blockRows = readRows('| block type |')
const protocolRows = readRows('| protocol of')

test('the page has an example of each block type and each protocol that is tried here', () => {
  assert.deepEqual(blockRows.map(([slug = '']) => slug.replaceAll('`', '')).toSorted(), Object.keys(blocks).toSorted())
  const addresses = protocolRows.flatMap(([, example = '']) => /`([^`]+)`/.exec(example)?.[1] ?? [])
  assert.deepEqual(addresses.toSorted(), [...Object.keys(protocols), ...elsewhere].toSorted())
})

for (const [cell = '', , example = ''] of blockRows) {
  const slug = cell.replaceAll('`', '')
  const row = blocks[slug]
  if (!row) continue
  test(`the example of ${slug} works`, needs(...(row.requirement ? [row.requirement] : [])), async () => {
    await using stack = new AsyncDisposableStack()
    const { path } = stack.use(await makeDirectory())
    await check(slug, example.replaceAll('`', ''), await row.open(path, stack))
  })
}

for (const [, cell = '', names = ''] of protocolRows) {
  const address = /`([^`]+)`/.exec(cell)?.[1] ?? ''
  const row = protocols[address]
  if (!row) continue
  test(
    `the example ${address} works, with settings that its row names`,
    needs(...(row.requirement ? [row.requirement] : [])),
    async () => {
      await using stack = new AsyncDisposableStack()
      const { path } = stack.use(await makeDirectory())
      const real = await row.open(path, stack)
      for (const name of Object.keys(real.settings ?? {}))
        assert.ok(names.includes(`\`${name}\``) || names.includes(`"${name}"`), name)
      await check('remote-file-system', JSON.stringify({ basepath: address }), real)
    },
  )
}
