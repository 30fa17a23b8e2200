/**
 * systemd as process 1 of namespaces of its own, on a machine that has another process 1 or a systemd of its own: it sees the machine's files read-only, has
 * /run, /var, /tmp, /opt, /dev, its network and its part of the cgroup tree for itself, and knows no unit but those of a folder. When what has started it ends, however
 * that happens, the kernel ends everything in there.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const repository = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')
const systemd = ['/lib/systemd/systemd', '/usr/lib/systemd/systemd'].find((path) => existsSync(path)) ?? ''
const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin` }

/** Where the program, its Node.js and a folder that the tests share with the service are found inside. */
export const inside = { program: '/opt/conntrail/dist/main.js', node: '/opt/node', shared: '/opt/shared' } as const

/** A part of the cgroup tree, to be the whole of it behind the cgroup namespace; then all the namespaces. $1: folder, $2: cgroup, $3: repository, $4: node. */
const OUTSIDE = `
mount -t cgroup2 cgroup2 "$1/cgroup"
mkdir -p "$1/cgroup/$2"
echo $$ >"$1/cgroup/$2/cgroup.procs"
exec unshare --fork --kill-child --pid --cgroup --mount --uts --ipc --net --mount-proc sh -euc "$INSIDE" sh "$@"
`
/** What the container interface of systemd asks of a container manager (systemd.io/CONTAINER_INTERFACE). */
const INSIDE = `
folder=$1 repository=$3 node=$4
shift 4
umount "$folder/cgroup"
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/new/opt/conntrail /run/new/opt/units /run/new/opt/shared /run/new/var /run/new/tmp /run/new/dev
touch /run/new/opt/node
mount --bind "$repository" /run/new/opt/conntrail
mount --bind "$node" /run/new/opt/node
mount --bind "$folder/units" /run/new/opt/units
mount --bind "$folder/shared" /run/new/opt/shared
mount --rbind /run/new/opt /opt
mount -t tmpfs -o mode=755 tmpfs /run/new/dev
for device in null zero full random urandom tty kmsg; do
  touch /run/new/dev/$device
  mount --bind /dev/$device /run/new/dev/$device
done
mkdir /run/new/dev/pts /run/new/dev/shm
ln -s pts/ptmx /run/new/dev/ptmx
ln -s /proc/self/fd /run/new/dev/fd
mount --move /run/new/dev /dev
mount -t tmpfs -o mode=755 tmpfs /var
mkdir -m 1777 /var/tmp
mkdir /var/lib /var/log /var/cache
ln -s /run /var/run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
if [ -e /etc/machine-id ]; then
  echo 5d7f7a2f1c3e4b0c9a8b7c6d5e4f3a2b >/run/new/machine-id
  mount --bind /run/new/machine-id /etc/machine-id
fi
mount -o remount,bind,ro /
mount --make-rshared /
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=conntrail-test \\
  SYSTEMD_UNIT_PATH=/opt/units SYSTEMD_GENERATOR_PATH=/nowhere SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nowhere \\
  setpriv --bounding-set -sys_module,-sys_time,-sys_rawio,-audit_control "$@"
`
/** Targets that units order themselves by, or want, where nothing else is said. */
const targets = ['conntrail', 'sysinit', 'basic', 'shutdown', 'umount', 'network', 'multi-user'] as const
const BOOT = [systemd, '--system', '--unit=conntrail.target', '--log-target=null']

/** 'run', or why systemd cannot be process 1 of anything here. */
export const pidOneTests: 'run' | (string & {}) = missing() ?? 'run'

function missing(): string | null {
  if (process.platform !== 'linux') return 'needs Linux'
  if (process.getuid?.() !== 0) return 'needs root (namespaces, mounts)'
  const absent = ['unshare', 'nsenter', 'setpriv', 'mount', 'systemctl'].filter((name) => spawnSync('sh', ['-c', `command -v ${name}`], { env }).status !== 0)
  if (systemd === '' || absent.length > 0) return `needs systemd and util-linux${absent.length > 0 ? ` (${absent.join(', ')})` : ''}`
  if (spawnSync(process.execPath, ['-e', 'import("koffi")'], { cwd: repository }).status !== 0) return 'needs koffi, without which the program cannot talk to systemd'
  // Root in a container is often not allowed any of this: only trying tells.
  const folder = foldersFor('probe')
  try {
    const { status, stderr } = spawnSync(...commandLine(folder, ['true']), { env: { ...env, INSIDE }, encoding: 'utf8' })
    return status === 0 ? null : `not permitted here: ${stderr.trim().split('\n').at(-1)}`
  } finally {
    removed(folder)
  }
}

