import type { LineRange } from './file-lines.ts'

export const maxPdfBytes = 50 * 1024 * 1024

interface PdfText {
  content: string
  pages: LineRange
  totalPages: number
  note?: string
}

/** The text of a PDF's pages, as far as it fits. Rejects, in words for the model, for what cannot be read. */
export async function pdfText(
  bytes: Uint8Array,
  range: LineRange | undefined,
  { maxCharacters, signal }: { maxCharacters: number; signal: AbortSignal },
): Promise<PdfText> {
  // Large, and most runs never meet a PDF.
  const { getDocumentProxy } = await import('unpdf')
  const pdf = await getDocumentProxy(new Uint8Array(bytes), { verbosity: 0 }).catch((error: unknown) => {
    const said = error instanceof Error ? error.message : String(error)
    throw new Error(`is a PDF that cannot be read: ${said}`)
  })
  try {
    const totalPages = pdf.numPages
    const start = range?.start ?? 1
    if (start > totalPages) throw new Error(`begins behind the end: the PDF has ${totalPages} pages.`)
    let content = ''
    let page = start
    for (; page <= Math.min(range?.end ?? totalPages, totalPages); page++) {
      signal.throwIfAborted()
      const text = await pageText(await pdf.getPage(page))
      const shown = `[page ${page}]\n${text.trim() === '' ? '[no text; perhaps a picture]' : text}\n`
      if (content !== '' && content.length + shown.length > maxCharacters) break
      content += shown.slice(0, maxCharacters)
    }
    const end = page - 1
    const isCut = end < Math.min(range?.end ?? totalPages, totalPages)
    const note = isCut ? `Cut after page ${end}. Ask for what follows with lines, which are pages here.` : undefined
    return { content, pages: { start, end }, totalPages, note }
  } finally {
    await pdf.loadingTask.destroy()
  }
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
