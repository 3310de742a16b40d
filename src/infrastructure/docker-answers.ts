// What we read of an engine's answers, and nothing more: engines differ in the rest.

import * as v from 'valibot'

export const versionSchema = v.object({
  Version: v.string(),
  ApiVersion: v.string(),
  Components: v.nullish(v.array(v.object({ Name: v.string() })), []),
})

export const containerSchema = v.object({
  Id: v.string(),
  Name: v.string(),
  Image: v.string(),
  State: v.object({
    Status: v.string(),
    Running: v.boolean(),
    Paused: v.nullish(v.boolean(), false),
    OOMKilled: v.nullish(v.boolean(), false),
    ExitCode: v.number(),
    Error: v.nullish(v.string(), ''),
    StartedAt: v.nullish(v.string(), ''),
    FinishedAt: v.nullish(v.string(), ''),
  }),
  Config: v.object({
    Labels: v.nullish(v.record(v.string(), v.string()), {}),
    Tty: v.nullish(v.boolean(), false),
    User: v.nullish(v.string(), ''),
    WorkingDir: v.nullish(v.string(), ''),
    Image: v.string(),
  }),
  HostConfig: v.object({ Memory: v.nullish(v.number(), 0) }),
})
export type ContainerInfo = v.InferOutput<typeof containerSchema>

export const listSchema = v.array(
  v.object({
    Id: v.string(),
    Names: v.array(v.string()),
    /** As it was written when the container was created. */
    Image: v.nullish(v.string(), ''),
    ImageID: v.nullish(v.string(), ''),
    State: v.string(),
    Created: v.number(),
    Labels: v.nullish(v.record(v.string(), v.string()), {}),
  }),
)
export type ContainerSummary = v.InferOutput<typeof listSchema>[number]

export const imageSchema = v.object({ Id: v.string(), RepoTags: v.nullish(v.array(v.string()), []) })
export type ImageInfo = v.InferOutput<typeof imageSchema>
