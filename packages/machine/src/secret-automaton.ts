/**
 * Finds all forms of all secrets in one pass over the text, whatever their number (Aho-Corasick). One state per prefix of a form, numbered
 * breadth first: the shallow states, where ordinary text keeps the automaton nearly all the time, have a full row of transitions each; the
 * deep ones, of which a long key makes thousands, only their own edges and a link to the longest suffix that is also a prefix.
 */
export interface SecretAutomaton {
  /** The state after `code` was read in `state`. State 0 is the start. */
  step(state: number, code: number): number
  /** Length of the prefix that the state stands for: how much of the text's tail may still become a secret. */
  readonly depth: Int32Array
  /** Length of the longest form that ends in the state; 0 for none. */
  readonly matchLength: Int32Array
  /**
   * Reads on from `from`, where the state is the start, to the first character that leaves it; returns the text's length when none does. Split
   * off because most text never leaves the start.
   */
  skip(text: string, from: number): number
}

/** Full rows for this many states: 4096 states × 100 different characters are 1.6 MB. */
const maxFullRows = 4096

export function buildAutomaton(forms: readonly string[]): SecretAutomaton {
  const { count, firstChild, sibling, codes, depth, matchLength } = numberedBreadthFirst(buildTrie(forms))
  const { classOf, classes } = classifyCharacters(forms)

  const fullRows = Math.min(count, maxFullRows)
  const rows = new Int32Array(fullRows * classes)
  const fail = new Int32Array(count)

  function step(state: number, code: number): number {
    const characterClass = classOf[code] as number
    // Class 0 is every character that no form holds.
    if (characterClass === 0) return 0
    let current = state
    while (current >= fullRows) {
      let child = firstChild[current] as number
      while (child !== 0 && codes[child] !== code) child = sibling[child] as number
      if (child !== 0) return child
      current = fail[current] as number
    }
    return rows[current * classes + characterClass] as number
  }

  // Breadth first, so that a state's link and its row (both shallower) are ready.
  for (let state = 0; state < count; state++) {
    const link = fail[state] as number
    matchLength[state] = Math.max(matchLength[state] as number, matchLength[link] as number)
    const row = state * classes
    if (state < fullRows && state !== 0) rows.copyWithin(row, link * classes, link * classes + classes)
    for (let child = firstChild[state] as number; child !== 0; child = sibling[child] as number) {
      const code = codes[child] as number
      fail[child] = state === 0 ? 0 : step(link, code)
      if (state < fullRows) rows[row + (classOf[code] as number)] = child
    }
  }

  const leavesStart = new Uint8Array(0x10000)
  for (const form of forms) leavesStart[form.charCodeAt(0)] = 1
  function skip(text: string, from: number): number {
    let at = from
    while (at < text.length && leavesStart[text.charCodeAt(at)] === 0) at++
    return at
  }

  return { step, depth, matchLength, skip }
}

/** The prefix tree in flat arrays: state 0 is the root, and 0 as a child or sibling means none. */
interface Trie {
  count: number
  firstChild: Int32Array
  sibling: Int32Array
  /** The character that leads to the state. */
  codes: Uint16Array
  depth: Int32Array
  /** Length of the form that ends in the state, or 0. */
  matchLength: Int32Array
}

function emptyTrie(capacity: number): Trie {
  return {
    count: 1,
    firstChild: new Int32Array(capacity),
    sibling: new Int32Array(capacity),
    codes: new Uint16Array(capacity),
    depth: new Int32Array(capacity),
    matchLength: new Int32Array(capacity),
  }
}

function buildTrie(forms: readonly string[]): Trie {
  const trie = emptyTrie(1 + forms.reduce((sum, form) => sum + form.length, 0))
  const { firstChild, sibling, codes, depth, matchLength } = trie
  for (const form of forms) {
    let state = 0
    for (let i = 0; i < form.length; i++) {
      const code = form.charCodeAt(i)
      let child = firstChild[state] as number
      while (child !== 0 && codes[child] !== code) child = sibling[child] as number
      if (child === 0) {
        child = trie.count++
        codes[child] = code
        depth[child] = i + 1
        sibling[child] = firstChild[state] as number
        firstChild[state] = child
      }
      state = child
    }
    matchLength[state] = form.length
  }
  return trie
}

function numberedBreadthFirst(trie: Trie): Trie {
  const numbered = { ...emptyTrie(trie.count), count: trie.count }
  /** Old numbers in the new order. */
  const order = new Int32Array(trie.count)
  let next = 1
  for (let state = 0; state < trie.count; state++) {
    const old = order[state] as number
    numbered.codes[state] = trie.codes[old] as number
    numbered.depth[state] = trie.depth[old] as number
    numbered.matchLength[state] = trie.matchLength[old] as number
    let before = 0
    for (let child = trie.firstChild[old] as number; child !== 0; child = trie.sibling[child] as number) {
      order[next] = child
      if (before === 0) numbered.firstChild[state] = next
      else numbered.sibling[before] = next
      before = next++
    }
  }
  return numbered
}

/** Numbers the characters that occur, from 1: rows stay short. */
function classifyCharacters(forms: readonly string[]): { classOf: Uint16Array; classes: number } {
  const classOf = new Uint16Array(0x10000)
  let classes = 1
  for (const form of forms) {
    for (let i = 0; i < form.length; i++) {
      const code = form.charCodeAt(i)
      if (classOf[code] === 0) classOf[code] = classes++
    }
  }
  return { classOf, classes }
}
