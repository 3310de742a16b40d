// Texts that are too long for where they go.

/**
 * The beginning of a text, at most `length` UTF-16 units of it. A surrogate pair is left out rather than cut in two, because
 * half of one has no UTF-8 form and Prefect's server refuses it.
 */
export function cutText(text: string, length: number): string {
  const last = text.codePointAt(length - 1) ?? 0
  const splitsPair = text.length > length && last > 0xff_ff
  return text.slice(0, splitsPair ? length - 1 : length)
}

/** The same for people, with an ellipsis where something is missing. */
export function shortenText(text: string, length: number): string {
  return text.length > length ? `${cutText(text, length)}…` : text
}
