import fc from 'fast-check'
import type { ApiDocument, ApiRequest, Operation } from './api-contract.ts'

/** A part of a JSON schema, as far as the document uses them. */
interface Schema {
  $ref?: string
  type?: string | string[]
  enum?: unknown[]
  const?: unknown
  format?: string
  items?: Schema
  properties?: Record<string, Schema>
  required?: string[]
  additionalProperties?: Schema | boolean
  anyOf?: Schema[]
  oneOf?: Schema[]
  allOf?: Schema[]
  minItems?: number
}

/** What programs send that nobody thought of. */
const strangeTexts = [
  ...[
    '',
    ' ',
    '\0',
    'a\0b',
    '\ud800',
    '\u202e',
    '__proto__',
    'constructor',
    "'; --",
    '%',
    '%00',
    '[',
    ']',
    'a[b]',
    '{}',
    '\\u0000',
    '../..',
  ],
  ...[
    '9999-12-31T23:59:59+23:59',
    '0000-00-00T00:00:00Z',
    '2024-02-30T00:00:00Z',
    '-1',
    '1e308',
    '9223372036854775808',
    'NaN',
    'true',
  ],
  ...[
    '00000000-0000-0000-0000-000000000000',
    'https://user:password@git.example.com/a.git',
    'file:///etc/passwd',
    '-oProxyCommand=x',
  ],
  'x'.repeat(300),
  'ü'.repeat(300),
]

const strangeText = fc.oneof(fc.constantFrom(...strangeTexts), fc.string({ unit: 'binary', maxLength: 40 }))

const strange: fc.Arbitrary<unknown> = fc.oneof(
  strangeText,
  fc.constantFrom<unknown>(null, true, 0, -1, 1.5, 2 ** 53, 1e308, [], {}, [null], { __proto__: null, a: {} }),
  fc.jsonValue({ maxDepth: 4 }),
)

/** Requests over the whole document: mostly as it says, with something strange here and there. `ids` are of things that exist. */
export function generatedRequests(
  document: ApiDocument,
  operation: Operation,
  ids: string[],
): fc.Arbitrary<ApiRequest> {
  const value = (schema: Schema, depth = 0): fc.Arbitrary<unknown> => {
    const fitting = fits(schema, depth)
    return fc.oneof({ weight: 12, arbitrary: fitting }, { weight: 1, arbitrary: strange })
  }
  const fits = (schema: Schema, depth: number): fc.Arbitrary<unknown> => {
    if (depth > 6) return fc.constant(null)
    if (schema.$ref !== undefined) {
      const name = schema.$ref.split('/').at(-1) ?? ''
      return fits((document.components.schemas[name] ?? {}) as Schema, depth + 1)
    }
    if (schema.const !== undefined) return fc.constant(schema.const)
    if (schema.enum) return fc.constantFrom(...schema.enum)
    const choices = schema.anyOf ?? schema.oneOf
    if (choices) return fc.oneof(...choices.map((choice) => fits(choice, depth + 1)))
    if (schema.allOf) return fits(Object.assign({}, ...schema.allOf), depth + 1)
    const [type] = [schema.type ?? 'string'].flat()
    switch (type) {
      case 'object':
        return objects(schema, depth)
      case 'array':
        return fc.array(value(schema.items ?? {}, depth + 1), { minLength: schema.minItems ?? 0, maxLength: 3 })
      case 'integer':
        return fc.oneof(fc.integer({ min: 0, max: 50 }), fc.maxSafeInteger())
      case 'number':
        return fc.double()
      case 'boolean':
        return fc.boolean()
      case 'null':
        return fc.constant(null)
      default:
        return texts(schema)
    }
  }
  const objects = (schema: Schema, depth: number): fc.Arbitrary<unknown> => {
    const known: [string, fc.Arbitrary<unknown>][] = Object.entries(schema.properties ?? {}).map(([name, property]) => [
      name,
      value(property, depth + 1),
    ])
    const record = fc.record(Object.fromEntries(known), { requiredKeys: (schema.required ?? []) as never[] })
    if (typeof schema.additionalProperties !== 'object') return record
    const others = fc.dictionary(
      fc.oneof(fc.string({ maxLength: 10 }), strangeText),
      value(schema.additionalProperties, depth + 1),
      {
        maxKeys: 3,
      },
    )
    return fc.tuple(record, others).map(([a, b]) => ({ ...b, ...a }))
  }
  const texts = ({ format }: Schema): fc.Arbitrary<string> => {
    if (format === 'uuid') return fc.oneof(fc.constantFrom(...ids), fc.uuid())
    if (format === 'date-time') return fc.date({ noInvalidDate: true }).map((date) => date.toISOString())
    return fc.oneof(fc.string({ maxLength: 30 }), fc.constantFrom(...ids))
  }

  // What a URL makes of an empty segment or dots leads to another route.
  const segment = fc
    .oneof({ weight: 3, arbitrary: fc.constantFrom(...ids) }, strangeText)
    .filter((text) => !['', '.', '..'].includes(text) && text.isWellFormed())
  const named = (place: string) => operation.parameters.filter((parameter) => parameter.in === place)
  const parameter = (schema: Schema) => value(schema).map((one) => (Array.isArray(one) ? one.map(textOf) : textOf(one)))
  const query = fc.record(
    {
      ...Object.fromEntries(named('query').map(({ name, schema }) => [name, parameter(schema as Schema)])),
      unknown: strangeText,
      'metadata[a]': strangeText,
    },
    { requiredKeys: named('query').flatMap(({ name, required }) => (required ? [name as never] : [])) },
  )
  const path = fc.record(Object.fromEntries(named('path').map(({ name }) => [name, segment])))
  const json = operation.requestBody?.content['application/json']?.schema as Schema | undefined
  const body: fc.Arbitrary<Pick<ApiRequest, 'json' | 'body'>> = json
    ? fc.oneof(
        { weight: 10, arbitrary: value(json).map((one) => ({ json: one })) },
        {
          weight: 1,
          arbitrary: strangeText.map((text) => ({ body: text, headers: { 'content-type': 'application/json' } })),
        },
      )
    : operation.requestBody
      ? strangeText.map((text) => ({ body: text }))
      : fc.constant({})
  return fc
    .record({ path, body, query: fc.oneof(query, fc.constant({})) })
    .map(({ path: segments, body: content, query: parameters }) => ({ path: segments, query: parameters, ...content }))
}

/** As it stands in a query; what was generated may have no `toString` of its own. */
function textOf(value: unknown): string {
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}
