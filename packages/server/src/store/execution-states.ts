/** Of executions, as SQL: `state in ${live}`. The protocol's `isLive` is the same for programs. */
export const live = `('offered', 'claimed', 'running', 'idle')`
export const over = `('ended', 'lost')`
