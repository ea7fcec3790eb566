import { parentPort, workerData } from 'node:worker_threads'
import { getDocumentProxy } from 'unpdf'
import type { PdfRequest, PdfText } from './pdf-text.ts'

/**
 * A thread for one PDF, which `pdf-text.ts` starts and, where it takes too long, ends: a single page can keep the library busy for minutes without
 * a pause. Answers with one message: the text, or words for the model on why there is none.
 */
async function pdfText({ bytes, range, maxCharacters }: PdfRequest): Promise<PdfText> {
  const pdf = await getDocumentProxy(bytes, { verbosity: 0 }).catch((error: unknown) => {
    const said = error instanceof Error ? error.message : String(error)
    throw new Error(`is a PDF that cannot be read: ${said}`)
  })
  const totalPages = pdf.numPages
  const start = range?.start ?? 1
  if (start > totalPages) throw new Error(`begins behind the end: the PDF has ${totalPages} pages.`)
  let content = ''
  let page = start
  for (; page <= Math.min(range?.end ?? totalPages, totalPages); page++) {
    const text = await pageText(await pdf.getPage(page))
    const shown = `[page ${page}]\n${text.trim() === '' ? '[no text; perhaps a picture]' : text}\n`
    if (content !== '' && content.length + shown.length > maxCharacters) break
    content += shown.slice(0, maxCharacters)
  }
  const end = page - 1
  const isCut = end < Math.min(range?.end ?? totalPages, totalPages)
  const note = isCut ? `Cut after page ${end}. Ask for what follows with lines, which are pages here.` : undefined
  return { content, pages: { start, end }, totalPages, note }
}

interface Page {
  getTextContent(): Promise<{ items: object[] }>
}

async function pageText(page: Page): Promise<string> {
  const { items } = await page.getTextContent()
  return items
    .map((item) => ('str' in item ? `${item.str}${'hasEOL' in item && item.hasEOL ? '\n' : ''}` : ''))
    .join('')
}

try {
  parentPort?.postMessage({ text: await pdfText(workerData as PdfRequest) })
} catch (error) {
  parentPort?.postMessage({ problem: error instanceof Error ? error.message : String(error) })
}
