/** What is left out of a saved workspace for its size: a file, or a folder with everything in it. */
export interface LeftOut {
  path: string
  bytes: number
  /** 0 for a single file. */
  files: number
}

interface Node {
  path: string
  bytes: number
  files: number
  children: Map<string, Node> | undefined
}

/** A larger untracked file is rarely work (archives, databases, images of disks), and never worth losing the rest for. */
const fractionForOneFile = 0.5
/** A folder without a part of at least this size is one thing that is large (installed packages), not a place with something large in it. */
const fractionOfPart = 0.25

/**
 * Chooses what to leave out so that the rest fits into `room`: few things, large ones, and never a folder of small files because it lies
 * beside a large one. Goes from the top to the heaviest part, again and again, until that has no part that stands out or would be enough.
 */
export function chooseLeftOut(files: readonly { path: string; bytes: number }[], room: number): LeftOut[] {
  const root: Node = { path: '', bytes: 0, files: 0, children: new Map() }
  const chosen: LeftOut[] = []
  for (const { path, bytes } of files) {
    if (bytes > room * fractionForOneFile) chosen.push({ path, bytes, files: 0 })
    else if (bytes > 0) add(root, path, bytes)
  }
  while (root.bytes > room) {
    const node = heaviest(root, root.bytes - room)
    chosen.push({ path: node.path, bytes: node.bytes, files: node.children ? node.files : 0 })
    remove(root, node)
  }
  return chosen
}

function add(root: Node, path: string, bytes: number): void {
  let node = root
  for (const name of path.split('/')) {
    node.bytes += bytes
    node.files += 1
    node.children ??= new Map()
    let child = node.children.get(name)
    if (!child) {
      child = { path: node.path === '' ? name : `${node.path}/${name}`, bytes: 0, files: 0, children: undefined }
      node.children.set(name, child)
    }
    node = child
  }
  node.bytes += bytes
  node.files += 1
}

function heaviest(root: Node, excess: number): Node {
  let node = root
  for (;;) {
    let best: Node | undefined
    for (const child of node.children?.values() ?? []) if (!best || child.bytes > best.bytes) best = child
    if (!best) return node
    if (node !== root && best.bytes < Math.min(excess, node.bytes * fractionOfPart)) return node
    node = best
  }
}

function remove(root: Node, target: Node): void {
  let node = root
  const names = target.path.split('/')
  for (const [index, name] of names.entries()) {
    node.bytes -= target.bytes
    node.files -= target.files
    if (index === names.length - 1) node.children?.delete(name)
    else node = node.children?.get(name) ?? node
  }
}
