export { readServerOptions, type ServerOptions, serverFlags } from './config.ts'
export { type RunningServer, startServer } from './server.ts'
