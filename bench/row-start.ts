// Process start to first poll: the time until the queue is asked for due runs, and the processor time spent by then.

import { until } from '../test/support/until.ts'
import { kinds } from './agents.ts'
import { median, type Row, round } from './figures.ts'
import { Corner, type Ground } from './ground.ts'
import { readProcessorMs } from './process-tree.ts'

const times = { prefect: 3, rigel: 9 }
const route = 'POST /work_queues/{id}/get_runs'

export async function measureStart(ground: Ground): Promise<readonly Row[]> {
  const cells = { prefect: { wall: '', processor: '' }, rigel: { wall: '', processor: '' } }
  for (const kind of kinds) {
    const wall: number[] = []
    const processor: number[] = []
    await using corner = await Corner.open(ground)
    for (let time = 0; time < times[kind]; time++) {
      corner.forget()
      await using agent = await corner.start({ kind })
      const options = { timeoutMs: 60_000, everyMs: 2, what: `${kind} to poll` }
      const arrivedAt = await until(() => corner.recorder.firstArrival(route), options)
      processor.push(readProcessorMs(agent.pid, true) / 1000)
      wall.push((arrivedAt - agent.startedAt) / 1000)
    }
    cells[kind] = { wall: `${round(median(wall), 2)} s`, processor: `${round(median(processor), 2)} s` }
  }
  const { prefect, rigel } = cells
  return [
    { what: 'process start to first poll', prefect: prefect.wall, rigel: rigel.wall, target: '≤ 0.3 s' },
    { what: 'processor time until then', prefect: prefect.processor, rigel: rigel.processor, target: '≤ 0.3 s' },
  ]
}
