import { execFileSync } from 'node:child_process'
import { appendFileSync, chmodSync, mkdirSync, symlinkSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { deflateSync } from 'node:zlib'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { asNobody, makeToolWorkspace } from '../../../../test/support/tool-workspace.ts'
import { pdfText } from './pdf-text.ts'
import { readFiles } from './read-files.ts'
import { readSmallFile } from './text-file.ts'

let work: ReturnType<typeof makeToolWorkspace>
beforeEach(() => {
  work = makeToolWorkspace({ secrets: ['hunter2'] })
})
afterEach(() => work[Symbol.dispose]())

interface Read {
  files: {
    path: string
    content: string
    lines?: { start: number; end: number }
    total_lines?: number
    note?: string
  }[]
  failed_files: { path: string; error: string }[]
}

async function read(...files: (string | { path: string; lines: { start: number; end: number }[] })[]) {
  const input = { files: files.map((file) => (typeof file === 'string' ? { path: file } : file)) }
  const { result, ...output } = await work.call(readFiles, input)
  return { ...output, ...(result as unknown as Read) }
}
const failure = async (path: string) => (await read(path)).failed_files[0]?.error

test('several files come in one call, exactly as they are, and what fails is told beside them', async () => {
  work.write('dos.txt', '\uFEFFone\r\ntwo')
  work.write('empty.txt', '')
  work.write('sub/secret.env', 'PASSWORD=hunter2\n')
  const { files, failed_files, isError } = await read('dos.txt', 'empty.txt', 'sub/secret.env', 'absent')
  expect(files).toEqual([
    { path: 'dos.txt', content: 'one\r\ntwo', lines: { start: 1, end: 2 }, total_lines: 2 },
    { path: 'empty.txt', content: '', total_lines: 0, note: 'The file is empty.' },
    { path: 'sub/secret.env', content: 'PASSWORD=***\n', lines: { start: 1, end: 1 }, total_lines: 1 },
  ])
  expect(failed_files).toEqual([{ path: 'absent', error: 'absent does not exist.' }])
  expect(isError).toBe(false)
})

test('ranges of lines', async () => {
  work.write('a.txt', 'one\ntwo\nthree\nfour')
  const range = (start: number, end: number) => read({ path: 'a.txt', lines: [{ start, end }] })
  expect((await range(2, 3)).files[0]).toMatchObject({ content: 'two\nthree\n', lines: { start: 2, end: 3 } })
  expect((await range(4, 99)).files[0]).toMatchObject({ content: 'four', lines: { start: 4, end: 4 }, total_lines: 4 })
  expect((await range(5, 9)).failed_files[0]?.error).toBe('a.txt begins behind the end: the file has 4 lines.')
  expect((await range(3, 2)).failed_files[0]?.error).toContain('2 comes before 3')
  const several = [
    { start: 1, end: 1 },
    { start: 3, end: 3 },
  ]
  expect((await read({ path: 'a.txt', lines: several })).files.map(({ content }) => content)).toEqual([
    'one\n',
    'three\n',
  ])
})

test('a long file is cut at a line, and says how to read on', async () => {
  const line = `${'x'.repeat(99)}\n`
  work.write('long.txt', line.repeat(1_000))
  const { files } = await read('long.txt')
  expect(files[0]).toMatchObject({ lines: { start: 1, end: 600 }, total_lines: 1_000 })
  expect(files[0]?.content.length).toBe(60_000)
  expect(files[0]?.note).toContain('lines: [{"start": 601')
  work.write('one-line.js', 'é'.repeat(100_000))
  expect((await read('one-line.js')).files[0]?.note).toContain('Line 1 is too long')
  const many = await read('long.txt', 'long.txt', 'long.txt', 'long.txt')
  expect(many.files.length).toBe(3)
  expect(many.failed_files[0]?.error).toContain('Read it in another call')
})

test('of a huge file only a range is read', async () => {
  work.write('huge.log', `${'y'.repeat(1023)}\n`.repeat(20 * 1024))
  appendFileSync(join(work.toolsFolder, 'huge.log'), 'the end')
  expect(await failure('huge.log')).toContain('huge.log has 20971527 bytes; files above 10485760 bytes')
  const at = (start: number, end: number) => read({ path: 'huge.log', lines: [{ start, end }] })
  expect((await at(20_481, 20_481)).files[0]).toMatchObject({
    content: 'the end',
    lines: { start: 20_481, end: 20_481 },
  })
  expect((await at(20_482, 20_482)).failed_files[0]?.error).toContain('the file has 20481 lines')
  expect((await at(10, 10_000)).files[0]).toMatchObject({ lines: { start: 10, end: 67 } })
  work.write('one-line.txt', '€'.repeat(5_000_000))
  const { files } = await read({ path: 'one-line.txt', lines: [{ start: 1, end: 1 }] })
  expect(files[0]?.content).toBe('€'.repeat(60_000))
})

test('a file of 200 MB is neither read nor waited for', async () => {
  work.write('sparse', '')
  truncateSync(join(work.toolsFolder, 'sparse'), 200 * 1024 * 1024)
  const before = process.memoryUsage().rss
  expect(await failure('sparse')).toContain('a binary file (209715200 bytes)')
  expect((await read({ path: 'sparse', lines: [{ start: 1, end: 9 }] })).failed_files[0]?.error).toContain('binary')
  expect(process.memoryUsage().rss - before).toBeLessThan(50_000_000)
})

test('what is no text is refused by name', async () => {
  work.write('a.bin', Buffer.from([1, 0, 2]))
  work.write('latin1.txt', Buffer.from('caf\xe9', 'latin1'))
  work.write('utf16.txt', Buffer.from('\uFEFFhello', 'utf16le'))
  symlinkSync('loop', join(work.toolsFolder, 'loop'))
  expect(await failure('a.bin')).toContain('a.bin is a binary file (3 bytes)')
  expect(await failure('latin1.txt')).toContain('is no text in UTF-8 (4 bytes)')
  expect(await failure('utf16.txt')).toContain('iconv -f UTF-16')
  expect(await failure('/dev/zero')).toBe('/dev/zero is no regular file.')
  expect(await failure('loop')).toContain('lead in a circle')
  expect(await failure('/proc/self/environ')).toContain('a file of the kernel')
  expect(await failure('a.bin/x')).toContain('a part of this path is a file')
  expect((await read('a.bin')).isError).toBe(true)
})

test('a folder is listed, and for a missing file near names are given', async () => {
  work.write('src/index.ts', '')
  mkdirSync(join(work.toolsFolder, 'src/deep'))
  expect(await failure('src')).toContain('src is a folder. It has deep/, index.ts.')
  expect(await failure('src/indx.ts')).toMatch(/does not exist\. .*src has index\.ts\.$/)
  expect(await failure('src/index.js')).toContain('has index.ts')
  expect(await failure('scr/index.ts')).toMatch(/The folder .*scr is not there either\. .* has src\./)
})

test('permission denied is said in words', async ({ skip }) => {
  if (process.getuid?.() !== 0) skip('as root the files of somebody else can be made')
  work.write('secret', 'x')
  chmodSync(join(work.toolsFolder, 'secret'), 0o600)
  expect(await asNobody(() => failure('secret'))).toBe('secret: permission denied.')
})

test('pictures come as pictures, unless they are broken or too large', async () => {
  const png = pngOf(3, 2)
  work.write('a.txt', png)
  work.write('broken.png', png.subarray(0, 30))
  work.write('wide.png', pngOf(9_000, 1))
  work.write('large.png', Buffer.concat([png, Buffer.alloc(6_000_000)]))
  work.write('a.jpg', jpeg)
  work.write('half.jpg', jpeg.subarray(0, 30))
  work.write('a.webp', Buffer.from('UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA', 'base64'))
  work.write('a.gif', Buffer.from('R0lGODlhAQABAAAAACwAAAAAAQABAAACAUwAOw==', 'base64'))
  const { files, failed_files, images } = await read(
    'a.txt',
    'broken.png',
    'wide.png',
    'large.png',
    'a.gif',
    'a.jpg',
    'half.jpg',
    'a.webp',
  )
  expect(files.map(({ content }) => content)).toEqual([
    `[picture: image/png, 3×2 pixels, ${png.length} bytes]`,
    '[picture: image/gif, 1×1 pixels, 28 bytes]',
    `[picture: image/jpeg, 32×16 pixels, ${jpeg.length} bytes]`,
    '[picture: image/webp, 1×1 pixels, 42 bytes]',
  ])
  expect(images?.map(({ mediaType }) => mediaType)).toEqual(['image/png', 'image/gif', 'image/jpeg', 'image/webp'])
  expect(Buffer.from(images?.[0]?.data ?? []).equals(png)).toBe(true)
  expect(failed_files.map(({ error }) => error)).toEqual([
    expect.stringContaining('is broken'),
    expect.stringContaining('9000×1 pixels are too many'),
    expect.stringContaining('bytes are too many for a picture'),
    expect.stringContaining('half.jpg begins like a picture (image/jpeg), but is broken'),
  ])
})

test('a notebook comes as cells, and as JSON where it is to be edited', async () => {
  const cells = [
    { cell_type: 'markdown', source: ['# Title\n', 'text'] },
    {
      cell_type: 'code',
      source: 'print(1)',
      outputs: [
        { output_type: 'stream', name: 'stdout', text: ['1\n'] },
        { output_type: 'display_data', data: { 'image/png': 'aGk=', 'text/plain': '<Figure>' } },
        { output_type: 'error', ename: 'E', evalue: 'v', traceback: ['\u001b[31mE\u001b[0m: v'] },
      ],
    },
  ]
  work.write('a.ipynb', JSON.stringify({ cells, nbformat: 4 }))
  const { files } = await read('a.ipynb')
  expect(files[0]?.content).toBe(
    '[cell 1, markdown]\n# Title\ntext\n\n[cell 2, code]\nprint(1)\n[output]\n1\n\n[output]\n<Figure>\n[image/png: not shown]\n[output]\nE: v\n',
  )
  expect((await read({ path: 'a.ipynb', lines: [{ start: 1, end: 1 }] })).files[0]?.content).toContain('{"cells"')
  work.write('broken.ipynb', '{')
  expect((await read('broken.ipynb')).files[0]?.content).toBe('{')
})

test('a PDF comes as the text of its pages', async () => {
  work.write('a.pdf', pdfOf(['Hello page one', 'And page two']))
  expect((await read('a.pdf')).files[0]).toMatchObject({
    content: '[page 1]\nHello page one\n[page 2]\nAnd page two\n',
    note: 'Pages 1 to 2 of 2.',
  })
  const second = await read({ path: 'a.pdf', lines: [{ start: 2, end: 2 }] })
  expect(second.files[0]?.content).toBe('[page 2]\nAnd page two\n')
  work.write('broken.pdf', '%PDF-1.7\nnothing')
  expect(await failure('broken.pdf')).toContain('broken.pdf is a PDF that cannot be read')
})

/** Its headers: an application segment, the frame of 32 × 16, the end. */
const jpeg = Buffer.from('ffd8ffe000104a46494600010100000100010000ffc0000b080010002001011100ffd9', 'hex')

function pngOf(width: number, height: number): Buffer {
  const chunk = (type: string, data: Buffer) => {
    const length = Buffer.alloc(4)
    length.writeUInt32BE(data.length)
    return Buffer.concat([length, Buffer.from(type, 'latin1'), data, Buffer.alloc(4)])
  }
  const header = Buffer.alloc(13)
  header.writeUInt32BE(width, 0)
  header.writeUInt32BE(height, 4)
  header[8] = 8
  const pixels = deflateSync(Buffer.alloc((width + 1) * height))
  const start = Buffer.from('\x89PNG\r\n\x1A\n', 'latin1')
  return Buffer.concat([start, chunk('IHDR', header), chunk('IDAT', pixels), chunk('IEND', Buffer.alloc(0))])
}

function pdfOf(pages: string[]): string {
  const objects = ['<</Type/Catalog/Pages 2 0 R>>', '', '<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>']
  const kids = pages.map((text) => {
    const stream = `BT /F1 12 Tf 20 100 Td (${text}) Tj ET`
    objects.push(`<</Length ${stream.length}>>stream\n${stream}\nendstream`)
    const resources = '/Resources<</Font<</F1 3 0 R>>>>'
    objects.push(`<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]${resources}/Contents ${objects.length} 0 R>>`)
    return `${objects.length} 0 R`
  })
  objects[1] = `<</Type/Pages/Kids[${kids.join(' ')}]/Count ${kids.length}>>`
  const offsets: number[] = []
  let file = '%PDF-1.4\n'
  for (const [i, object] of objects.entries()) {
    offsets.push(file.length)
    file += `${i + 1} 0 obj${object}endobj\n`
  }
  const rows = offsets.map((offset) => `${String(offset).padStart(10, '0')} 00000 n \n`).join('')
  const table = `xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${rows}`
  return `${file}${table}trailer<</Size ${objects.length + 1}/Root 1 0 R>>\nstartxref\n${file.length}\n%%EOF\n`
}

/** A small file of which a page unfolds into so much text that reading it takes seconds, without a pause. */
function heavyPdf(): Buffer {
  const stream = deflateSync(Buffer.from(`BT /F1 12 Tf 10 10 Td ${'(aaaaaaaaaaaaaaaa) Tj\n'.repeat(3_000_000)}ET`))
  const objects = [
    '<</Type/Catalog/Pages 2 0 R>>',
    '<</Type/Pages/Kids[3 0 R]/Count 1>>',
    '<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 5 0 R/Resources<</Font<</F1 4 0 R>>>>>>',
    '<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>',
  ].map((object, i) => Buffer.from(`${i + 1} 0 obj${object}endobj\n`))
  objects.push(
    Buffer.concat([
      Buffer.from(`5 0 obj<</Length ${stream.length}/Filter/FlateDecode>>stream\n`),
      stream,
      Buffer.from('\nendstream endobj\n'),
    ]),
  )
  return Buffer.concat([Buffer.from('%PDF-1.4\n'), ...objects, Buffer.from('trailer<</Size 6/Root 1 0 R>>\n%%EOF\n')])
}

test('a PDF that keeps its reader busy neither holds up the agent nor a cancel, and is given up after a time', async () => {
  work.write('heavy.pdf', heavyPdf())
  let longestPause = 0
  let last = performance.now()
  const watch = setInterval(() => {
    longestPause = Math.max(longestPause, performance.now() - last)
    last = performance.now()
  }, 20)
  try {
    const stop = new AbortController()
    const reading = work.call(readFiles, { files: [{ path: 'heavy.pdf' }] }, { signal: stop.signal })
    const begun = performance.now()
    setTimeout(() => stop.abort(new Error('cancelled')), 700)
    await expect(reading).rejects.toThrow('cancelled')
    expect(performance.now() - begun).toBeLessThan(2_500)
    expect(longestPause).toBeLessThan(1_000)
  } finally {
    clearInterval(watch)
  }
  const options = { maxCharacters: 1_000, signal: new AbortController().signal, timeoutMs: 300 }
  await expect(pdfText(heavyPdf(), undefined, options)).rejects.toThrow('takes more than 0 s to read')
}, 20_000)

test('what only looks like a file is not waited for', async () => {
  const pipe = join(work.toolsFolder, 'pipe')
  execFileSync('mkfifo', [pipe])
  expect(await failure('pipe')).toBe('pipe is no regular file.')
  // Also when it has taken the place of a file since somebody looked.
  await expect(readSmallFile(pipe, 'pipe')).rejects.toThrow('pipe is no regular file.')
  expect(await failure('/sys/kernel/notes')).toContain('a file of the kernel')
  work.write('a.txt', 'x')
  const stopped = { signal: AbortSignal.abort(new Error('stopped')) }
  await expect(readSmallFile(join(work.toolsFolder, 'a.txt'), 'a.txt', stopped)).rejects.toThrow('stopped')
})

test('the pointer of a file that Git LFS keeps is said to be one', async () => {
  const pointer = `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 12345\n`
  work.write('model.bin', pointer)
  const { files } = await read('model.bin')
  expect(files[0]).toMatchObject({ content: pointer, note: expect.stringContaining('`git lfs pull` fetches it') })
})
