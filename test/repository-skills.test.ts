import type { FoundSkill, ListAgentsResponse } from '@openoz/protocol'
import { expect, test } from 'vitest'
import { type ControlPlane, startControlPlane } from './support/control-plane.ts'
import { addTeam } from './support/people.ts'

const skill = (name: string, changes: Partial<FoundSkill> = {}): FoundSkill => ({
  path: `.agents/skills/${name}/SKILL.md`,
  name,
  description: `What ${name} is for`,
  base_prompt: `How to ${name}`,
  ...changes,
})

async function listAgents(cp: ControlPlane, query = '', key = cp.adminKey) {
  const { status, body } = await cp.request<ListAgentsResponse>('GET', `/api/v1/agent${query}`, { key })
  expect(status).toBe(200)
  return body.agents
}

test('skills that agents find are listed by name, with where they are and which environments have them', async () => {
  await using cp = await startControlPlane()
  const { uid } = await cp.client.environments.create({
    name: 'Shop',
    source_repos: [{ url: 'git@github.com:Acme/Shop.git' }],
  })
  await cp.client.environments.create({ name: 'Other', github_repos: [{ owner: 'acme', repo: 'other' }] })
  const { agent, runId } = await cp.startAgent()
  await agent.send(
    {
      type: 'skills_found',
      data: {
        repository_url: 'https://github.com/acme/shop.git',
        skills: [skill('deploy'), skill('broken', { base_prompt: '', error: 'Its head has no `name`.' })],
      },
    },
    { type: 'skills_found', data: { repository_url: 'file:///srv/git/tools.git', skills: [skill('deploy')] } },
    { type: 'skills_found', data: { repository_url: 'https://gitlab.com/a/b/c', skills: [skill('audit\0')] } },
  )
  const agents = await listAgents(cp)
  expect(agents.map(({ name }) => name)).toEqual(['audit\ufffd', 'deploy'])
  const deploy = agents[1]?.variants ?? []
  expect(deploy.map(({ id }) => id)).toEqual([
    'acme/shop:.agents/skills/deploy/SKILL.md',
    'srv/git/tools:.agents/skills/deploy/SKILL.md',
  ])
  const { executions } = await cp.client.runs.executions(runId)
  expect(deploy.map(({ source }) => source.worker_host)).toEqual([undefined, executions[0]?.worker])
  expect(deploy[0]).toMatchObject({
    description: 'What deploy is for',
    base_prompt: 'How to deploy',
    source: { owner: 'acme', name: 'shop', skill_path: '.agents/skills/deploy/SKILL.md' },
    environments: [{ uid, name: 'Shop' }],
  })
  expect(deploy[1]?.environments).toEqual([])
  // Their texts are not in the log.
  const notices = (await cp.eventsOf(runId)).flatMap(({ type, data }) => (type === 'notice' ? [data.text] : []))
  expect(notices).toContain('Found 2 skills in https://github.com/acme/shop.git.')
  expect(JSON.stringify(await cp.eventsOf(runId))).not.toContain('How to deploy')

  expect((await listAgents(cp, '?repo=ACME/shop')).map(({ name }) => name)).toEqual(['deploy'])
  expect((await listAgents(cp, '?repo=acme/shop&include_malformed_skills=true')).map(({ name }) => name)).toEqual([
    'broken',
    'deploy',
  ])
  expect(await listAgents(cp, '?repo=acme/none&refresh=true')).toEqual([])
  const stranger = await addTeam(cp, 'strangers')
  expect(await listAgents(cp, '', stranger.key)).toEqual([])
  expect(await cp.request('GET', '/api/v1/agent?sort_by=size')).toMatchObject({ status: 400 })
})

test('what was found last replaces what was known of a repository, and comes first in the order of runs', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent()
  const found = (repository: string, ...skills: FoundSkill[]) =>
    agent.send({ type: 'skills_found', data: { repository_url: `https://github.com/acme/${repository}`, skills } })
  await found('a', skill('one'), skill('two'))
  await cp.advanceDatabaseClock({ seconds: 60 })
  await found('b', skill('three'), skill('three'))
  await cp.advanceDatabaseClock({ seconds: 60 })
  await found('a', skill('two', { description: 'newer' }))
  expect((await listAgents(cp, '?sort_by=last_run')).map(({ name }) => name)).toEqual(['two', 'three'])
  expect((await listAgents(cp)).map(({ name }) => name)).toEqual(['three', 'two'])
  expect((await listAgents(cp, '?repo=acme/a'))[0]?.variants[0]?.description).toBe('newer')
})

test('hosts are told apart, and a repository whose last skill was removed has none, without a word in the log', async () => {
  await using cp = await startControlPlane()
  const { agent, runId } = await cp.startAgent()
  const found = (repository_url: string, ...skills: FoundSkill[]) =>
    agent.send({ type: 'skills_found', data: { repository_url, skills } })
  await found('https://github.com/acme/a', skill('one'))
  await found('https://gitlab.com/acme/a', skill('one'))
  const ids = async () => (await listAgents(cp)).flatMap(({ variants }) => variants.map(({ id }) => id))
  const path = '.agents/skills/one/SKILL.md'
  expect(await ids()).toEqual([`acme/a:${path}`, `gitlab.com/acme/a:${path}`])
  const { length } = await cp.eventsOf(runId)
  expect((await found('git@github.com:acme/a.git')).acked_n).toBe(agent.n)
  expect(await ids()).toEqual([`gitlab.com/acme/a:${path}`])
  expect(await cp.eventsOf(runId)).toHaveLength(length)
})

test('what a personal run found is not shown to the team, and what does not fit changes nothing', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent({ team: false })
  const report = (data: object) => agent.sendBatch([{ n: ++agent.n, type: 'skills_found', data }])
  await report({ repository_url: 'https://github.com/acme/a', skills: [skill('one')] })
  await report({ repository_url: 'https://github.com/acme/a', skills: [{ name: 'no path' }] })
  await report({ repository_url: 'https://github.com/acme/a', skills: Array.from({ length: 101 }, () => skill('x')) })
  expect(await listAgents(cp)).toEqual([])
  const types = (await cp.eventsOf(agent.runId)).map(({ type }) => type)
  expect(types.filter((type) => type === 'event_invalid')).toHaveLength(2)
})

test('a report whose names are too long for an index is taken without them', async () => {
  await using cp = await startControlPlane()
  const { agent } = await cp.startAgent()
  const long = 'ä'.repeat(500)
  const data = { repository_url: 'https://github.com/acme/a', skills: [skill('long', { path: long }), skill('short')] }
  const { acked_n } = await agent.send({ type: 'skills_found', data })
  expect(acked_n).toBe(agent.n)
  expect((await listAgents(cp)).map(({ name }) => name)).toEqual(['short'])
})
