import { expect, test } from 'vitest'
import { defaultDataDir, readServerOptions } from './config.ts'

const leases = (unreachable: string, stop: string, lost: string) => ({
  OZ_LEASE_UNREACHABLE: unreachable,
  OZ_LEASE_STOP: stop,
  OZ_LEASE_LOST: lost,
})

test('durations are read as people write them everywhere', () => {
  expect(readServerOptions({}, leases('1.5s', '1h30m', '1w')).lease).toEqual({
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
  ['15s', '15s', '13m'],
  ['15s', '14m', '13m'],
])('lease times that do not follow each other are refused: %s, %s, %s', (...times) => {
  expect(() => readServerOptions({}, leases(...times))).toThrow(/OZ_LEASE_STOP.*between/)
})

test('on Windows data lie with what stays on the machine', () => {
  expect(defaultDataDir({ LOCALAPPDATA: 'D:\\Local' }, 'win32')).toBe('D:\\Local\\openoz\\data')
})
