/**
 * Query parameters of the form `name[key]=value` as one object under `name`, which is how the document describes them (`deepObject`). What does not
 * fit stays as it is, so that the schema refuses it by its name: another name, no key, a second level, and `name=value` beside `name[key]=value`.
 */
export function foldDeepObject(query: unknown, name: string): unknown {
  const parameters = Object.entries(query as Record<string, unknown>)
  if (parameters.some(([key]) => key === name)) return query
  const folded: [string, unknown][] = []
  const rest: [string, unknown][] = []
  for (const [parameter, value] of parameters) {
    const key = keyIn(parameter, name)
    if (key === undefined) rest.push([parameter, value])
    else folded.push([key, value])
  }
  return folded.length === 0 ? query : { ...Object.fromEntries(rest), [name]: Object.fromEntries(folded) }
}

function keyIn(parameter: string, name: string): string | undefined {
  if (!parameter.startsWith(`${name}[`) || !parameter.endsWith(']')) return undefined
  const key = parameter.slice(name.length + 1, -1)
  // The last one would be lost on its way through the schema.
  return key === '' || key.includes('][') || key === '__proto__' ? undefined : key
}
