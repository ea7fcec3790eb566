/** The parts of undici that are loaded by themselves; what is exported there has the types that undici declares for the whole. */
declare module 'undici/lib/dispatcher/agent.js' {
  import { Agent } from 'undici'

  export = Agent
}

declare module 'undici/lib/web/fetch/index.js' {
  export { fetch } from 'undici'
}
