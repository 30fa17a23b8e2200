/**
 * Every command that `conntrail doctor` prints as a mend is run, as it is printed, and mends: on the real kernel, in namespaces of its own, the fault is planted, told
 * by the built program, mended by the printed line and told no more. Settings that all namespaces share are set back. Not run: what loads a module.
 */
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { A, kernelTests, type Lab, required, run, withLab } from './namespaces.js'

const can = kernelTests === 'run'
if (!can && !required) console.warn(`tests on the real kernel are left out: ${kernelTests}`)

const program = fileURLToPath(new URL('../../dist/main.js', import.meta.url))

interface Mend {
  readonly id: string
  /** shell; $D is a folder of this mend alone */
  readonly plant: string
  readonly config: string
  /** put before the doctor: another user */
  readonly as?: string
  /** not in the router's network namespace but in that of the machine; undone by this */
  readonly undo?: string
  /** shell, after the mend: what it is good for; fails where it is not */
  readonly proof?: string
}

const live = 'inputs: { kernel: { type: kmsg }, flows: { type: conntrack }, level: { type: table } }\n'
const writes = 'outputs: { out: { type: file, path: DIR/out/records.ndjson } }\n'
const nobody = 'setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --'
const netfilter = (name: string, value: number): string => `echo ${value} >/proc/sys/net/netfilter/nf_conntrack_${name}`
/** With a receiver of its own at a port, a connection there leaves no entry. */
const untracked = (host: string, port: number): string =>
  `"$NODE" -e 'const n=require("net");const s=n.createServer(c=>c.end("x")).listen(${port},"0.0.0.0",()=>{const c=n.connect(${port},"${host}");c.resume();c.on("close",()=>s.close());c.on("error",()=>process.exit(1))})' && test "$(conntrack -C)" = 0`
const tracks = `nft 'table inet filter { chain input { type filter hook input priority 0; ct state established accept; }; }'; conntrack -F >/dev/null 2>&1`
const saved = (name: string): string => `sysctl -n ${name} >$D/saved`
const restored = (name: string): string => `sysctl -qw ${name}="$(cat $D/saved)"`

/** Needs CAP_SYS_RESOURCE, which root of a container often has not. Node raises its own limit as far as it may, so that the hard one counts. */
const mayRaiseLimits = spawnSync('sh', ['-c', 'ulimit -n 256 && ulimit -n 300']).status === 0

const mends: readonly Mend[] = [
  { id: 'acct-off', plant: netfilter('acct', 0), config: live },
  { id: 'timestamp-off', plant: netfilter('timestamp', 0), config: live },
  { id: 'events-off', plant: netfilter('events', 0), config: live },
  { id: 'events-auto', plant: netfilter('events', 2), config: live },
  { id: 'log-invalid-nowhere', plant: `${netfilter('log_invalid', 255)}; echo NONE >/proc/sys/net/netfilter/nf_log/2`, config: live },
  { id: 'receiver-tracked', plant: tracks, config: `${live}outputs: { far: { type: webhook, url: "http://${A.server}:9093/" } }\n` },
  { id: 'receiver-tracked', plant: tracks, config: `${live}outputs: { here: { type: webhook, url: "http://127.0.0.1:9093/" } }\n`, proof: untracked('127.0.0.1', 9093) },
  { id: 'receiver-tracked', plant: tracks, config: `${live}outputs: { here: { type: webhook, url: "http://${A.router}:9093/" } }\n`, proof: untracked(A.router, 9093) },
  { id: 'http-tracked', plant: tracks, config: `${live}http: { listen: "127.0.0.1:9469" }\n`, proof: untracked('127.0.0.1', 9469) },
  { id: 'http-tracked', plant: tracks, config: `${live}http: { listen: "0.0.0.0:9469" }\n`, proof: untracked(A.router, 9469) },
  { id: 'event-buffer', plant: `${saved('net.core.rmem_default')}; sysctl -qw net.core.rmem_default=212992`, config: live, undo: restored('net.core.rmem_default') },
  { id: 'no-rate-limit', plant: `${saved('net.core.message_cost')}; sysctl -qw net.core.message_cost=0`, config: live, undo: restored('net.core.message_cost') },
  { id: 'long-rate-limit', plant: `${saved('net.core.message_cost')}; sysctl -qw net.core.message_cost=60`, config: live, undo: restored('net.core.message_cost') },
  { id: 'no-burst', plant: `${saved('net.core.message_burst')}; sysctl -qw net.core.message_burst=0`, config: live, undo: restored('net.core.message_burst') },
  ...(mayRaiseLimits ? [{ id: 'open-files', plant: 'ulimit -n 256', config: live }] : []),
  { id: 'kmsg', plant: 'mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9', config: live },
  { id: 'kmsg', plant: 'mount -t tmpfs tmpfs /dev; mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/urandom c 1 9; mknod -m 666 /dev/kmsg c 1 3', config: live },
  { id: 'hidepid', plant: 'mount -t proc -o hidepid=2 proc /proc', config: 'inputs: { level: { type: table, netns: all } }\n', as: 'setpriv --bounding-set=-sys_ptrace --' },
  { id: 'state-directory', plant: 'true', config: 'state: DIR/none/state\n', as: nobody },
  { id: 'state-directory', plant: 'mkdir $D/state; chown 65534 $D; rmdir $D/state; echo x >$D/state', config: 'state: DIR/state\n', as: nobody },
  { id: 'state-directory', plant: 'mkdir $D/ro; mount -t tmpfs -o ro tmpfs $D/ro', config: 'state: DIR/ro\n' },
  { id: 'state-directory', plant: 'true', config: 'state: DIR/state\n' },
  { id: 'state-owner', plant: 'mkdir $D/state; echo x >$D/state/checkpoint; chown 65534 $D/state/checkpoint', config: 'state: DIR/state\n' },
  { id: 'state-owner', plant: 'mkdir -m 777 $D/state', config: 'state: DIR/state\n', as: nobody },
  { id: 'output-directory', plant: 'true', config: writes },
  { id: 'output-directory', plant: 'true', config: writes, as: nobody },
  { id: 'output-directory', plant: 'mkdir -m 777 $D/out; echo >$D/out/records.ndjson', config: writes, as: nobody },
  { id: 'secret-open', plant: 'chmod 666 $D/c.yaml', config: live },
  { id: 'secret-open', plant: 'echo x >"$D/to ken"; chmod 644 "$D/to ken"', config: 'outputs: { far: { type: webhook, url: "http://127.0.0.1:9/", token: { file: "DIR/to ken" } } }\n' },
]

