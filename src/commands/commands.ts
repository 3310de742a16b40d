// The table of commands: name, arguments, options, and which function runs it. Code is loaded when a command is used.
//
// In: nothing. Out: plain rows; cli.ts turns them into a command line, and the test holds docs/command-line.md against them.

import type { Section } from '../config/settings.ts'
import type { Context } from './context.ts'
import { type Call, readSwitch, readTexts } from './options.ts'

export interface OptionRow {
  /** As commander reads it: `-q, --work-queue <name>`. */
  readonly flags: string
  readonly doc: string
  /** May be given many times. */
  readonly repeat?: boolean
  /** Names that commander would not take: short ones of two letters, as Prefect's `-sb`, and those of the program's own options. */
  readonly aliases?: readonly string[]
  /** It is also what `-o` and `--output` name, as in Prefect's command, when they name no form of output. */
  readonly isOutput?: boolean
  /** It takes NAME=VALUE, and every flag that the command does not know is such a name. */
  readonly isAnyFlag?: boolean
}

export interface CommandRow {
  /** Words of the command: `agent start`. */
  readonly path: string
  /** As commander reads it: `<file>`, `[name]`, `<files...>`. */
  readonly args?: string
  readonly doc: string
  readonly options?: readonly OptionRow[]
  /** Sections of the settings whose flags it takes. */
  readonly settings: readonly Section[]
  /** It goes on until it is told to stop, and hears both signals. */
  readonly isDaemon?: boolean
  /** The option that names a home of its own: then the user's Prefect settings are not looked at. */
  readonly isolatedBy?: { readonly option: string; readonly byDefault: string }
  /** An argument that is the configuration file, instead of `--config`. */
  readonly readsConfigArgument?: boolean
  /** Resolves to the exit code, by default 0. */
  readonly run: (context: Context, call: Call) => Promise<number> | Promise<void>
}

const api = ['prefect', 'api', 'proxy', 'logging'] as const
const everything = [
  ...api,
  'paths',
  'agent',
  'process',
  'status',
  'storage',
  'cleanup',
  'server',
] as const satisfies readonly Section[]

const queueOptions: readonly OptionRow[] = [
  { flags: '-q, --work-queue <name>', doc: 'Poll this work queue; it is created when missing.', repeat: true },
  { flags: '-m, --match <prefix>', doc: 'Poll all work queues whose names begin so.', repeat: true },
]

