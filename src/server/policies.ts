// The `empirical_policy` that clients send with runs: retries and their delays, pauses, and how a retry came about.

import * as v from 'valibot'
import type { FlowRunPolicy } from './orchestration.ts'
import { texts } from './requests.ts'
import type { TaskRunPolicy } from './task-orchestration.ts'

/** At most some thirty years: what is longer leaves the calendar. */
const wholeSeconds = v.pipe(v.number(), v.minValue(0), v.maxValue(1e9), v.transform(Math.trunc))
const retries = v.nullish(v.pipe(v.number(), v.safeInteger()), null)

const FlowRunPolicyBody = v.object({
  max_retries: v.nullish(v.number(), 0),
  retry_delay_seconds: v.nullish(v.pipe(v.number(), v.maxValue(1e9)), 0),
  retries,
  retry_delay: v.nullish(wholeSeconds, null),
  pause_keys: v.nullish(texts, []),
  resuming: v.nullish(v.boolean(), false),
  retry_type: v.nullish(v.picklist(['in_process', 'reschedule']), null),
})

/** The legacy `max_retries` and `retry_delay_seconds` count only where the newer fields are unset and they are not 0. */
export const FlowRunPolicySchema = v.pipe(
  v.nullish(FlowRunPolicyBody, {}),
  v.transform(
    (policy): FlowRunPolicy => ({
      ...policy,
      retries: policy.retries ?? (policy.max_retries || null),
      retry_delay: policy.retry_delay ?? (policy.retry_delay_seconds || null),
    }),
  ),
)

const TaskRunPolicyBody = v.object({
  max_retries: v.nullish(v.number(), 0),
  retry_delay_seconds: v.nullish(v.pipe(v.number(), v.maxValue(1e9)), 0),
  retries,
  retry_delay: v.nullish(v.union([wholeSeconds, v.pipe(v.array(wholeSeconds), v.maxLength(50))]), null),
  retry_jitter_factor: v.nullish(v.pipe(v.number(), v.minValue(0)), null),
})

export const TaskRunPolicySchema = v.pipe(
  v.nullish(TaskRunPolicyBody, {}),
  v.transform(
    (policy): TaskRunPolicy => ({
      ...policy,
      retries: policy.retries ?? (policy.max_retries || null),
      retry_delay: policy.retry_delay ?? (policy.retry_delay_seconds || null),
    }),
  ),
)
