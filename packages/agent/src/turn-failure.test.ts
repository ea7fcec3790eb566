import { AppError } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { turnFailure } from './turn-failure.ts'

test('a full disk is named, whoever met it', () => {
  const error = Object.assign(new Error('no space'), { code: 'ENOSPC', path: '/srv/x' })
  expect(turnFailure(error)).toMatchObject({
    outcome: 'ERROR',
    errorCode: 'disk_full',
    message: expect.stringContaining('/srv/x'),
  })
})

test('what nobody expected is our own error, without the whole of what it says', () => {
  const { outcome, errorCode, message } = turnFailure(new TypeError('x'.repeat(10_000)))
  expect({ outcome, errorCode }).toEqual({ outcome: 'ERROR', errorCode: 'internal_error' })
  expect(message.length).toBeLessThan(700)
})

test('a control plane that cannot serve is nothing that the user can change', () => {
  for (const code of ['database_unreachable', 'server_starting', 'server_draining', 'server_unreachable'] as const)
    expect(turnFailure(new AppError(code))).toMatchObject({ outcome: 'ERROR', errorCode: code })
})

test('a limit that a turn reached can be changed by people, so the turn failed', () => {
  for (const code of [
    'turn_limit_reached',
    'turn_output_limit_reached',
    'turn_time_limit_reached',
    'turn_repeats_itself',
    'context_window_exceeded',
    'conversation_unreadable',
  ] as const)
    expect(turnFailure(new AppError(code))).toMatchObject({ outcome: 'FAILED', errorCode: code })
})
