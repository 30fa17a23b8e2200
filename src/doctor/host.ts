/**
 * The host as `conntrail doctor` looks at it: files, programs, names. One narrow door, so that a test can put up a host of its own: `root` is put before every path,
 * and single questions can be answered otherwise by whoever spreads this object into another.
 */
import { execFile } from 'node:child_process'
import { constants, watch } from 'node:fs'
import { access, open, readdir, readFile, readlink, stat, statfs } from 'node:fs/promises'
import { lookup } from 'node:dns/promises'
import { connect as connectPlain, createServer, isIP } from 'node:net'
import { networkInterfaces } from 'node:os'
import { connect as connectSecure } from 'node:tls'
import type { Code, ProgramPlace, Ran } from './model.js'

const PROGRAM_MS = 5000
const PROGRAM_BYTES_MAX = 1 << 24
const NAME_MS = 5000
const CONNECT_MS = 5000
/** Where administrators' programs are, which the PATH of others lacks. */
const SYSTEM_PATH = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin']

export interface FileFacts {
  readonly isFile: boolean
  readonly isDirectory: boolean
  readonly isCharacterDevice: boolean
  readonly mode: number
  readonly owner: number
  readonly dev: number
  readonly ino: number
  readonly rdev: number
}

export interface Space {
  /** magic number, statfs(2) */
  readonly type: number
  readonly freeBytes: number
  readonly totalBytes: number
  readonly freeInodes: number
  readonly totalInodes: number
}

export interface Connection {
  readonly code: Code
  readonly message: string
  /** when its certificate ends; NaN without one */
  readonly validToMs: number
}

/** Nothing here throws: an answer is what was asked for, or the errno as a text. */
export interface Host {
  readonly node: string
  readonly env: Readonly<Record<string, string | undefined>>
  nowMs(): number
  /** as Node has it */
  zone(): { readonly name: string; readonly hasSummerTime: boolean }
  readText(path: string): Promise<{ readonly text: string } | { readonly code: Code }>
  list(path: string): Promise<readonly string[]>
  link(path: string): Promise<string>
  stat(path: string): Promise<FileFacts | { readonly code: Code }>
  space(path: string): Promise<Space | { readonly code: Code }>
  /** Opens and closes again, without waiting and without reading. */
  opens(path: string): Promise<Code>
  mayWrite(path: string): Promise<Code>
  /** May a directory be watched? */
  mayWatch(path: string): Promise<Code>
  /** Could an address be listened at? Listens for a moment. */
  mayListen(at: { readonly host: string; readonly port: number; readonly socket: string }): Promise<Code>
  /** of this network namespace */
  ownAddresses(): readonly string[]
  /** Paths that fit, and those that could not be looked at. */
  glob(
    patterns: readonly string[],
    exclude: readonly string[],
  ): Promise<{ readonly paths: readonly string[]; readonly refused: readonly { readonly path: string; readonly code: Code }[] }>
  program(name: string): Promise<ProgramPlace>
  run(name: string, args: readonly string[]): Promise<Ran>
  resolve(name: string): Promise<{ readonly addresses: readonly string[] } | { readonly code: Code }>
  connect(to: { readonly host: string; readonly port: number; readonly isSecure: boolean; readonly ca: string | null }): Promise<Connection>
}

export interface HostOptions {
  /** put before every path; '' is this host */
  readonly root?: string
  /** `v20.20.2` */
  readonly node: string
  readonly env: Readonly<Record<string, string | undefined>>
  readonly glob: Host['glob']
}

export function openHost({ root = '', node, env, glob }: HostOptions): Host {
  const program = (name: string): Promise<ProgramPlace> => findProgram(name, env['PATH'] ?? '', root)
  return {
    node,
    env,
    nowMs: () => Date.now(),
    zone: () => {
      const year = new Date().getUTCFullYear()
      const offset = (month: number): number => new Date(Date.UTC(year, month, 15)).getTimezoneOffset()
      return { name: Intl.DateTimeFormat().resolvedOptions().timeZone, hasSummerTime: offset(0) !== offset(6) }
    },
    readText: (path) => answer(async () => ({ text: await readFile(root + path, 'utf8') })),
    list: (path) => readdir(root + path).catch(() => []),
    link: (path) => readlink(root + path).catch(() => ''),
    stat: (path) =>
      answer(async () => {
        const found = await stat(root + path)
        const { mode, uid: owner, dev, ino, rdev } = found
        return {
          isFile: found.isFile(),
          isDirectory: found.isDirectory(),
          isCharacterDevice: found.isCharacterDevice(),
          mode: mode & 0o7777,
          owner,
          dev,
          ino,
          rdev,
        }
      }),
    space: (path) =>
      answer(async () => {
        const { type, bsize, bavail, blocks, files, ffree } = await statfs(root + path)
        return { type, freeBytes: bavail * bsize, totalBytes: blocks * bsize, freeInodes: files === 0 ? -1 : ffree, totalInodes: files === 0 ? -1 : files }
      }),
    opens: (path) => codeOf(async () => (await open(root + path, constants.O_RDONLY | constants.O_NONBLOCK)).close()),
    mayWrite: (path) => codeOf(() => access(root + path, constants.W_OK)),
    mayWatch: (path) => codeOf(async () => watch(root + path, () => {}).close()),
    mayListen: ({ host, port, socket }) =>
      codeOf(async () => {
        // a socket's file is made by listening, and would be left
        if (socket !== '') return access(root + socket.replace(/[^/]*$/, ''), constants.W_OK)
        const server = createServer()
        await new Promise<void>((resolve, fail) => server.once('error', fail).listen({ host, port, exclusive: true }, resolve))
        await new Promise((resolve) => server.close(resolve))
      }),
    ownAddresses: () => Object.values(networkInterfaces()).flatMap((found) => found?.map(({ address }) => address) ?? []),
    glob: async (patterns, exclude) => {
      const cut = (path: string): string => path.slice(root.length)
      const absolute = (pattern: string): string => (pattern.startsWith('/') ? root + pattern : pattern)
      const { paths, refused } = await glob(patterns.map(absolute), exclude.map(absolute))
      return { paths: paths.map(cut), refused: refused.map(({ path, code }) => ({ path: cut(path), code })) }
    },
    program,
    run: async (name, args) => {
      const place = await program(name)
      return typeof place === 'string' ? { place, status: -1, stdout: '', stderr: '' } : { place, ...(await runProgram(root + place.path, args, env)) }
    },
    resolve: (name) =>
      isIP(name) !== 0
        ? Promise.resolve({ addresses: [name] })
        : answer(async () => ({ addresses: (await inTime(lookup(name, { all: true }), NAME_MS)).map(({ address }) => address) })),
    connect: tryConnection,
  }
}

