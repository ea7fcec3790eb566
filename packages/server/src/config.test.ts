import { expect, test } from 'vitest'
import { defaultDataDir, readServerOptions } from './config.ts'

const leases = (unreachable: string, stop: string, lost: string) => ({
  OZ_LEASE_UNREACHABLE: unreachable,
  OZ_LEASE_STOP: stop,
  OZ_LEASE_LOST: lost,
})

test('durations are read as people write them everywhere', () => {
  expect(readServerOptions({}, leases('1.5s', '1h30m', '1w')).lease).toMatchObject({
    unreachableMs: 1_500,
    stopMs: 5_400_000,
    lostMs: 604_800_000,
  })
})

test('a duration that is none is refused with the option’s name', () => {
  expect(() => readServerOptions({}, { OZ_LLM_RETRY_FOR: 'soon' })).toThrow(
    /OZ_LLM_RETRY_FOR.*"soon" is not a duration such as 45m/,
  )
})

test.each([
  ['15s', '15s', '13m', /OZ_LEASE_STOP.*longer than OZ_LEASE_UNREACHABLE/],
  ['15s', '14m', '13m', /OZ_LEASE_LOST.*70000 ms longer than OZ_LEASE_STOP/],
  ['15s', '12m', '12m 59s', /OZ_LEASE_LOST.*60000 ms longer than OZ_LEASE_STOP/],
  ['45s', '12m', '13m', /OZ_LEASE_SETTLED.*twice OZ_LEASE_UNREACHABLE/],
] as const)('lease times that would let two agents work at once are refused: %s, %s, %s', (...times) => {
  const [unreachable, stop, lost, problem] = times
  expect(() => readServerOptions({}, leases(unreachable, stop, lost))).toThrow(problem)
})

test('an outage that every heartbeat would be taken for is refused', () => {
  expect(() => readServerOptions({}, { OZ_LEASE_OUTAGE: '5s' })).toThrow(/OZ_LEASE_OUTAGE.*at least 6000 ms/)
  const often = { ...leases('3s', '12m', '13m'), OZ_LEASE_OUTAGE: '2s' }
  expect(readServerOptions({}, often).lease.outageMs).toBe(2_000)
})

test('on Windows data lie with what stays on the machine', () => {
  expect(defaultDataDir({ LOCALAPPDATA: 'D:\\Local' }, 'win32')).toBe('D:\\Local\\openoz\\data')
})
