import { type ChatMessage, type Progress, readProgress, type Step } from './scripted-conversation.ts'
import { fixStep } from './scripted-fix.ts'
import { questionStep } from './scripted-question.ts'
import { refactorStep } from './scripted-refactor.ts'
import { serverStep } from './scripted-server.ts'

/** The tasks that the scripted model knows by their prompts; the first that fits is meant. */
const scripts: { isTask: (text: string) => boolean; step: (progress: Progress) => Step }[] = [
  { isTask: (text) => /failing test/i.test(text) && /ask me/i.test(text), step: questionStep },
  { isTask: (text) => /src\/interactive\.js in the background/i.test(text), step: serverStep },
  { isTask: (text) => /share\b.*one module/i.test(text), step: refactorStep },
  { isTask: (text) => /failing test/i.test(text), step: fixStep },
]

/** What the scripted model does next, from the conversation alone: it keeps nothing between two calls. */
export function nextStep(messages: ChatMessage[]): Step {
  for (const { isTask, step } of scripts) {
    const progress = readProgress(messages, isTask)
    if (progress) return step(progress)
  }
  return {
    text:
      'I am the scripted model of the openoz demo and know one sample project and a few tasks in it, such as making its failing test pass. ' +
      'Connect a real model (ANTHROPIC_API_KEY, OPENAI_API_KEY or OLLAMA_HOST) for everything else.',
  }
}
