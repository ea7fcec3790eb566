/** Commands that outlive the call that started them. */
export interface RunningCommands {
  /** Ends all of them, with everything that they started. Never rejects. */
  endAll(): Promise<void>
}

export function createRunningCommands(): RunningCommands {
  return { endAll: async () => {} }
}
