// The table of commands: name, arguments, options, and which function runs it. Code is loaded when a command is used.
//
// In: nothing. Out: plain rows; cli.ts turns them into a command line, and the test holds docs/command-line.md against them.

import { api, type CommandRow, everything, type OptionRow } from './command-row.ts'
import { deploymentCommands } from './deployment-commands.ts'
import { readSwitch, readTexts } from './options.ts'
import { storageCommands } from './storage-commands.ts'

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
  ...deploymentCommands,
  ...storageCommands,
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
