// The commands of flow code and where it is kept: fetch, blocks, cache.

import { api, type CommandRow } from './command-row.ts'

export const storageCommands: readonly CommandRow[] = [
  {
    path: 'fetch',
    args: '<directory>',
    doc: 'Fetch flow code as the agent does, into a directory that does not exist yet or is empty.',
    options: [
      { flags: '--deployment <flow/deployment>', doc: 'The code of this deployment.' },
      { flags: '--block <type/name>', doc: 'What this storage block holds.' },
      { flags: '--block-file <file>', doc: 'The same from a JSON file, without a server: block_type_slug and data.' },
      { flags: '--steps-file <file>', doc: 'What these pull steps bring, a JSON list.' },
      { flags: '--path <path>', doc: "A folder in there, in place of the deployment's path." },
      { flags: '--share', doc: 'Let all users of the machine read it, not only this one.' },
    ],
    settings: [...api, 'paths', 'storage'],
    run: async (context, call) => (await import('./fetch.ts')).fetchFolder(context, call),
  },
  {
    path: 'block type ls',
    doc: 'List the types of blocks that the server knows.',
    settings: api,
    run: async context => (await import('./block.ts')).listBlockTypes(context),
  },
  {
    path: 'block create',
    args: '<type>',
    doc: "Create a block; its fields are checked against the type's schema.",
    options: [
      { flags: '--name <name>', doc: 'Its name: lower-case letters, digits and dashes.' },
      { flags: '-f, --file <file>', doc: 'A JSON file with its fields; {"$ref": "type/name"} names another block.' },
      {
        flags: '--field <name=value>',
        doc: 'One field, as JSON or text; also --NAME VALUE. @FILE takes it from a file and - from standard input, as secrets must be.',
        repeat: true,
        isAnyFlag: true,
      },
      { flags: '--overwrite', doc: 'Replace the block of that name.' },
    ],
    settings: api,
    run: async (context, call) => (await import('./block.ts')).createBlock(context, call),
  },
  {
    path: 'block ls',
    doc: 'List blocks.',
    settings: api,
    run: async context => (await import('./block.ts')).listBlocks(context),
  },
  {
    path: 'block inspect',
    args: '<type/name>',
    doc: 'Show a block; secrets are masked.',
    settings: api,
    run: async (context, call) => (await import('./block.ts')).inspectBlock(context, call),
  },
  {
    path: 'block delete',
    args: '<type/name>',
    doc: 'Delete a block.',
    settings: api,
    run: async (context, call) => (await import('./block.ts')).deleteBlock(context, call),
  },
  {
    path: 'cache ls',
    doc: 'List what is kept of fetched code.',
    settings: ['paths', 'storage', 'logging'],
    run: async context => (await import('./cache.ts')).listCache(context),
  },
  {
    path: 'cache verify',
    doc: 'Read all of the cache; what is damaged is removed, and the exit code is 1.',
    settings: ['paths', 'storage', 'logging'],
    run: async context => (await import('./cache.ts')).verifyCache(context),
  },
  {
    path: 'cache prune',
    doc: 'Bring the cache within its limits.',
    options: [{ flags: '--all', doc: 'Empty it.' }],
    settings: ['paths', 'storage', 'logging'],
    run: async (context, call) => (await import('./cache.ts')).shrinkCache(context, call),
  },
]
