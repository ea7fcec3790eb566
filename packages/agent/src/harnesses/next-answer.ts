import { AppError } from '@openoz/protocol'
import { notice } from '../event-sink.ts'
import { compact, SummaryEmpty } from './compaction.ts'
import { answerRoom, contextBudget, contextSize } from './context-size.ts'
import { noteMark, userMessage } from './conversation.ts'
import { withoutPictures } from './lighter-messages.ts'
import { AnswerRoomTooLarge, ConversationTooLong, isRequestRejected } from './model-failure.ts'
import { type Said, type StepAnswer, type StepRequest, withdraw } from './model-step.ts'
import { askModel } from './patient-model.ts'
import { keep, type SessionWork, takeMessages } from './session-work.ts'
import { compactedMessage, summaryInstructions } from './transcript.ts'

/**
 * The model's next answer, whole and with something in it. On the way there it may be asked more than once:
 *
 * - the conversation is too long (we see it coming, or the provider refuses it): it is shortened, at most twice for a refusal;
 * - it cannot give as long an answer as the limit allows: asked for a shorter one;
 * - it cannot read the request, and there are pictures in it: asked without them, since every later request would have them too;
 * - the answer is empty, or cut by its length: asked once more, with a word about it; nothing of the first one is kept;
 * - everything that may pass: `patient-model.ts`.
 *
 * Rejects with the signal's reason or with the AppError that ends the turn.
 */
export async function nextAnswer(work: SessionWork, asking: Asking): Promise<StepAnswer> {
  const { budget } = roomOf(work)
  const size = contextSize(work.conversation, work.fixedBytes)
  if (size > budget) await shorten(work, asking, { ...gentle, budget })
  for (let refusals = 0; ; ) {
    try {
      return await answerWithContent(work, asking)
    } catch (error) {
      if (error instanceof AnswerRoomTooLarge) {
        learnRoom(work, error)
        continue
      }
      if (isRequestRejected(error) && leaveOutPictures(work)) continue
      if (!(error instanceof ConversationTooLong)) throw error
      if (refusals === 2) throw tooLong(work)
      withdraw({ ...asking, sink: work.context.sink })
      await shortenAfterRefusal(work, asking, { error, isFirst: refusals === 0 })
      refusals++
    }
  }
}

interface Asking {
  signal: AbortSignal
  /** Filled while the answer comes. */
  said: Said
}

/** How hard a conversation is shortened: what stays as it was, and how much of old outputs. */
const gentle = { tailPart: 0.3, keptCharacters: 1_500 }
const hard = { tailPart: 0.1, keptCharacters: 400 }
/** Of what was refused, what the shorter one may have. */
const afterRefusal = { first: 0.6, second: 0.3 }
const maxSummaryTokens = 8_192

function tooLong({ context }: SessionWork): AppError {
  return new AppError('context_window_exceeded', { modelId: context.model.id })
}

function roomOf({ context, learnedWindow, learnedRoom }: SessionWork) {
  const { model } = context
  const max_output_tokens = Math.min(context.limits.max_output_tokens, learnedRoom ?? Number.POSITIVE_INFINITY)
  const limits = { ...context.limits, max_output_tokens }
  const access = learnedWindow === undefined ? model : { ...model, context_window: learnedWindow }
  return { budget: contextBudget(access, limits), room: answerRoom(access, limits) }
}

function learnRoom(work: SessionWork, { limit, givesUpAs }: AnswerRoomTooLarge): void {
  if (limit >= roomOf(work).room) throw givesUpAs
  work.learnedRoom = limit
}

function leaveOutPictures(work: SessionWork): boolean {
  const { messages } = work.conversation
  const lighter = withoutPictures(messages)
  if (lighter.every((message, index) => message === messages[index])) return false
  work.conversation = { ...work.conversation, messages: lighter }
  keep(work)
  notice(
    work.context.sink,
    'warning',
    'The model’s provider refused a request with pictures in it; asking again without them.',
  )
  return true
}

