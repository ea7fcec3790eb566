import { stripVTControlCharacters } from 'node:util'

/**
 * Text from a run as a terminal may show it. Commands and models write what they like; escape sequences could move the cursor, change
 * the title or write to the clipboard of whoever watches, so none gets through. Tabs and line breaks stay; a carriage return, with which
 * programs draw progress bars, begins a new line.
 */
export function plainText(text: string): string {
  return (
    stripVTControlCharacters(text)
      .replace(/\r\n?/g, '\n')
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out.
      .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, '')
  )
}

/** The same on one line, for tables and titles. */
export function oneLine(text: string): string {
  return plainText(text).replace(/\s+/g, ' ').trim()
}
