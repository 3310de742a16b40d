// undici publishes types for its front door only; this side door loads half as much.

declare module 'undici/lib/dispatcher/env-http-proxy-agent.js' {
  import type { EnvHttpProxyAgent } from 'undici'

  const EnvHttpProxyAgentClass: typeof EnvHttpProxyAgent
  export default EnvHttpProxyAgentClass
}

declare module 'undici/lib/dispatcher/client.js' {
  import type { Client } from 'undici'

  const ClientClass: typeof Client
  export default ClientClass
}
