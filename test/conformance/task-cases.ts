import { rmSync } from 'node:fs'
import { constants } from 'node:os'
import { expect } from 'vitest'
import { TaskStopped } from '../../packages/worker/src/backends/backend.ts'
import { taskFolder } from '../../packages/worker/src/task-folder.ts'
import { sceneAssignment } from '../support/docker-backend.ts'
import { until } from '../support/poll.ts'
import { type CaseBody, codeOf, endOf, never, untilNothingLeft, untilSaid } from './backend-fixture.ts'
import type { CaseId } from './cases.ts'

const { SIGKILL, SIGSEGV } = constants.signals

/** Those for which the backend itself is enough. */
export const taskCases = {
  async exitCode(fixture) {
    await using scene = await fixture.openScene()
    const assignment = sceneAssignment('echo working; echo badly >&2; exit 7')
    const task = await scene.start(assignment)
    expect(await endOf(scene, task, assignment)).toMatchObject({ code: 7, lastWords: expect.stringContaining('badly') })
    expect(await fixture.leftOf(assignment, scene.folder)).toEqual([])
  },

  async signal(fixture) {
    await using scene = await fixture.openScene()
    const assignment = sceneAssignment('kill -SEGV $$; sleep 600')
    const task = await scene.start(assignment)
    expect((await endOf(scene, task, assignment)).code).toBe(128 + SIGSEGV)
  },

  async killedIsNoMemory(fixture) {
    await using scene = await fixture.openScene()
    const assignment = sceneAssignment('kill -KILL $$; sleep 600')
    const task = await scene.start(assignment)
    const { code, outOfMemory } = await endOf(scene, task, assignment)
    expect({ code, outOfMemory }).toEqual({ code: 128 + SIGKILL, outOfMemory: undefined })
  },

  async outOfMemory(fixture) {
    await using scene = await fixture.openScene()
    using hungry = fixture.starve()
    const assignment = sceneAssignment(hungry.script, hungry.more)
    const task = await scene.start(assignment)
    const { code, outOfMemory } = await endOf(scene, task, assignment)
    expect({ code, outOfMemory }).toEqual({ code: 128 + SIGKILL, outOfMemory: hungry.outOfMemory })
  },

  async memoryLimit(fixture) {
    await using scene = await fixture.openScene()
    const modest = sceneAssignment('echo ready; sleep 600')
    const shape = { instance_shape: { vcpus: 0.5, memory_gb: 0.02 } }
    const hungry = sceneAssignment('x=x; while :; do x=$x$x; done', shape)
    const tasks = [await scene.start(modest), await scene.start(hungry)] as const
    const { outOfMemory, memoryLimitBytes } = await endOf(scene, tasks[1], hungry)
    expect({ outOfMemory, memoryLimitBytes }).toEqual({
      outOfMemory: 'task',
      memoryLimitBytes: Math.floor(0.02 * 1024 ** 3),
    })
    expect(await fixture.countProcesses(modest)).toBeGreaterThan(0)
    await tasks[0].stop(0)
    await endOf(scene, tasks[0], modest)
  },

  async largeOutput(fixture) {
    await using scene = await fixture.openScene()
    const line = '0123456789abcdef0123456789abcdef'
    const assignment = sceneAssignment(`yes ${line} | head -c 25000000; echo; echo the end; exit 5`)
    const task = await scene.start(assignment)
    const startedAt = performance.now()
    const { code, lastWords } = await endOf(scene, task, assignment)
    expect(performance.now() - startedAt).toBeLessThan(15_000)
    expect(code).toBe(5)
    expect(lastWords.trimEnd()).toMatch(/\nthe end$/)
    expect(lastWords.length).toBeLessThan(65_536)
  },

  async politeStop(fixture) {
    await using scene = await fixture.openScene()
    const script = 'trap "echo bye; exit 9" TERM; echo ready; while :; do sleep 0.1; done'
    const assignment = sceneAssignment(script)
    const task = await scene.start(assignment)
    await untilSaid(fixture, scene, { assignment })
    await task.stop(10_000)
    expect(await endOf(scene, task, assignment)).toMatchObject({ code: 9, lastWords: expect.stringContaining('bye') })
  },

  async deafStop(fixture) {
    await using scene = await fixture.openScene()
    const script = 'trap "" TERM; setsid sh -c "sleep 601" & echo ready; while :; do sleep 0.1; done'
    const assignment = sceneAssignment(script)
    const task = await scene.start(assignment)
    await untilSaid(fixture, scene, { assignment })
    const startedAt = performance.now()
    await task.stop(500)
    expect(performance.now() - startedAt).toBeLessThan(3_000)
    // Of one that its backend has killed with all its surroundings no code needs to be left.
    expect([128 + SIGKILL, undefined]).toContain(codeOf(await task.exited))
    await task.close('cancel')
    expect(await fixture.countProcesses(assignment)).toBe(0)
    expect(task.mayRun).toBe(false)
    await scene.backend.remove(assignment.execution_id)
    expect(await fixture.leftOf(assignment, scene.folder)).toEqual([])
  },

  async stopDuringStart(fixture) {
    await using scene = await fixture.openScene()
    const assignment = sceneAssignment('sleep 600')
    const stopping = new AbortController()
    const reason = new TaskStopped('cancel')
    const unclaimed = new Promise<void>(() => {})
    const signal = stopping.signal
    const starting = scene.backend.start(assignment, scene.reporter, { claimed: unclaimed, signal })
    const failed = expect(starting).rejects.toBe(reason)
    await until(() => fixture.leftOf(assignment, scene.folder), Boolean)
    stopping.abort(reason)
    await failed
    expect(await fixture.countProcesses(assignment)).toBe(0)
    await scene.backend.remove(assignment.execution_id)
    expect(await fixture.leftOf(assignment, scene.folder)).toEqual([])
  },

  async leftRunning(fixture) {
    await using scene = await fixture.openScene()
    const assignment = sceneAssignment('setsid sh -c "sleep 602" >/dev/null 2>&1 & exit 0')
    const task = await scene.start(assignment)
    expect(codeOf(await task.exited)).toBe(0)
    await task.close(undefined)
    expect(await fixture.countProcesses(assignment)).toBe(0)
    await scene.backend.remove(assignment.execution_id)
    expect(await fixture.leftOf(assignment, scene.folder)).toEqual([])
  },

  async adoptRunning(fixture) {
    await using first = await fixture.openScene()
    const script = 'trap "exit 9" TERM; echo ready; while :; do sleep 0.1; done'
    const assignment = sceneAssignment(script)
    const started = await first.start(assignment)
    await untilSaid(fixture, first, { assignment })
    await first.leave()
    await using second = await fixture.openScene({ folder: first.folder })
    const adopted = await second.backend.adopt(() => second.reporter)
    const { task_id, execution_id } = assignment
    expect(adopted).toMatchObject([{ refs: { task_id, execution_id }, phase: 'running' }])
    expect(await second.backend.adopt(() => second.reporter)).toEqual([])
    const task = await adopted[0]?.task
    expect(task?.place).toBe(started.place)
    await task?.stop(10_000)
    expect(codeOf((await task?.exited) ?? { type: 'vanished' })).toBe(9)
    await task?.close(undefined)
    await second.backend.remove(execution_id)
    expect(await fixture.leftOf(assignment, second.folder)).toEqual([])
  },

  async adoptEnded(fixture) {
    await using first = await fixture.openScene()
    const assignment = sceneAssignment('echo ready; sleep 1; echo late; exit 6')
    await first.start(assignment)
    await untilSaid(fixture, first, { assignment })
    await first.leave()
    await until(
      () => fixture.countProcesses(assignment),
      (count) => count === 0,
    )
    await using second = await fixture.openScene({ folder: first.folder })
    const [adopted] = await second.backend.adopt(() => second.reporter)
    const task = await adopted?.task
    if (!task) throw new Error('nothing was taken over')
    expect(await endOf(second, task, assignment)).toMatchObject({
      code: 6,
      lastWords: expect.stringContaining('late'),
    })
    expect(await fixture.leftOf(assignment, second.folder)).toEqual([])
  },

  async sweep(fixture) {
    await using first = await fixture.openScene()
    const lost = sceneAssignment('echo ready; sleep 603')
    await first.start(lost)
    await untilSaid(fixture, first, { assignment: lost })
    await first.leave()
    // As after a restore of the disk, or a person's tidying: nothing tells of it any more but what it is made of.
    rmSync(taskFolder(first.stateDir, lost.execution_id).folder, { recursive: true })
    await using second = await fixture.openScene({ folder: first.folder })
    expect(await second.backend.adopt(() => second.reporter)).toEqual([])
    const working = sceneAssignment('echo ready; sleep 604')
    const task = await second.start(working)
    await untilSaid(fixture, second, { assignment: working })
    const before = await fixture.leftOf(working, second.folder)
    await second.backend.sweep()
    await untilNothingLeft(fixture, lost, second.folder)
    expect((await fixture.leftOf(working, second.folder)).toSorted()).toEqual(before.toSorted())
    await task.stop(0)
    await endOf(second, task, working)
  },

  async tasksApart(fixture) {
    await using scene = await fixture.openScene()
    const watched = sceneAssignment('echo hidden > mine; echo ready; sleep 605')
    const other = await scene.start(watched)
    await untilSaid(fixture, scene, { assignment: watched })
    const look = [
      `cat ${other.workspace}/mine && echo SAW-FILE`,
      `for p in /proc/[0-9]*; do tr '\\0' '\\n' <$p/environ | grep -q ^OZ_EXECUTION_ID=${watched.execution_id} && echo SAW-PROCESS; done`,
      'echo looked',
    ]
    const assignment = sceneAssignment(`{ ${look.join('; ')}; } 2>/dev/null`)
    const task = await scene.start(assignment)
    await task.exited
    await task.close(undefined)
    const { lastWords } = await task.finish({ abandoned: never, signal: never })
    const said = await fixture.outputOf(assignment, scene.folder)
    expect(said).toContain('looked')
    expect(said + lastWords).not.toMatch(/SAW-|hidden/)
    await scene.backend.remove(assignment.execution_id)
    await other.stop(0)
    await endOf(scene, other, watched)
  },
} satisfies Partial<Record<CaseId, CaseBody>>
