// What a test needs and a machine may lack: real Prefect, a container engine, root ...
//
// In: names of requirements. Out: options for node:test that skip the test with a line saying what is missing.
// RIGEL_TEST_REQUIRE=prefect2,root turns such a skip into a failure. Each use is noted in the file that
// RIGEL_TEST_LEDGER names, so that `npm test` can say per requirement what ran and what was skipped.

import { accessSync, appendFileSync, constants } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { missingStorage } from './storage-servers.ts'

/** Gives undefined where the requirement is met, else what is missing, as the end of "needs ...". */
type Probe = () => string | undefined

/** One line for each requirement; its key is its name in RIGEL_TEST_REQUIRE. */
const PROBES = {
  root: () => (process.getuid?.() === 0 ? undefined : 'to run as root'),
  prefect2: () => missingPrefect('p2', 'Prefect 2'),
  prefect3: () => missingPrefect('p3', 'Prefect 3'),
  prefect2storage: () => missingPrefect('p2storage', 'Prefect 2 with its storages'),
  docker: () => missingSetting('RIGEL_TEST_DOCKER_HOST', 'a Docker engine for tests'),
  podman: () => missingSetting('RIGEL_TEST_PODMAN_HOST', "Podman's API for tests"),
  kubernetes: () => missingSetting('RIGEL_TEST_KUBECONFIG', 'a Kubernetes cluster for tests'),
  image: () => missingSetting('RIGEL_TEST_IMAGE', "Rigel's own image, built by test/support/engines/own-image.sh"),
  sshd: () => (isExecutable('/usr/sbin/sshd') ? undefined : 'an OpenSSH server in /usr/sbin/sshd'),
  systemd: () => missingPrograms('systemd-notify', 'systemd-analyze', 'python3'),
  terminal: () => missingPrograms('script', 'stty'),
  s3: () => missingStorage('s3'),
  s3any: () => missingStorage('s3any'),
  azure: () => missingStorage('azure'),
  gcs: () => missingStorage('gcs'),
  smb: () => missingStorage('smb'),
  sftp: () => missingStorage('sftp'),
  ftp: () => missingStorage('ftp'),
  ftps: () => missingStorage('ftps'),
  webdav: () => missingStorage('webdav'),
  webhdfs: () => missingStorage('webhdfs'),
  http: () => missingStorage('http'),
  git: () => missingStorage('git'),
} as const satisfies Record<string, Probe>

export type Requirement = keyof typeof PROBES

/**
 * Options for `test(name, needs('prefect2'), body)`; spread them to add others.
 * Throws, and so fails the file, when a requirement is missing that RIGEL_TEST_REQUIRE names.
 */
export function needs(...names: readonly Requirement[]): { readonly skip: string | false } {
  const demanded = required()
  const gaps = names.map(name => ({ name, gap: PROBES[name]() }))
  for (const { name, gap } of gaps) {
    if (gap && demanded.has(name)) throw new Error(`RIGEL_TEST_REQUIRE asks for ${name}, but this machine lacks ${gap}`)
  }
  const missing = gaps.filter(({ gap }) => gap !== undefined)
  const skip = missing.length > 0 && missing.map(({ name, gap }) => `needs ${name}: ${gap}`).join('; ')
  return {
    // node:test reads it once for each test, so that is when a use is counted.
    get skip() {
      if (skip === false) note(names, 'ran', '')
      else for (const { name, gap } of missing) note([name], 'skipped', `needs ${gap}`)
      return skip
    },
  }
}

type PrefectName = 'p2' | 'p3' | 'p2storage'

/** The virtual environment with a real Prefect; use it only where `needs('prefect2')` or its like lets you. */
export function prefectEnvironment(name: PrefectName): string {
  const cache = process.env.XDG_CACHE_HOME || join(homedir(), '.cache')
  return join(process.env.RIGEL_PREFECT || join(cache, 'rigel-prefect'), name)
}

function missingPrefect(name: PrefectName, what: string): string | undefined {
  const program = join(prefectEnvironment(name), 'bin', 'prefect')
  return isExecutable(program) ? undefined : `${what} in ${program} (scripts/prefect-environments installs it)`
}

function missingSetting(variable: string, what: string): string | undefined {
  return process.env[variable] ? undefined : `${what}, named by ${variable}`
}

function missingPrograms(...names: readonly string[]): string | undefined {
  const folders = (process.env.PATH ?? '').split(':').filter(folder => folder !== '')
  const missing = names.filter(name => !folders.some(folder => isExecutable(join(folder, name))))
  return missing.length > 0 ? `${missing.join(', ')} on PATH` : undefined
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

function required(): ReadonlySet<string> {
  const names = (process.env.RIGEL_TEST_REQUIRE ?? '').split(/[\s,]+/).filter(name => name !== '')
  const unknown = names.filter(name => !(name in PROBES))
  if (unknown.length > 0) throw new Error(`RIGEL_TEST_REQUIRE names ${unknown.join(', ')}, which no test knows`)
  return new Set(names)
}

function note(names: readonly Requirement[], what: 'ran' | 'skipped', reason: string): void {
  const ledger = process.env.RIGEL_TEST_LEDGER
  if (ledger) appendFileSync(ledger, names.map(name => `${name}\t${what}\t${reason}\n`).join(''))
}