function foldersFor(name: string): string {
  const folder = mkdtempSync(join(tmpdir(), `conntrail-test-pid-one-${name}-`))
  for (const each of ['cgroup', 'units', 'shared']) mkdirSync(join(folder, each), { mode: 0o755 })
  return folder
}

/** Process 1 dies with what it was started by, and that with this process. */
function commandLine(folder: string, command: readonly string[]): [string, string[]] {
  return ['setpriv', ['--pdeathsig', 'KILL', 'unshare', '--mount', 'sh', '-euc', OUTSIDE, 'sh', folder, cgroupOf(folder), repository, process.execPath, ...command]]
}

function cgroupOf(folder: string): string {
  return folder.slice(folder.lastIndexOf('/') + 1)
}

/** The cgroups go only when the last process in them has gone, which takes a moment. */
function removed(folder: string): void {
  const empty = `
mount -t cgroup2 cgroup2 "$1/cgroup"
for n in $(seq 100); do
  find "$1/cgroup/$2" -depth -type d -exec rmdir {} + 2>/dev/null
  [ -e "$1/cgroup/$2" ] || break
  sleep 0.05
done`
  spawnSync('unshare', ['--mount', 'sh', '-c', empty, 'sh', folder, cgroupOf(folder)], { env })
  rmSync(folder, { recursive: true, force: true })
}

export interface Said {
  readonly status: number
  readonly out: string
  readonly error: string
}

export class PidOne {
  /** of process 1, as this machine counts */
  pid = 0
  #folder = ''
  #child: ChildProcess | null = null

  /** Back when systemd has nothing more to start. */
  async boot(): Promise<void> {
    this.#folder = foldersFor('boot')
    for (const name of targets) writeFileSync(this.unitPath(`${name}.target`), `[Unit]\nDescription=${name}\nDefaultDependencies=no\n`)
    const [program, args] = commandLine(this.#folder, BOOT)
    const child = spawn(program, args, { env: { ...env, INSIDE }, stdio: ['ignore', 'ignore', 'pipe'] })
    this.#child = child
    let error = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => (error += text))
    let state = ''
    while (state !== 'running') {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`systemd did not stay: ${error}`)
      const [pid] = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'latin1').split(' ')
      this.pid = Number(pid)
      if (this.pid > 0 && readFileSync(`/proc/${this.pid}/comm`, 'latin1') === 'systemd\n') state = (await this.run('systemctl', 'is-system-running')).out.trim()
      await sleep(20)
    }
  }

  async end(): Promise<void> {
    const child = this.#child
    if (child !== null && child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'close')
      child.kill('SIGKILL')
      await ended
    }
    if (this.#folder !== '') removed(this.#folder)
  }

  unitPath(name: string): string {
    return join(this.#folder, 'units', name)
  }

  /** Here what is `inside.shared` there. */
  sharedPath(name: string): string {
    return join(this.#folder, 'shared', name)
  }

  /** Here what is at an absolute path there. */
  path(there: string): string {
    return `/proc/${this.pid}/root${there}`
  }

  /** In all of its namespaces, as root. */
  start(...command: readonly string[]): ChildProcess {
    return spawn('nsenter', ['--target', String(this.pid), '--all', ...command], { env: { ...env, LC_ALL: 'C.UTF-8' }, stdio: ['ignore', 'pipe', 'pipe'] })
  }

  async run(...command: readonly string[]): Promise<Said> {
    const child = this.start(...command)
    let [out, error] = ['', '']
    child.stdout!.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stderr!.setEncoding('utf8').on('data', (text: string) => (error += text))
    const [status] = (await once(child, 'close')) as [number | null]
    return { status: status ?? -1, out, error }
  }
}
