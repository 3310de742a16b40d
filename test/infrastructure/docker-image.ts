// Makes a small image from another one, by the engine's own commit call, where no registry and no build is at hand.

import { once } from 'node:events'
import { request } from 'node:http'
import { buffer } from 'node:stream/consumers'
import { busybox, dockerHost } from './docker-subject.ts'

/** busybox with a user `flow` (4321) in group `flows` (5432), who runs what is started. */
export async function makeImageWithUser(reference: string): Promise<void> {
  const script = 'echo flow:x:4321:5432::/home:/bin/sh >> /etc/passwd; echo flows:x:5432: > /etc/group'
  const { Id } = await post('/containers/create', { Image: busybox, Cmd: ['sh', '-c', script] })
  await post(`/containers/${Id}/start`, undefined)
  await post(`/containers/${Id}/wait`, undefined)
  const [repo, tag] = splitTag(reference)
  await post(`/commit?container=${Id}&repo=${repo}&tag=${tag}`, { User: 'flow:flows', Cmd: ['sh'] })
  await call('DELETE', `/containers/${Id}`, undefined)
}

/** Gives the image a second name. */
export async function tagImage(reference: string, name: string): Promise<void> {
  const [repo, tag] = splitTag(name)
  await post(`/images/${reference}/tag?repo=${encodeURIComponent(repo)}&tag=${tag}`, undefined)
}

export async function pushImage(reference: string, login: { username: string; password: string }): Promise<void> {
  const [repo, tag] = splitTag(reference)
  const auth = Buffer.from(JSON.stringify({ ...login, serveraddress: repo.split('/')[0] })).toString('base64')
  const answer = await call('POST', `/images/${repo}/push?tag=${tag}`, undefined, { 'X-Registry-Auth': auth })
  if (answer.includes('"error"')) throw new Error(`push failed: ${answer}`)
}

export async function removeImage(reference: string): Promise<void> {
  await call('DELETE', `/images/${reference}`, undefined)
}

export async function hasImage(reference: string): Promise<boolean> {
  return !(await call('GET', `/images/${reference}/json`, undefined)).includes('No such image')
}

/** What the engine itself says, in all its fields: `GET path`. */
export async function askEngine(path: string): Promise<Record<string, unknown>> {
  return JSON.parse(await call('GET', path, undefined))
}

export async function pauseContainer(id: string): Promise<void> {
  await post(`/containers/${id}/pause`, undefined)
}

export async function makeNetwork(name: string): Promise<string> {
  return (await post('/networks/create', { Name: name })).Id ?? ''
}

export async function removeNetwork(name: string): Promise<void> {
  await call('DELETE', `/networks/${name}`, undefined)
}

function splitTag(reference: string): [string, string] {
  const colon = reference.lastIndexOf(':')
  return [reference.slice(0, colon), reference.slice(colon + 1)]
}

async function post(path: string, body: unknown): Promise<{ Id?: string }> {
  const text = await call('POST', path, body)
  return text === '' ? {} : JSON.parse(text)
}

async function call(
  method: string,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<string> {
  const sent = request({
    socketPath: dockerHost.replace(/^unix:\/\//, ''),
    method,
    path,
    headers: { 'Content-Type': 'application/json', ...headers },
  })
  sent.end(body === undefined ? '' : JSON.stringify(body))
  const [answer] = await once(sent, 'response')
  return (await buffer(answer)).toString('utf8')
}
