// Where the tree that we bring is not the one that Prefect 2.20.25's own block brings, by block and path, and why. Everything
// else must be the same, byte for byte and mode for mode (prefect.test.ts); what is listed here must really differ.

/** `*` is the whole tree. */
export const differences: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  's3-bucket pkg': {
    '*': 'Prefect does not join the path to bucket_folder, finds nothing below "pkg/" and calls the empty folder a success',
  },
  github: {
    link: 'Prefect copies what the link points to, wherever that is; ours keeps links that stay in the tree as links',
  },
  'local-file-system': {
    link: 'Prefect copies what the link points to, wherever that is; ours keeps links that stay in the tree as links',
  },
}

/** What Prefect's block cannot fetch at all, so that it is not put there for the comparison. */
export const unfetchable: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  azure: {
    'folder/': 'Prefect stops with FileNotFoundError at an empty blob that stands for a folder',
    'data/new\nline.txt': 'Prefect stops with FileNotFoundError at a line break in a name',
  },
}
