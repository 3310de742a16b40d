// A program of its own: becomes another program, with variables that a POSIX shell would not have handed down.
//
// In: RIGEL_STRANGE_ENVIRONMENT (JSON, by environment because that is as private as the variables themselves; an argument
// vector is not) and the program's path and argument vector. Out: nothing, for it is then that program, with the same pid.

const [path, ...command] = process.argv.slice(2)
const { RIGEL_STRANGE_ENVIRONMENT: strange, ...env } = process.env
if (path === undefined || strange === undefined || process.execve === undefined) process.exit(125)
// Our own text, from process-launch.ts: names and values, all strings.
const names: NodeJS.ProcessEnv = JSON.parse(strange)
process.execve(path, command, { ...env, ...names })
