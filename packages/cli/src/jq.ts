import { createRequire } from 'node:module'
import { AppError, messageOf } from '@openoz/protocol'

/**
 * `--jq`: jq itself, as WebAssembly. It is 3 MB, so only commands that were given a program load it. The build does not bundle it: it finds its
 * `.wasm` beside its own file, and `scripts/build.ts` puts both beside the programs.
 */
export interface Jq {
  /** Throws `jq_invalid` where the program cannot be compiled, before anything is done that it would be asked about. */
  check(): void
  /** What the program makes of this JSON, as jq would print it: strings without quotes, each result on its lines. Throws `jq_invalid`. */
  print(json: string, options: { isCompact: boolean }): string
}

/** The library's: throws an Error whose message begins with `Non-zero exit code: N`, jq's own words below it. */
interface JqWeb {
  raw(json: string, program: string, flags: string[]): string | undefined
}

/** jq's exit code for a program that is none. */
const notCompiled = 3

export async function loadJq(program: string): Promise<Jq> {
  const name = import.meta.url.endsWith('.ts') ? 'jq-web' : './jq.cjs'
  const jq = (await createRequire(import.meta.url)(name)) as JqWeb
  const evaluate = (
    json: string,
    flags: string[],
  ): { text: string | undefined } | { exitCode: number; problem: string } => {
    // It changes the exit code of this process to its own.
    const { exitCode } = process
    try {
      return { text: jq.raw(json, program, [...flags, '--']) }
    } catch (error) {
      const [, code, problem = ''] = /^Non-zero exit code: (\d+)\n?([\s\S]*)$/.exec(messageOf(error)) ?? []
      return { exitCode: Number(code), problem: problem.trim() || messageOf(error) }
    } finally {
      process.exitCode = exitCode
    }
  }
  return {
    check() {
      const answer = evaluate('null', [])
      if ('problem' in answer && answer.exitCode === notCompiled) throw invalid(answer.problem)
    },
    print(json, { isCompact }) {
      const answer = evaluate(json, isCompact ? ['-r', '-c'] : ['-r'])
      if ('problem' in answer) throw invalid(answer.problem)
      // The library takes the last newline away, and answers nothing where there was none.
      return answer.text === undefined ? '' : `${answer.text}\n`
    },
  }
}

function invalid(problem: string): AppError {
  return new AppError('jq_invalid', { problem: problem.endsWith('.') ? problem : `${problem}.` })
}
