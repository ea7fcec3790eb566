import type { AgentEventData } from '@openoz/protocol'

/**
 * Calls of tools, and what they made, as the reference's stream has them. Tools that it does not know keep their own names and inputs.
 */
type Call = Pick<AgentEventData['tool_call'], 'tool' | 'rawInput'>
type Update = Pick<AgentEventData['tool_call_update'], 'rawOutput' | 'content'>
type Fields = Record<string, unknown>

const uploads: ReadonlySet<unknown> = new Set(['FILE', 'SCREENSHOT'])

export function toolName({ tool, rawInput }: Call): string {
  if (tool === 'report_artifact' && uploads.has(rawInput.artifact_type)) return 'upload_artifact'
  return tool
}

export function inputOf(call: Call): Fields {
  const { rawInput: input } = call
  switch (toolName(call)) {
    case 'run_command':
      return { command: input.command }
    case 'write_to_command':
      return {}
    case 'read_files':
      return { files: input.files }
    case 'edit_files':
      return { title: input.title ?? '', file_paths: editedPaths(input.edits) }
    case 'grep':
      return { queries: input.queries, path: input.path ?? '.' }
    case 'file_glob':
      return { patterns: input.patterns, path: input.path ?? '.' }
    case 'upload_artifact':
      return { path: input.path, description: input.description }
    default:
      return withoutType(input)
  }
}

export function outputOf(call: Call, update: Update): Fields {
  const { rawOutput: output = {} } = update
  switch (toolName(call)) {
    case 'run_command':
    case 'read_command':
    case 'write_to_command':
      if (output.status === 'running') return { status: 'running' }
      return { status: 'complete', exit_code: output.exit_code, output: textOf(update) }
    case 'edit_files':
      return { diff: output.diff ?? '' }
    case 'read_files':
      return { files: output.files, failed_files: output.failed_files }
    case 'grep':
    case 'file_glob':
      return { files: output.files }
    case 'upload_artifact': {
      const { artifact_uid, filepath, mime_type, description, size_bytes } = output
      return { artifact_uid, filepath, mime_type, description, size_bytes }
    }
    default:
      return withoutType(output)
  }
}

export function artifactObject({ artifact_type, ...data }: AgentEventData['artifact']): Fields {
  const type = artifact_type.toLowerCase()
  switch (artifact_type) {
    case 'PULL_REQUEST':
      return { artifact_type: type, url: data.url, branch: data.branch }
    case 'PLAN':
      return { artifact_type: type, document_id: data.document_uid, notebook_link: data.url, title: data.title }
    case 'SCREENSHOT':
    case 'FILE': {
      const { artifact_uid, filepath, filename, mime_type, description, size_bytes } = data
      return { artifact_type: type, artifact_uid, filepath, filename, mime_type, description, size_bytes }
    }
    default:
      return { ...withoutType(data), artifact_type: type }
  }
}

function editedPaths(edits: unknown): string[] {
  const paths = (Array.isArray(edits) ? edits : []).flatMap((edit: unknown) => {
    const { path, new_path } = (edit ?? {}) as Fields
    return [path, new_path].filter((one) => typeof one === 'string')
  })
  return [...new Set(paths)]
}

function textOf({ content = [] }: Update): string {
  return content.flatMap((part) => (part.type === 'content' ? [part.content.text] : [])).join('')
}

/** The keys of the object itself are not a tool's to set. */
function withoutType({ type: _type, tool: _tool, ...fields }: Fields): Fields {
  return fields
}
