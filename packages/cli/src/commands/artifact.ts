import { type Command, Option } from 'commander'
import { runConnected, withExamples, withJq } from '../command-context.ts'

const exampleId = '0198c2f0-…'

export function registerArtifact(program: Command): void {
  const group = program.command('artifact').description('read and download what runs made for people')
  registerUpload(group)
  registerGet(group)
  registerDownload(group)
}

/** Hidden, as it is for agents and scripts: people let a run report what it made. */
function registerUpload(group: Command): void {
  const upload = group
    .command('upload', { hidden: true })
    .argument('<path>')
    .description('add a file to what a run made')
    .addOption(new Option('--run-id <run-id>', 'the run').env('OZ_RUN_ID'))
    .option('--conversation-id <id>', 'instead: the newest run of this conversation')
    .option('--description <text>', 'what it is')
    .action(
      runConnected<{ runId?: string; conversationId?: string; description?: string }>(
        async (context, { args, options }) => {
          const { uploadArtifact } = await import('../artifacts.ts')
          // The variable is for where nothing is said.
          const isFromVariable = upload.getOptionValueSource('runId') === 'env'
          const runId = isFromVariable && options.conversationId !== undefined ? undefined : options.runId
          return uploadArtifact(context, { ...options, path: args[0] ?? '', runId })
        },
      ),
    )
  withExamples(upload, [`oz artifact upload report.pdf --run-id ${exampleId} --description "All of it"`])
}

function registerGet(group: Command): void {
  const get = group
    .command('get')
    .argument('<uid>')
    .description('show an artifact: a plan with its text, a file with where it can be downloaded')
    .action(
      runConnected(async (context, { args }) => {
        const { showArtifact } = await import('../artifacts.ts')
        return showArtifact(context, args[0] ?? '')
      }),
    )
  withExamples(withJq(get), [`oz artifact get ${exampleId}`, `oz artifact get ${exampleId} --output-format json`])
}

function registerDownload(group: Command): void {
  const download = group
    .command('download')
    .argument('<uid>')
    .description('save an artifact as a file')
    .option('-o, --out <file>', 'where to (default: its own name, in this folder)')
    .action(
      runConnected<{ out?: string }>(async (context, { args, options }) => {
        const { downloadArtifact } = await import('../artifacts.ts')
        return downloadArtifact(context, { uid: args[0] ?? '', ...options })
      }),
    )
  withExamples(download, [`oz artifact download ${exampleId}`, `oz artifact download ${exampleId} --out report.pdf`])
}
