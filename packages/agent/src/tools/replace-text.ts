interface Replacement {
  path: string
  old_text: string
  new_text: string
  replace_all?: boolean
}

/**
 * Exact replacement. Models write line feeds also for files with CRLF: there both texts are taken with the file's own line ends. Throws, in
 * words for the model, when the old text is not there, or not unique.
 */
export function replaceText(text: string, { path, old_text, new_text, replace_all }: Replacement): string {
  const isCrlf = text.includes('\r\n') && !/(^|[^\r])\n/.test(text)
  const adapt = (part: string) => (isCrlf ? part.replace(/\r?\n/g, '\r\n') : part)
  const oldText = text.includes(old_text) ? old_text : adapt(old_text)
  const count = text.split(oldText).length - 1
  if (count === 0) throw new Error(`old_text is not in ${path}.${hint(text, old_text)}`)
  if (count > 1 && !replace_all) {
    throw new Error(`old_text is ${count} times in ${path}; give more of the lines around it, or set replace_all.`)
  }
  // A function, because `$&` in a string would be read as a pattern.
  return text.replaceAll(oldText, () => adapt(new_text))
}

/** Where the text would be if spaces did not count: the commonest slip. */
function hint(text: string, oldText: string): string {
  const at = indexOfLines(text.split('\n').map(squeeze), oldText.split('\n').map(squeeze))
  if (at >= 0) return ` Line ${at + 1} begins the same text with other whitespace; copy it exactly.`
  return ' Read the file again and copy the text exactly.'
}

/** By Knuth, Morris and Pratt: each line is looked at about twice, also where thousands of lines are the same. */
function indexOfLines(lines: readonly string[], wanted: readonly string[]): number {
  // Of so many wanted lines that fit: how many still do when the next one does not.
  const fallback = [0, 0]
  for (let known = 1, same = 0; known < wanted.length; known++) {
    while (same > 0 && wanted[known] !== wanted[same]) same = fallback[same] ?? 0
    if (wanted[known] === wanted[same]) same += 1
    fallback.push(same)
  }
  let same = 0
  for (const [index, line] of lines.entries()) {
    while (same > 0 && line !== wanted[same]) same = fallback[same] ?? 0
    if (line === wanted[same]) same += 1
    if (same === wanted.length) return index + 1 - same
  }
  return -1
}

function squeeze(line: string): string {
  return line.replace(/\s+/g, ' ').trim()
}