async function answer<T>(ask: () => Promise<T>): Promise<T | { readonly code: Code }> {
  try {
    return await ask()
  } catch (error) {
    return { code: (error as NodeJS.ErrnoException).code ?? 'other' }
  }
}

async function codeOf(ask: () => Promise<unknown>): Promise<Code> {
  const failed = await answer(async () => (await ask(), { code: '' }))
  return failed.code
}

/** Rejects with ETIMEDOUT; what was begun goes on alone. */
function inTime<T>(promise: Promise<T>, ms: number): Promise<T> {
  return new Promise((resolve, fail) => {
    const timer = setTimeout(() => fail(Object.assign(new Error(`no answer within ${ms / 1000} s`), { code: 'ETIMEDOUT' })), ms)
    promise.then(resolve, fail).finally(() => clearTimeout(timer))
  })
}

async function findProgram(name: string, path: string, root: string): Promise<ProgramPlace> {
  const candidates = name.includes('/')
    ? [name]
    : [...new Set([...path.split(':').filter((folder) => folder !== ''), ...SYSTEM_PATH])].map((folder) => `${folder}/${name}`)
  let isDenied = false
  for (const candidate of candidates) {
    try {
      if (!(await stat(root + candidate)).isFile()) continue
      await access(root + candidate, constants.X_OK)
      return { path: candidate }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EACCES') isDenied = true
    }
  }
  return isDenied ? 'denied' : 'missing'
}

function runProgram(path: string, args: readonly string[], env: Host['env']): Promise<Omit<Ran, 'place'>> {
  return new Promise((resolve) => {
    const options = {
      encoding: 'utf8',
      timeout: PROGRAM_MS,
      killSignal: 'SIGKILL',
      maxBuffer: PROGRAM_BYTES_MAX,
      env: { ...env, LC_ALL: 'C' } as NodeJS.ProcessEnv,
    } as const
    try {
      const child = execFile(path, args, options, (error, stdout, stderr) =>
        resolve({ status: error === null ? 0 : typeof error.code === 'number' ? error.code : -1, stdout, stderr }),
      )
      child.stdin?.on('error', () => {}).end()
    } catch (error) {
      resolve({ status: -1, stdout: '', stderr: (error as Error).message })
    }
  })
}

/** Up to the handshake; nothing is sent. */
function tryConnection({ host, port, isSecure, ca }: Parameters<Host['connect']>[0]): Promise<Connection> {
  return new Promise((resolve) => {
    const authorities = ca === null ? {} : { ca }
    const name = isIP(host) === 0 ? { servername: host } : {}
    const socket = isSecure ? connectSecure({ host, port, ...name, ...authorities, rejectUnauthorized: false }) : connectPlain({ host, port })
    const end = (code: Code, message: string): void => {
      const validTo = 'getPeerCertificate' in socket ? Date.parse(socket.getPeerCertificate()?.valid_to ?? '') : NaN
      socket.destroy()
      resolve({ code, message, validToMs: validTo })
    }
    socket.setTimeout(CONNECT_MS, () => end('ETIMEDOUT', `no answer within ${CONNECT_MS / 1000} s`))
    socket.on('error', (error: NodeJS.ErrnoException) => end(error.code ?? 'other', error.message))
    socket.on(isSecure ? 'secureConnect' : 'connect', () => {
      const refused = 'authorizationError' in socket ? (socket.authorizationError as Error | string | null) : null
      // Node gives the code itself, for an expired certificate say, and an error for a wrong name
      if (refused === null || refused === undefined) end('', '')
      else if (typeof refused === 'string') end(refused, refused)
      else end((refused as NodeJS.ErrnoException).code ?? 'other', refused.message)
    })
  })
}
