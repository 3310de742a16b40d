// The package as users run it: compiled JavaScript, with the packages of this checkout.

import { constants, copyFile, cp, mkdtemp, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { run } from '../test/support/run.ts'

const root = join(import.meta.dirname, '..')

export interface Packed extends AsyncDisposable {
  /** The command's file, to be run by node. */
  readonly rigel: string
  /**
   * A copy of this Node. PSS divides what processes share of a file's pages among them: with one binary for all, the bench
   * and its neighbours would pay for half of the agent's.
   */
  readonly node: string
}

/** Compiles into a folder of its own: `dist` of the checkout may be in use, or be made anew, meanwhile. */
export async function buildPacked(): Promise<Packed> {
  const folder = await mkdtemp(join(tmpdir(), 'rigel-packed-'))
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true })
  try {
    const compiler = join(root, 'node_modules', '.bin', 'tsc')
    const built = await run(compiler, ['-p', join(root, 'tsconfig.build.json'), '--outDir', join(folder, 'dist')], {
      cwd: root,
    })
    if (built.code !== 0) throw new Error(`Could not compile the sources:\n${built.stdout}${built.stderr}`)
    // Scripts, pages and so on, which the sources find beside themselves.
    await cp(join(root, 'src'), join(folder, 'dist'), { recursive: true, filter: isAsset })
    for (const name of ['bin', 'config', 'package.json'])
      await cp(join(root, name), join(folder, name), { recursive: true })
    const node = join(folder, 'node')
    await copyFile(process.execPath, node, constants.COPYFILE_FICLONE)
    await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
    return { rigel: join(folder, 'bin', 'rigel.js'), node, [Symbol.asyncDispose]: remove }
  } catch (error) {
    await remove()
    throw error
  }
}

function isAsset(path: string): boolean {
  return !path.endsWith('.ts')
}
