// undici publishes types for its front door only; we enter by side doors, because the front door loads 10 MiB that
// we never use (fetch, mocks, caches).

declare module 'undici/lib/dispatcher/pool.js' {
  import type { Pool } from 'undici'

  const PoolClass: typeof Pool
  export default PoolClass
}
