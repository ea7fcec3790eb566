import { runInNewContext } from 'node:vm'

/**
 * The converter is recursive, and takes quadratic time for much that a page can be made of, while the whole agent waits. So it has this long; after
 * that, as for what it cannot convert at all, the page comes as bare text. Everything of ours here looks at each character once.
 */
const convertTimeMs = 2_000

export interface HtmlText {
  title: string | undefined
  text: string
}

/** A page as markdown, without what only programs read. */
export async function htmlText(html: string): Promise<HtmlText> {
  const title = /<title[^<>]*>([^<]{1,500})/i.exec(html)?.[1]?.trim()
  const plain = withoutPrograms(html)
  const convert = await createConverter()
  let text: string
  try {
    // Only for its clock, which stops any code, regular expressions too: the converter itself runs as it always does.
    text = runInNewContext('convert(html)', { convert, html: plain }, { timeout: convertTimeMs })
  } catch {
    text = bareText(plain)
  }
  return { title, text: text.trim() }
}

/** Most of a page's bytes are these. One that does not end goes on to the end of the page, as in a browser. */
function withoutPrograms(html: string): string {
  const begin = /<(?:!--|(script|style|svg|noscript|template|iframe)\b)/gi
  const kept: string[] = []
  let at = 0
  for (let found = begin.exec(html); found; found = begin.exec(html)) {
    kept.push(html.slice(at, found.index))
    const end = found[1] === undefined ? /-->/g : new RegExp(`</${found[1]}\\s{0,20}>`, 'gi')
    end.lastIndex = begin.lastIndex
    at = end.exec(html) ? end.lastIndex : html.length
    begin.lastIndex = at
  }
  return kept.join('') + html.slice(at)
}

async function createConverter(): Promise<(html: string) => string> {
  const { default: Turndown } = await import('turndown')
  const turndown = new Turndown({ headingStyle: 'atx', codeBlockStyle: 'fenced', bulletListMarker: '-' })
  turndown.remove(['script', 'style', 'noscript', 'iframe', 'title', 'button', 'form'])
  const oneLine = (text: string) => text.trim().replace(/\n+/g, ' ')
  turndown.addRule('cell', { filter: ['td', 'th'], replacement: (text) => ` ${oneLine(text)} |` })
  turndown.addRule('row', { filter: 'tr', replacement: (text) => `|${text}\n` })
  return (html) => turndown.turndown(html).replace(/\n{3,}/g, '\n\n')
}

const entities: Record<string, string> = { lt: '<', gt: '>', quot: '"', amp: '&', nbsp: ' ' }

function bareText(html: string): string {
  return html
    .replace(/<\/?(?:p|div|li|tr|h[1-6]|br|section|article)\b[^<>]*>/gi, '\n')
    .replace(/<[^<>]*>/g, '')
    .replace(/&(lt|gt|quot|amp|nbsp);/g, (_, name: string) => entities[name] ?? '')
    .replace(/[ \t]+/g, ' ')
}
