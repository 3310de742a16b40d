// What a page of links says of a file beside its name, and when that is enough to know that the file has not changed, so that
// nobody has to ask for each file (HEAD) each time.
//
// Only nginx's own pages say it exactly: `<a href="a.py">a.py</a>   25-Nov-2026 02:40   4096`, the size in bytes, the date to the
// minute. (Other servers round the size; then each file is asked for.) The rule:
//
//   A file has been asked for, and its exact date was a day old or older. As long as a page that the server has made for
//   us shows the same minute and the same size, it is the same file: whatever was written since has a later date.
//
// That day is for clocks that differ, for the hour that a local time shows twice, and for copies that keep their date. What
// stays unseen is a file whose date is set back into the very minute, at the same size, a day or more later; nginx's own ETag is made of date and
// size too, and misses the same within the second.

import type { HttpResponse } from './http.ts'

/** What a page says of a file. */
export interface Said {
  /** The date as it stands there, in the server's zone, whichever that is, read as UTC. Milliseconds. */
  readonly minute: number
  /** In bytes. */
  readonly size: number
  /** Both, for comparing with what was said another time. */
  readonly sign: string
}

const minuteMs = 60_000
const settledMs = 24 * 60 * minuteMs
/** All zones are multiples of it away from UTC, and no more than 14 hours. */
const zoneStepMs = 15 * minuteMs
const farthestZoneMs = 14 * 60 * minuteMs

/** Of the text that follows a link, up to the end of the line; undefined when it says something else, or not exactly. */
export function readSaid(text: string): Said | undefined {
  const [, day, month, year, time, size = ''] = /^ +(\d\d)-(\w{3})-(\d{4}) (\d\d:\d\d) +(\d+)\s*$/.exec(text) ?? []
  const minute = Date.parse(`${day} ${month} ${year} ${time} UTC`)
  return Number.isNaN(minute) ? undefined : { minute, size: Number(size), sign: `${minute}/${size}` }
}

/** Not a file of its own, nor out of somebody's cache: what it says is what was so a moment ago. */
export function isMadeForUs(page: Pick<HttpResponse, 'header'>): boolean {
  return ['last-modified', 'etag', 'age'].every(name => page.header(name) === '')
}

/** Whether what a page has said of a file will do the next time, judged by the answer about the file itself. */
export function isSettled({ minute, size }: Said, file: Pick<HttpResponse, 'header'>): boolean {
  const now = Date.parse(file.header('date'))
  const modified = Date.parse(file.header('last-modified'))
  // NaN, where a header is missing, is not larger than anything.
  if (!(now - modified >= settledMs) || file.header('content-length') !== String(size)) return false
  // The page's date is the file's, in some zone.
  const zone = minute - Math.floor(modified / minuteMs) * minuteMs
  return zone % zoneStepMs === 0 && Math.abs(zone) <= farthestZoneMs
}
