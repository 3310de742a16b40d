// The filter grammar of Prefect's list routes, once as schema and once as SQL, from one description.
//
// A filter is a tree of fields whose leaves are operators with a trailing underscore (`any_`, `before_`). Values only
// ever become parameters of the SQL; its text comes from the descriptions below and in filter-grammars.ts.

import type { SQLInputValue } from 'node:sqlite'
import * as v from 'valibot'
import type { Sql } from './database.ts'
import { count, texts, time, uuid } from './requests.ts'

/** One operator: what it takes and the condition that it stands for. */
export interface Operator {
  readonly schema: v.GenericSchema
  readonly toSql: (value: never) => Sql | undefined
}

/** A field of a filter: operators and fields below it. `operator` says whether `and_`/`or_` may be chosen. */
export interface Grammar {
  readonly operator: boolean
  readonly fields: Readonly<Record<string, Grammar | Operator>>
}

export function group(fields: Readonly<Record<string, Grammar | Operator>>, operator = false): Grammar {
  return { operator, fields }
}

export function operator<T>(schema: v.GenericSchema<unknown, T>, toSql: (value: T) => Sql | undefined): Operator {
  return { schema, toSql }
}

/** The schema of a grammar: unknown keys are refused at every level, a null stands for "left out". */
export function filterSchema(grammar: Grammar): v.GenericSchema<unknown, FilterValue | null | undefined> {
  const entries: Record<string, v.GenericSchema> = {}
  for (const [name, field] of Object.entries(grammar.fields)) {
    entries[name] = 'fields' in field ? filterSchema(field) : v.nullish(field.schema)
  }
  if (grammar.operator) entries.operator = v.nullish(v.picklist(['and_', 'or_']))
  return v.nullish(v.strictObject(entries))
}

export type FilterValue = Readonly<Record<string, unknown>>

/** The condition of a filter that its schema has passed; undefined when it filters nothing. */
export function toCondition(grammar: Grammar, value: FilterValue | null | undefined): Sql | undefined {
  if (!value) return undefined
  const conditions: Sql[] = []
  for (const [name, field] of Object.entries(grammar.fields)) {
    const given = value[name]
    if (given === null || given === undefined) continue
    // The schema of the same grammar has made these values what their operators take.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    const condition = 'fields' in field ? toCondition(field, given as FilterValue) : field.toSql(given as never)
    if (condition) conditions.push(condition)
  }
  return joinConditions(conditions, value.operator === 'or_' ? 'OR' : 'AND')
}

export function joinConditions(conditions: readonly (Sql | undefined)[], word: 'AND' | 'OR'): Sql | undefined {
  const given = conditions.filter(condition => condition !== undefined)
  if (given.length === 0) return undefined
  return {
    sql: `(${given.map(condition => condition.sql).join(` ${word} `)})`,
    params: given.flatMap(condition => condition.params),
  }
}

/** `… WHERE …` or nothing. */
export function where(condition: Sql | undefined): Sql {
  return condition ? { sql: ` WHERE ${condition.sql}`, params: condition.params } : { sql: '', params: [] }
}

/** Wraps a condition on another table; `sql` has `{}` where it goes. */
export function within(sql: string, condition: Sql | undefined): Sql | undefined {
  return condition && { sql: sql.replace('{}', () => condition.sql), params: condition.params }
}

const list = (values: readonly SQLInputValue[]) => JSON.stringify(values)

// Lists become one JSON parameter, so a filter's SQL text does not depend on their length.
export const anyOf = (column: string, schema: v.GenericSchema<unknown, string[]> = texts): Operator =>
  operator(schema, values => ({ sql: `${column} IN (SELECT value FROM json_each(?))`, params: [list(values)] }))

export const notAnyOf = (column: string, schema: v.GenericSchema<unknown, string[]> = texts): Operator =>
  operator(schema, values => ({ sql: `${column} NOT IN (SELECT value FROM json_each(?))`, params: [list(values)] }))

export const anyId = (column: string): Operator => anyOf(column, v.array(uuid))
export const notAnyId = (column: string): Operator => notAnyOf(column, v.array(uuid))

export const like = (column: string): Operator =>
  operator(v.string(), text => ({ sql: `${column} LIKE ?`, params: [`%${text}%`] }))

/** Ignores case, and `%` and `_` in a prefix stand for anything: as the reference does. */
export const startsWith = (column: string): Operator =>
  operator(texts, prefixes =>
    joinConditions(
      prefixes.map(prefix => ({ sql: `${column} LIKE ?`, params: [`${prefix}%`] })),
      'OR',
    ),
  )

export const isNull = (column: string): Operator =>
  operator(v.boolean(), yes => ({ sql: `${column} IS ${yes ? '' : 'NOT '}NULL`, params: [] }))

export const equals = (column: string): Operator =>
  operator(v.boolean(), yes => ({ sql: `${column} = ?`, params: [yes ? 1 : 0] }))

export const before = (column: string): Operator => operator(time, at => ({ sql: `${column} <= ?`, params: [at] }))

export const after = (column: string): Operator => operator(time, at => ({ sql: `${column} >= ?`, params: [at] }))

export const compare = (column: string, sign: '<=' | '>='): Operator =>
  operator(count, number => ({ sql: `${column} ${sign} ?`, params: [number] }))

/** The JSON list in `column` holds all of these. */
export const holdsAll = (column: string): Operator =>
  operator(texts, values => ({
    sql: `NOT EXISTS (SELECT 1 FROM json_each(?) AS wanted WHERE wanted.value NOT IN (SELECT value FROM json_each(${column})))`,
    params: [list(values)],
  }))

export const isEmptyList = (column: string): Operator =>
  operator(v.boolean(), yes => ({ sql: `${column} ${yes ? '=' : '<>'} '[]'`, params: [] }))
