export { readServerOptions, type ServerOptions, serverFlags } from './config.ts'
export { type RunningGateway, startGatewayServer } from './gateway-server.ts'
export { type RunningServer, startServer } from './server.ts'
