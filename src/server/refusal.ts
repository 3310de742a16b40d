// The answers that are not what the client asked for, with the bodies that Prefect's server gives them.
//
// Routes throw a Refusal; app.ts turns it into a response. Shapes: chapter 3.7 of Prefect's own behaviour, seen live.

export type RefusalStatus = 400 | 403 | 404 | 409 | 413 | 422

export class Refusal extends Error {
  readonly status: RefusalStatus
  readonly body: Readonly<Record<string, unknown>>

  constructor(status: RefusalStatus, body: Readonly<Record<string, unknown>>) {
    super(String(body.detail ?? body.exception_message))
    this.name = 'Refusal'
    this.status = status
    this.body = body
  }
}

/** An explicit HTTP error of a route: `{"detail": …}`. */
export function refuse(status: RefusalStatus, detail: string): Refusal {
  return new Refusal(status, { detail })
}

/** Something that a deeper layer of Prefect's server did not find: `{"exception_message": …}`. */
export function notFoundInModel(message: string): Refusal {
  return new Refusal(404, { exception_message: message })
}

export interface InvalidField {
  readonly loc: readonly (string | number)[]
  readonly msg: string
  readonly type: string
}

/** A request that does not have the right shape. */
export function invalidRequest(fields: readonly InvalidField[], requestBody: unknown): Refusal {
  return new Refusal(422, {
    exception_message: 'Invalid request received.',
    exception_detail: fields,
    request_body: requestBody ?? null,
  })
}
