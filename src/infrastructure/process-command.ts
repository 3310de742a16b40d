// Finds what a command would start, before it is started, so that "not found" can say where it was looked for.
//
// In: the command's first word, the run's current directory and PATH. Out: the file's path, or an error that blames the run.

import { accessSync, constants, statSync } from 'node:fs'
import { isAbsolute, join, resolve } from 'node:path'
import { errorCode } from '../errors.ts'
import { InfrastructureError } from './infrastructure.ts'

/** What execvp uses when there is no PATH (glibc and musl agree on these two). */
const DEFAULT_PATH = '/bin:/usr/bin'

/** Gives the absolute path of the file that execvp would choose. Throws an InfrastructureError that blames the run. */
export function findExecutable(
  name: string,
  options: { readonly cwd: string; readonly path: string | undefined },
): string {
  if (name === '') throw new InfrastructureError('The command is empty', { blame: 'run' })
  if (name.includes('/')) return checkFile(name, options.cwd)
  const path = options.path ?? DEFAULT_PATH
  const refused: string[] = []
  for (const folder of path.split(':')) {
    const file = join(resolve(options.cwd, folder || '.'), name)
    const state = lookAt(file)
    if (state === 'executable') return file
    if (state === 'not executable') refused.push(file)
  }
  const where =
    options.path === undefined ? `PATH is not set, so in ${path}` : `PATH is ${path === '' ? 'empty' : path}`
  const found = refused.length > 0 ? ` (${refused.join(', ')} may not be executed)` : ''
  throw new InfrastructureError(`Command not found: "${name}" is in no folder of PATH${found}; ${where}`, {
    blame: 'run',
  })
}

function checkFile(name: string, cwd: string): string {
  const file = resolve(cwd, name)
  const state = lookAt(file)
  if (state === 'executable') return file
  const where = isAbsolute(name) ? '' : `, looked for from ${cwd}`
  const problems = {
    missing: `Command not found: there is no file ${file}${where}`,
    folder: `Command cannot be executed: ${file} is a folder${where}`,
    'not executable': `Command cannot be executed: this user may not execute ${file}${where}; is its execute bit set?`,
  }
  throw new InfrastructureError(problems[state], { blame: 'run' })
}

function lookAt(file: string): 'executable' | 'not executable' | 'folder' | 'missing' {
  try {
    if (statSync(file).isDirectory()) return 'folder'
    accessSync(file, constants.X_OK)
    return 'executable'
  } catch (error) {
    return errorCode(error) === 'EACCES' ? 'not executable' : 'missing'
  }
}

/** Throws an InfrastructureError that blames the run when `working_dir` cannot be a current directory. */
export function checkWorkingDirectory(path: string): void {
  const problem = whyNoDirectory(path)
  if (problem) throw new InfrastructureError(`working_dir ${path} cannot be entered: ${problem}`, { blame: 'run' })
}

function whyNoDirectory(path: string): string | undefined {
  try {
    if (!statSync(path).isDirectory()) return 'it is not a folder'
    accessSync(path, constants.X_OK)
    return undefined
  } catch (error) {
    return errorCode(error) === 'ENOENT' ? 'it does not exist' : 'this user may not'
  }
}