/** Prints the ids of the findings before, the command, and the ids after. */
const script = `
find() { "$NODE" -e 'const all=JSON.parse(require("fs").readFileSync(process.argv[1])).findings.filter((f)=>f.id===process.argv[2]);console.log(process.argv[3]==="command"?(all.find((f)=>f.command)||{}).command||"":all.length)' "$1" "$ID" "$2"; }
look() { $AS "$NODE" "$PROGRAM" doctor -c "$D/c.yaml" --json >"$1" 2>"$D/said" || [ $? = 1 ] || { cat "$D/said" >&2; exit 5; }; }
eval "$PLANT"
look "$D/before"
echo "before: $(find "$D/before" count)"
command=$(find "$D/before" command)
echo "command: $command"
eval "$command" >&2
echo "status: $?"
look "$D/after"
echo "after: $(find "$D/after" count)"
eval "$PROOF" >&2
echo "proof: $?"
`

async function tried(lab: Lab, folder: string, { id, plant, config, as = '', undo, proof = 'true' }: Mend): Promise<string> {
  mkdirSync(folder, { mode: 0o755 })
  writeFileSync(join(folder, 'c.yaml'), config.replaceAll('DIR', folder), { mode: 0o644 })
  const variables = [`D=${folder}`, `ID=${id}`, `AS=${as}`, `PLANT=${plant}`, `PROOF=${proof}`, `NODE=${process.execPath}`, `PROGRAM=${program}`]
  // mounts are of this shell alone
  const command = ['env', ...variables, 'unshare', '--mount', '--propagation', 'private', 'sh', '-c', script]
  try {
    return await (undo === undefined ? lab.exec('router', ...command) : run(command[0]!, command.slice(1)))
  } finally {
    if (undo !== undefined) await run('env', [`D=${folder}`, 'sh', '-c', undo])
  }
}

test.runIf(can || required)('what doctor prints is run, and mends', async () => {
  expect(kernelTests).toBe('run')
  const folder = mkdtempSync(join(tmpdir(), 'conntrail-mends-'))
  await run('chmod', ['755', folder])
  try {
    await withLab(async (lab) => {
      const results: Record<string, string> = {}
      for (const [number, mend] of mends.entries()) {
        const name = `${number} ${mend.id}`
        const said = await tried(lab, join(folder, String(number)), mend)
        results[name] = said.replace(/^command: .+$/m, 'command: one')
        await lab.exec('router', 'nft', 'flush', 'ruleset')
      }
      expect(results).toEqual(Object.fromEntries(mends.map(({ id }, number) => [`${number} ${id}`, 'before: 1\ncommand: one\nstatus: 0\nafter: 0\nproof: 0\n'])))
    })
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
})

test('is tried here for every check that prints one', () => {
  const sources = ['reading', 'settings', 'storage', 'delivery'].map((name) => readFileSync(new URL(`../../src/doctor/${name}.ts`, import.meta.url), 'utf8')).join('\n')
  const printing = sources.split(/\n {2}\{\n {4}id: /).slice(1).filter((text) => /mendedBy\(|sysctl\(|madeFor\(|refusedFault\(/.test(text.split(/\n {2}\},/)[0]!)).map((text) => /^'([a-z-]+)'/.exec(text)![1]!)
  /** by what they need; `long-chains`, `inotify`, `table-level` and `no-limit` set what the whole machine shares, by the same `sysctl` line as the others */
  const untried = ['module', 'ctnetlink', 'proc', 'conntrack-buffer-option', 'listener-drops', 'open-files', 'long-chains', 'inotify', 'table-level', 'no-limit']
  expect(printing.filter((id) => !untried.includes(id) && !mends.some((mend) => mend.id === id))).toEqual([])
})
