// undici publishes types for its front door only; we enter by side doors, because the front door loads 10 MiB that
// we never use (fetch, mocks, caches).

declare module 'undici/lib/dispatcher/pool.js' {
  import type { Pool } from 'undici'

  const PoolClass: typeof Pool
  export default PoolClass
}

declare module 'undici/lib/dispatcher/proxy-agent.js' {
  import type { ProxyAgent } from 'undici'

  const ProxyAgentClass: typeof ProxyAgent
  export default ProxyAgentClass
}
