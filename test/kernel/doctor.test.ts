/** `conntrail doctor` on the real kernel: settings and losses of a namespace are seen as they are, and it runs to its end for root and for a user who may nothing. */
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { A, kernelTests, type Lab, required, run, until, withLab } from './namespaces.js'

const can = kernelTests === 'run'
if (!can && !required) console.warn(`tests on the real kernel are left out: ${kernelTests}`)

const command = fileURLToPath(new URL('../../dist/commands/doctor.js', import.meta.url))
/** Prints the JSON of the findings. */
const script = `
import { doctor, thisHost } from ${JSON.stringify(command)}
const options = { configFile: null, json: true, verbose: false, connect: false, ignore: [] }
const world = { host: thisHost({ node: process.version, env: process.env }), read: () => '', print: (text) => process.stdout.write(text), printError: () => {} }
const status = await doctor(options, world)
console.log(JSON.stringify({ status }))
`
const asked = [process.execPath, '--input-type=module', '-e', script]
const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--inh-caps=-all', '--']

interface Answer {
  readonly status: number
  readonly findings: readonly { readonly id: string; readonly severity: string; readonly wrong: string; readonly mend: string }[]
}

function answerOf(text: string): Answer {
  const last = text.trimEnd().lastIndexOf('\n')
  return { ...(JSON.parse(text.slice(0, last)) as Answer), ...(JSON.parse(text.slice(last)) as { status: number }) }
}

const inRouter = async (lab: Lab): Promise<Answer> => answerOf(await lab.exec('router', ...asked))
const idsOf = ({ findings }: Answer): string[] => findings.map(({ id }) => id)
const set = (lab: Lab, name: string, value: number) => lab.exec('router', 'sh', '-c', `echo ${value} >/proc/sys/net/netfilter/nf_conntrack_${name}`)

test.runIf(can || required)('settings of a namespace, and what its listeners have lost', async () => {
  expect(kernelTests).toBe('run')
  await withLab(async (lab) => {
    await lab.nft('router', 'table inet filter { chain forward { type filter hook forward priority 0; ct state invalid drop; }\n}')
    for (const name of ['acct', 'timestamp', 'events']) await set(lab, name, 1)
    const tuned = idsOf(await inRouter(lab))
    for (const id of ['acct-off', 'timestamp-off', 'events-off', 'events-auto', 'module', 'conntrack-tool', 'net-admin', 'ctnetlink', 'stat-file', 'proc', 'listener-drops', 'several-listeners']) {
      expect(tuned, id).not.toContain(id)
    }

    const first = lab.startIn('router', 'conntrack', '-E', '-o', 'timestamp,id')
    lab.startIn('router', 'conntrack', '-E', '-o', 'timestamp,id').stdout.resume()
    await until('two listeners', 10, async () => (await lab.exec('router', 'cat', '/proc/net/netlink')).split('\n').filter((row) => /^\S+ +12 +\S+ +0000000[1-7] /.test(row)).length === 2)
    process.kill(first.pid!, 'SIGSTOP')
    await lab.exec('client', process.execPath, '-e', `const u=require('dgram').createSocket('udp4');let n=0;const next=()=>n<3000?u.send('x',20000+n++,'${A.server}',()=>setImmediate(next)):u.close();next()`)
    for (const name of ['acct', 'timestamp', 'events']) await set(lab, name, 0)
    const answer = await inRouter(lab)
    process.kill(first.pid!, 'SIGCONT')
    expect(answer.status).toBe(1)
    expect(idsOf(answer)).toEqual(expect.arrayContaining(['acct-off', 'timestamp-off', 'events-off', 'listener-drops', 'several-listeners']))
    expect(answer.findings.find(({ id }) => id === 'listener-drops')!.wrong).toMatch(new RegExp(`conntrack \\(process \\d+\\), has lost [\\d,]+ events`))
    expect(answer.findings.find(({ id }) => id === 'acct-off')!.mend).toContain('sysctl -w net.netfilter.nf_conntrack_acct=1')
  })
})

test.runIf(can || required)('a user who may nothing is told what is missing', async () => {
  const answer = answerOf(await run(nobody[0]!, [...nobody.slice(1), ...asked]))
  expect(answer.status).toBe(1)
  expect(answer.findings.find(({ id }) => id === 'net-admin')).toMatchObject({ severity: 'critical', mend: expect.stringContaining('cap_net_admin') })
  // as root the same host is not refused anything
  expect(idsOf(answerOf(await run(asked[0]!, asked.slice(1))))).not.toContain('net-admin')
})
