import { expect, test } from 'vitest'
import { withPreloadAside } from './image-preload.ts'

test('what an image loads into its programs is not loaded into ours, and is handed on by another name', () => {
  const image = ['PATH=/bin', 'LD_PRELOAD=/usr/lib/libjemalloc.so.2']
  const aside = { A: 'b', LD_PRELOAD: '', OZ_IMAGE_LD_PRELOAD: '/usr/lib/libjemalloc.so.2' }
  expect(withPreloadAside({ A: 'b' }, image)).toEqual(aside)
})

test('the task’s own word goes before the image’s', () => {
  const image = ['LD_PRELOAD=/image.so']
  expect(withPreloadAside({ LD_PRELOAD: '/task.so' }, image)).toEqual({
    LD_PRELOAD: '',
    OZ_IMAGE_LD_PRELOAD: '/task.so',
  })
  expect(withPreloadAside({ LD_PRELOAD: '' }, image)).toEqual({ LD_PRELOAD: '' })
})

test('without one nothing changes', () => {
  for (const image of [['PATH=/bin'], [], null, undefined])
    expect(withPreloadAside({ A: 'b' }, image)).toEqual({ A: 'b' })
})
