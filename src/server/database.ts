// The one door to SQLite: opens the file, runs prepared statements, and makes every write all or nothing.
//
// A write is acknowledged only after COMMIT, which syncs the disk (WAL, synchronous=FULL), so kill -9 and a power cut
// lose nothing that a client was told. The file is locked for this process alone; the kernel gives the lock back.

import { closeSync, mkdirSync, openSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync, type SQLInputValue, type StatementSync } from 'node:sqlite'
import { errorCode, UserError } from '../errors.ts'
import { BOOLEAN_COLUMNS, JSON_COLUMNS, MIGRATIONS } from './schema.ts'

export type Row = Readonly<Record<string, unknown>>
/** A piece of SQL with the values of its question marks. Names in it come from our code, never from a request. */
export interface Sql {
  readonly sql: string
  readonly params: readonly SQLInputValue[]
}

export class Database implements Disposable {
  readonly #file: DatabaseSync
  readonly #statements = new Map<string, StatementSync>()

  /** Opens or makes the file, readable for its owner only: it holds block secrets. */
  constructor(path: string) {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    closeSync(openSync(path, 'a', 0o600))
    this.#file = new DatabaseSync(path, { timeout: 2000, enableForeignKeyConstraints: true })
    try {
      this.#file.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL')
      this.write(() => this.#migrate(path))
    } catch (error) {
      this.#file.close()
      if (errorCode(error) === 'ERR_SQLITE_ERROR' && /locked|busy/.test(String(error))) {
        throw new UserError(`The database ${path} is in use by another server.`, {
          hint: 'Stop that server first, or choose another database file.',
          cause: error,
        })
      }
      throw error
    }
  }

  #migrate(path: string): void {
    const version = Number(this.get({ sql: 'PRAGMA user_version', params: [] })?.user_version ?? 0)
    if (version > MIGRATIONS.length) {
      throw new UserError(`The database ${path} was written by a newer version and is left untouched.`)
    }
    for (const step of MIGRATIONS.slice(version)) this.#file.exec(step)
    this.#file.exec(`PRAGMA user_version = ${MIGRATIONS.length}`)
  }

  /** Does all of `work` or nothing of it. Returns after the disk has it. Calls inside a write join it. */
  write<T>(work: () => T): T {
    if (this.#file.isTransaction) return work()
    this.#file.exec('BEGIN IMMEDIATE')
    try {
      const result = work()
      this.#file.exec('COMMIT')
      return result
    } catch (error) {
      if (this.#file.isTransaction) this.#file.exec('ROLLBACK')
      throw error
    }
  }

  get({ sql, params }: Sql): Row | undefined {
    const row = this.#prepare(sql).get(...params)
    return row && decodeRow(row)
  }

  all({ sql, params }: Sql): Row[] {
    return this.#prepare(sql)
      .all(...params)
      .map(decodeRow)
  }

  /** Returns how many rows were changed. */
  run({ sql, params }: Sql): number {
    return Number(this.#prepare(sql).run(...params).changes)
  }

  insert(table: string, row: Row): void {
    const names = Object.keys(row)
    const sql = `INSERT INTO ${table} (${names.join(', ')}) VALUES (${names.map(() => '?').join(', ')})`
    this.run({ sql, params: names.map(name => encodeValue(name, row[name])) })
  }

  /** Sets the given columns of the row with this id; returns whether there is one. */
  update(table: string, id: string, changes: Row): boolean {
    const names = Object.keys(changes)
    if (names.length === 0) return this.get({ sql: `SELECT id FROM ${table} WHERE id = ?`, params: [id] }) !== undefined
    const sql = `UPDATE ${table} SET ${names.map(name => `${name} = ?`).join(', ')} WHERE id = ?`
    return this.run({ sql, params: [...names.map(name => encodeValue(name, changes[name])), id] }) > 0
  }

  delete(table: string, id: string): boolean {
    return this.run({ sql: `DELETE FROM ${table} WHERE id = ?`, params: [id] }) > 0
  }

  #prepare(sql: string): StatementSync {
    const known = this.#statements.get(sql)
    if (known) return known
    // Filters make many different texts; a bound keeps a curious client from filling the memory with statements.
    if (this.#statements.size > 500) this.#statements.clear()
    const statement = this.#file.prepare(sql)
    this.#statements.set(sql, statement)
    return statement
  }

  [Symbol.dispose](): void {
    this.#statements.clear()
    if (this.#file.isOpen) this.#file.close()
  }
}

/** The row of a table whose columns (schema.ts) are the fields of T: the one place where that is believed. */
// oxlint-disable-next-line typescript/no-unnecessary-type-parameters
export function typed<T>(row: Row): T {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return row as T
}

function decodeRow(row: Record<string, unknown>): Row {
  const decoded: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(row)) {
    if (typeof value === 'string' && JSON_COLUMNS.has(name)) decoded[name] = JSON.parse(value)
    else if (value !== null && BOOLEAN_COLUMNS.has(name)) decoded[name] = value === 1
    else decoded[name] = value
  }
  return decoded
}

function encodeValue(name: string, value: unknown): SQLInputValue {
  if (value === null || value === undefined) return null
  if (JSON_COLUMNS.has(name)) return JSON.stringify(value)
  if (typeof value === 'boolean') return value ? 1 : 0
  if (typeof value === 'string' || typeof value === 'number') return value
  throw new TypeError(`Column ${name} cannot hold a ${typeof value}`)
}
