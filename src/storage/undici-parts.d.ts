// undici publishes types for its front door only; this side door loads half as much.

declare module 'undici/lib/dispatcher/client.js' {
  import type { Client } from 'undici'

  const ClientClass: typeof Client
  export default ClientClass
}
