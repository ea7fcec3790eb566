/** What the demo can ask of an agent in the sample project. A real model is given the same words as the scripted one. */
export interface DemoTask {
  about: string
  prompt: string
  /** What shows in the repository that it worked; null: it changes nothing. */
  testCommand: string | null
  /** What the demo says when the agent asks. */
  answer?: string
}

export const demoTasks = {
  fix: {
    about: 'a failing test (the default)',
    prompt: 'Make the failing test pass, commit, and summarise what you did.',
    testCommand: 'node --test',
  },
  refactor: {
    about: 'a change over several files',
    prompt:
      'src/main.js and src/interactive.js check and print bills with the same code. Move what they share into one module, src/bill-text.js, ' +
      'with tests for it, and use it in both. What the programs print must not change. (One older test fails; leave it alone.) ' +
      'Keep a todo list, and commit.',
    testCommand: 'node --test test/bill-text.test.js',
  },
  server: {
    about: 'a program in the background that is written to, read and stopped',
    prompt:
      'Start src/interactive.js in the background, give it the bill "100.00 Ada Grace Linus" on its input, read its answer, stop it, and tell ' +
      'me whether the shares add up. Change nothing.',
    testCommand: null,
  },
  question: {
    about: 'a question that the agent asks, and that the demo answers',
    prompt:
      'Make the failing test pass and commit. Before you change anything, ask me who shall pay the cents that are left over when a bill does ' +
      'not divide evenly.',
    testCommand: 'node --test',
    answer: 'The last people who pay, one cent each.',
  },
} as const satisfies Record<string, DemoTask>

export type DemoTaskName = keyof typeof demoTasks