export const commands: readonly CommandRow[] = [
  {
    path: 'agent start',
    args: '[work-queue]',
    doc: 'Poll work queues and run what is due, until stopped.',
    options: [
      ...queueOptions,
      { flags: '--run-once', doc: 'Poll once, wait for the runs that it gave, and end.' },
      {
        flags: '--no-wait',
        doc: 'End at once when another agent uses the state directory, instead of waiting for it.',
      },
      { flags: '--hide-welcome', doc: "Taken for the sake of Prefect's command; there is no welcome to hide." },
    ],
    settings: everything.filter(section => section !== 'server'),
    isDaemon: true,
    run: async (context, { args, options }) => {
      const { startAgent } = await import('./agent-start.ts')
      await startAgent(context, {
        queues: [...args, ...readTexts(options.workQueue)],
        prefixes: readTexts(options.match),
        runOnce: readSwitch(options.runOnce),
        waitForLock: readSwitch(options.wait),
      })
    },
  },
  {
    path: 'dev',
    args: '[files...]',
    doc: 'Try Rigel without a server: an embedded one and an agent in one process, with deployments from files.',
    options: [
      ...queueOptions,
      {
        flags: '--home <directory>',
        doc: "Where all of it lives; your own Prefect's settings are not looked at (~/.rigel).",
      },
      { flags: '--run', doc: 'Start a run of each deployment, with its log on the terminal.' },
      { flags: '--once', doc: 'As --run, and end when these runs have ended: exit code 0 when all have Completed.' },
    ],
    settings: everything,
    isDaemon: true,
    // Not below the current directory, which is most likely the code that is to be fetched.
    isolatedBy: { option: 'home', byDefault: '~/.rigel' },
    run: async (context, call) => (await import('./dev.ts')).runDev(context, call),
  },
  {
    path: 'server start',
    doc: 'Serve the embedded Prefect-compatible API, until stopped.',
    settings: ['prefect', 'paths', 'server', 'logging'],
    isDaemon: true,
    run: async context => (await import('./server-start.ts')).runServer(context),
  },
  {
    path: 'deployment apply',
    args: '<files...>',
    doc: 'Create or update the deployments of YAML files.',
    options: [
      { flags: '--upload', doc: 'Upload the current directory to the storage block of each.' },
      { flags: '-l, --limit <number>', doc: 'Limit of runs at once of their work queues; they are made when missing.' },
    ],
    settings: [...api, 'paths', 'storage'],
    run: async (context, call) => (await import('./deployment-apply.ts')).applyDeployments(context, call),
  },
  {
    path: 'deployment build',
    args: '<entrypoint>',
    doc: 'Write the deployment file of a flow in the current directory, and upload its code to a storage block.',
    options: [
      { flags: '-n, --name <name>', doc: 'Name of the deployment.' },
      { flags: '-q, --work-queue <name>', doc: 'Work queue of its runs (default).' },
      { flags: '-p, --pool <name>', doc: 'Work pool of its runs.' },
      {
        flags: '--storage-block <type/name/path>',
        aliases: ['-sb'],
        doc: 'Where the code is uploaded to, and fetched from; the path may be left out.',
      },
      { flags: '-l, --limit <number>', doc: 'Limit of runs at once of this work queue; it is made when missing.' },
      {
        flags: '-i, --infra <type>',
        doc: 'What runs it: process (default), docker-container or kubernetes-job, to be edited in the file.',
      },
      { flags: '--infra-block <type/name>', aliases: ['-ib'], doc: 'The block of what runs it.' },
      { flags: '--override <key=value>', doc: 'Overrides the infrastructure: env.LOG=1.', repeat: true },
      { flags: '--path <path>', doc: 'Path in the storage, or a subdirectory of local code.' },
      { flags: '--flow-name <name>', doc: "The flow's name; a Python flow says it itself." },
      {
        flags: '--deployment-version <text>',
        aliases: ['-v', '--version'],
        doc: 'Version of the deployment; by default of the flow.',
      },
      { flags: '-d, --description <text>', doc: "Description; by default the flow's." },
      { flags: '-t, --tag <tag>', doc: 'Tag of the deployment.', repeat: true },
      { flags: '--param <key=value>', doc: 'A default parameter; the value is JSON or else a text.', repeat: true },
      { flags: '--params <json>', doc: 'Default parameters as a JSON object; - reads it from standard input.' },
      { flags: '--cron <line>', doc: 'Schedule as a cron line.' },
      { flags: '--interval <seconds>', doc: 'Schedule as an interval.' },
      { flags: '--anchor-date <time>', doc: 'From when the interval counts (now).' },
      { flags: '--rrule <rule>', doc: 'Schedule as a recurrence rule.' },
      { flags: '--timezone <zone>', doc: 'Time zone of the schedule.' },
      { flags: '--no-schedule', doc: 'Take away the schedules that the deployment has on the server.' },
      {
        flags: '--out <file>',
        doc: 'The deployment file (FUNCTION-deployment.yaml). -o FILE.yaml names it, too.',
        isOutput: true,
      },
      { flags: '--skip-upload', doc: 'Upload nothing.' },
      { flags: '-a, --apply', doc: 'Register the deployment as well.' },
    ],
    settings: [...api, 'paths', 'storage', 'process'],
    run: async (context, call) => (await import('./deployment-build.ts')).buildDeployment(context, call),
  },
  {
    path: 'deployment run',
    args: '<flow/deployment>',
    doc: 'Create a flow run of a deployment.',
    options: [
      { flags: '-p, --param <key=value>', doc: 'A parameter; the value is JSON or else a text.', repeat: true },
      { flags: '--params <json>', doc: 'Parameters as a JSON object; - reads it from standard input.' },
      { flags: '--name <name>', doc: 'Name of the run.' },
      { flags: '--tag <tag>', doc: 'Tag of the run.', repeat: true },
      { flags: '--start-in <seconds>', doc: 'When it is to start, in seconds from now.' },
      { flags: '--start-at <time>', doc: 'When it is to start, as an ISO time.' },
      { flags: '--watch', doc: 'Show its logs until it has ended; exit code 0 only when it has Completed.' },
    ],
    settings: api,
    run: async (context, call) => (await import('./deployment-run.ts')).runDeployment(context, call),
  },
  {
    path: 'deployment ls',
    doc: 'List deployments.',
    options: [{ flags: '--flow <name>', doc: 'Only those of this flow.' }],
    settings: api,
    run: async (context, call) => (await import('./deployment.ts')).listDeployments(context, call),
  },
  {
    path: 'deployment inspect',
    args: '<flow/deployment>',
    doc: 'Show a deployment.',
    settings: api,
    run: async (context, call) => (await import('./deployment.ts')).inspectDeployment(context, call),
  },
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
  {
    path: 'work-queue create',
    args: '<name>',
    doc: 'Create a work queue.',
    options: [
      { flags: '--limit <number>', doc: 'How many of its runs may be under way at once.' },
      { flags: '--priority <number>', doc: 'Its priority; 1 is the highest.' },
      { flags: '--description <text>', doc: 'What it is for.' },
    ],
    settings: api,
    run: async (context, call) => (await import('./work-queue.ts')).createQueue(context, call),
  },
  {
    path: 'work-queue ls',
    doc: 'List work queues.',
    settings: api,
    run: async context => (await import('./work-queue.ts')).listQueues(context),
  },
  {
    path: 'work-queue inspect',
    args: '<name>',
    doc: 'Show a work queue.',
    settings: api,
    run: async (context, call) => (await import('./work-queue.ts')).inspectQueue(context, call),
  },
  {
    path: 'work-queue pause',
    args: '<name>',
    doc: 'Pause a work queue: its runs wait.',
    settings: api,
    run: async (context, call) => (await import('./work-queue.ts')).setQueuePaused(context, call, true),
  },
  {
    path: 'work-queue resume',
    args: '<name>',
    doc: 'Let a paused work queue go on.',
    settings: api,
    run: async (context, call) => (await import('./work-queue.ts')).setQueuePaused(context, call, false),
  },
  {
    path: 'flow-run ls',
    doc: 'List flow runs that are due or over, the latest first.',
    options: [
      { flags: '--limit <number>', doc: 'How many (20).' },
      { flags: '--state <state>', doc: 'Only those in this state, by type (RUNNING) or name (Late).', repeat: true },
      { flags: '--flow <name>', doc: 'Only those of this flow.' },
      { flags: '--queue <name>', doc: 'Only those of this work queue.' },
      { flags: '--upcoming', doc: 'Those to come instead, the earliest first.' },
    ],
    settings: api,
    run: async (context, call) => (await import('./flow-run.ts')).listRuns(context, call),
  },
  {
    path: 'flow-run inspect',
    args: '<id>',
    doc: 'Show a flow run.',
    settings: api,
    run: async (context, call) => (await import('./flow-run.ts')).inspectRun(context, call),
  },
  {
    path: 'flow-run logs',
    args: '<id>',
    doc: 'Show the logs of a flow run.',
    options: [{ flags: '-f, --follow', doc: 'Go on until the run has ended; exit code 0 only when it has Completed.' }],
    settings: api,
    run: async (context, call) => (await import('./flow-run.ts')).showLogs(context, call),
  },
  {
    path: 'flow-run cancel',
    args: '<id>',
    doc: 'Cancel a flow run.',
    settings: api,
    run: async (context, call) => (await import('./flow-run.ts')).cancelRun(context, call),
  },
  {
    path: 'gc',
    doc: 'Clear away finished containers of this agent beyond what is kept, and what its engines keep of them.',
    options: [
      { flags: '--dry-run', doc: 'Only say what would be removed.' },
      { flags: '--images', doc: 'Also images that were pulled for runs and that no container uses.' },
      { flags: '--all', doc: 'Keep nothing that has ended, whatever the settings say.' },
      { flags: '--type <type>', doc: 'Only this type of infrastructure, such as docker-container.', repeat: true },
    ],
    settings: ['prefect', 'paths', 'agent', 'cleanup', 'logging'],
    run: async (context, call) => await (await import('./gc.ts')).collectGarbage(context, call),
  },
  {
    path: 'config view',
    doc: 'Show every setting, its value and where that comes from; secrets are masked.',
    settings: everything,
    run: async context => (await import('./config.ts')).viewConfig(context),
  },
  {
    path: 'config validate',
    args: '[file]',
    doc: 'Check a configuration file, or the configuration as it is, without starting anything.',
    settings: everything,
    readsConfigArgument: true,
    run: async (context, call) => (await import('./config.ts')).validateConfig(context, call.args[0]),
  },
  {
    path: 'version',
    doc: 'Show the versions of Rigel and of what it runs on.',
    settings: api,
    run: async context => (await import('./version.ts')).printVersion(context),
  },
]
