// Reads a block's fields by a schema, and says which field is wrong without showing what stands in it.

import * as v from 'valibot'
import type { StorageBlock } from './registry.ts'
import { StorageError } from './storage.ts'

/** Throws a StorageError such as `Storage block of type "s3": field "bucket_path" is missing`. */
export function readFields<Schema extends v.GenericSchema>(
  slug: string,
  schema: Schema,
  data: StorageBlock['data'],
): v.InferOutput<Schema> {
  const result = v.safeParse(schema, data)
  if (result.success) return result.output
  // The issue's own message quotes the received value, which may be a secret: only its place and the expectation are shown.
  const [issue] = result.issues
  const field = v.getDotPath(issue) ?? '(the block itself)'
  const trouble =
    issue.input === undefined ? 'is missing' : `is not what was expected (${issue.expected ?? issue.type})`
  throw new StorageError(`Storage block of type "${slug}": field "${field}" ${trouble}`)
}
