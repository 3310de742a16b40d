// `.prefectignore` as Prefect reads it (pathspec, "gitwildmatch"): each path is judged by itself, the last line that
// matches it decides. So, unlike in git, `!build/keep.txt` brings a file back although `build/` is ignored.

import ignore from 'ignore'

/** Says whether a path is left out; `path` is relative to the folder of the ignore file, with `/`, no trailing slash. */
export type IsIgnored = (path: string) => boolean

export const ignoreFileName = '.prefectignore'

export function readIgnoreFile(text: string): IsIgnored {
  const rules = text
    .split(/\r?\n/)
    .filter(line => line.trim() !== '' && !line.startsWith('#'))
    .map(line => {
      const negative = line.startsWith('!')
      return { negative, matcher: ignore({ ignorecase: false }).add(negative ? line.slice(1) : line) }
    })
  return path => {
    let ignored = false
    for (const { negative, matcher } of rules) {
      // A rule that would change nothing need not be tried.
      if (ignored === negative && matcher.ignores(path)) ignored = !negative
    }
    return ignored
  }
}