async function answerWithContent(work: SessionWork, asking: Asking): Promise<StepAnswer> {
  const { context, model, instructions, tools } = work
  const { limits, sink } = context
  const modelId = context.model.id
  let note: string | undefined
  for (let attempt = 0; ; attempt++) {
    const { room } = roomOf(work)
    const makeRequest = (): StepRequest => {
      takeMessages(work)
      const { compacted, messages } = work.conversation
      const before = compacted ? [compactedMessage(compacted)] : []
      const after = note === undefined ? [] : [userMessage(note)]
      const all = [...before, ...messages, ...after]
      return { ...asking, model, instructions, tools, limits, sink, maxOutputTokens: room, messages: all }
    }
    const answer = await askModel(makeRequest, { modelId, limits, sink, signal: asking.signal })
    countOutput(work, answer)
    const { finish, calls, text } = answer
    if (finish === 'content-filter') throw new AppError('model_content_refused', { modelId })
    if (finish === 'length') {
      if (attempt > 0) throw new AppError('model_answer_cut', { modelId, limit: room })
      withdraw({ ...asking, sink })
      notice(sink, 'warning', 'The model’s answer was cut at its longest allowed length; asking once more.')
      note = `${noteMark} your answer was cut at its longest allowed length of ${room} tokens, and nothing of it was kept or done. Answer again, shorter: do one thing at a time, and write long files in several calls.`
    } else if (calls.length > 0 || text.trim() !== '') return answer
    else {
      const reason = `it ended with “${finish}”`
      if (attempt > 0) throw new AppError('model_answer_empty', { modelId, reason })
      withdraw({ ...asking, sink })
      notice(sink, 'warning', `The model answered nothing (${reason}); asking once more.`)
    }
  }
}

function countOutput(work: SessionWork, { usage, text }: StepAnswer): void {
  const tokens = usage?.outputTokens ?? Math.ceil(text.length / 4)
  work.conversation = { ...work.conversation, turnOutputTokens: work.conversation.turnOutputTokens + tokens }
}

async function shortenAfterRefusal(
  work: SessionWork,
  asking: Asking,
  { error, isFirst }: { error: ConversationTooLong; isFirst: boolean },
): Promise<void> {
  const before = contextSize(work.conversation, work.fixedBytes)
  const { limit } = error
  if (limit !== undefined) work.learnedWindow = Math.min(limit, work.context.model.context_window ?? limit)
  const budget = Math.min(roomOf(work).budget, before * (isFirst ? afterRefusal.first : afterRefusal.second))
  await shorten(work, asking, { ...(isFirst ? gentle : hard), budget })
  if (contextSize(work.conversation, work.fixedBytes) >= before) throw tooLong(work)
}

async function shorten(
  work: SessionWork,
  asking: Asking,
  options: { budget: number; tailPart: number; keptCharacters: number },
): Promise<void> {
  const { context, fixedBytes } = work
  const budget = options.budget - fixedBytes / 4
  // Instructions and tools alone fill the window: shortening the rest would change nothing.
  if (budget <= 0) return
  const before = contextSize(work.conversation, fixedBytes)
  const summarize = (transcript: string) => askForSummary(work, transcript, asking.signal)
  const transcriptTokens = roomOf(work).budget * 0.6
  const { conversation, how } = await compact(work.conversation, { ...options, budget, summarize, transcriptTokens })
  work.conversation = { ...conversation, turnOutputTokens: work.conversation.turnOutputTokens }
  keep(work)
  const after = contextSize(conversation, fixedBytes)
  notice(
    context.sink,
    'info',
    `The conversation was too long for the model: ${done[how]} (${before} → ${after} tokens).`,
  )
}

const done = {
  lightened: 'long outputs of older steps were shortened',
  summarised: 'its older part was summed up',
  cut: 'its older part was cut, without a summary',
}

/** The summary is for the model alone: viewers see that there was one. */
async function askForSummary(work: SessionWork, transcript: string, signal: AbortSignal): Promise<string> {
  const { context, model } = work
  const { limits, sink } = context
  const unseen = { emit: () => {}, ready: async () => {} }
  const makeRequest = (): StepRequest => ({
    model,
    instructions: summaryInstructions,
    messages: [userMessage(`<conversation>\n${transcript}\n</conversation>\n\nSum it up, as you were told.`)],
    tools: [],
    limits,
    maxOutputTokens: Math.min(maxSummaryTokens, roomOf(work).room),
    sink: unseen,
    signal,
  })
  for (;;) {
    try {
      const answer = await askModel(makeRequest, { modelId: context.model.id, limits, sink, signal })
      countOutput(work, answer)
      if (answer.text.trim() === '' || answer.finish === 'content-filter') throw new SummaryEmpty()
      return answer.text.trim()
    } catch (error) {
      if (!(error instanceof AnswerRoomTooLarge)) throw error
      learnRoom(work, error)
    }
  }
}
