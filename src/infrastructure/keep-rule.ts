// Decides what of the past is kept no longer, by number and by age. Pure.

import type { KeepRule } from './infrastructure.ts'

/** What is not among the newest `keep`, or ended too long ago; oldest first. */
export function chooseExcess<Item extends { readonly endedAtMs: number }>(
  items: readonly Item[],
  { keep, maxAgeSeconds }: KeepRule,
  nowMs: number,
): readonly Item[] {
  return items
    .toSorted((one, other) => other.endedAtMs - one.endedAtMs)
    .filter(({ endedAtMs }, index) => index >= keep || nowMs - endedAtMs > maxAgeSeconds * 1000)
    .toReversed()
}
