/** What `conntrail doctor` knows and says: the plan (what is to run here), the facts (how the host is), and what a check makes of both. All of it plain data. */

/** critical: data will be lost, or something does not run; warning: data may be lost, or is not there for want of a setting; info: advice, nothing to mend. */
export const severities = ['critical', 'warning', 'info'] as const
export type Severity = (typeof severities)[number]

/** What a configuration asks of the host. Without a configuration: everything that the program can do. */
export interface Plan {
  /** '': none was named */
  readonly configFile: string
  /** complete sentences, as `conntrail check` has them */
  readonly configErrors: readonly string[]
  readonly configWarnings: readonly string[]
  /** where the kernel's log comes from; `either`: what there is */
  readonly kernelLog: 'kmsg' | 'journal' | 'both' | 'either' | 'none'
  /** null: not read. `bufferBytes` 0: as the kernel has it */
  readonly conntrack: { readonly events: readonly string[]; readonly bufferBytes: number } | null
  readonly table: boolean
  /** network namespaces besides this one: names, or `all` */
  readonly otherNamespaces: readonly string[]
  /** programs of `command` inputs */
  readonly programs: readonly string[]
  readonly files: readonly { readonly name: string; readonly patterns: readonly string[]; readonly exclude: readonly string[] }[]
  /** lines may come whose clock has no zone, and none is named */
  readonly readsLocalTimes: boolean
  /** flow records leave the program: what they lack is missed */
  readonly writesFlows: boolean
  readonly state: string | null
  /** what all spools may take of the disk */
  readonly spoolBytes: number
  /** `bytes`: what rotation lets stand, 0 where there is no limit */
  readonly outputs: readonly { readonly name: string; readonly path: string; readonly bytes: number }[]
  readonly receivers: readonly {
    readonly name: string
    readonly host: string
    readonly port: number
    readonly isSecure: boolean
    readonly caFile: string | null
  }[]
  /** null: no http; `socket` '' where it is an address */
  readonly listen: { readonly host: string; readonly port: number; readonly socket: string } | null
  /** files that hold secrets */
  readonly secretFiles: readonly string[]
  /** the configuration itself holds a token, key or secret header */
  readonly holdsSecrets: boolean
}

/** '' it worked; else the errno (`EACCES`), or `other` */
export type Code = string

/** Where a program is, or why it cannot be run. */
export type ProgramPlace = { readonly path: string } | 'missing' | 'denied'

export interface Ran {
  readonly place: ProgramPlace
  /** exit status, -1 where it did not run or did not end in time */
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

export interface DirectoryFacts {
  /** the directory; or, where it is not there, the nearest one above it that is */
  readonly path: string
  readonly isThere: boolean
  /** of the place itself where it is there and no directory */
  readonly isDirectory: boolean
  /** can this user make files in `path`? */
  readonly writable: Code
  readonly owner: number
  /** bytes and inodes that this user may still use, and all there are; -1 not known (or, inodes, not limited) */
  readonly freeBytes: number
  readonly totalBytes: number
  readonly freeInodes: number
  readonly totalInodes: number
  /** `tmpfs`, `nfs`; '' for those that need no word */
  readonly fileSystem: string
}

/** Numbers of /proc/sys by their sysctl names; absent where there is none or it may not be read. */
export type Sysctls = Readonly<Record<string, number>>

export interface Facts {
  /** `v20.20.2` */
  readonly node: string
  /** `6.18.3-cloud-amd64` */
  readonly kernel: string
  readonly nowMs: number
  /** effective; -1 where /proc does not tell */
  readonly uid: number
  /** names of the effective ones among those that matter here; null where /proc does not tell */
  readonly capabilities: readonly string[] | null
  /** soft limit of open files; -1 not known */
  readonly openFiles: number
  /** options of the mount of /proc, such as `hidepid=2`, `subset=pid`; null: it is not there */
  readonly procOptions: readonly string[] | null
  readonly bootId: Code
  readonly kmsg: { readonly opened: Code; readonly isKernelLog: boolean }
  /** journalctl, asked for the kernel's newest entry; null: not asked */
  readonly journal: Ran | null
  readonly toolVersion: Ran
  /** `conntrack -C`: needs what every question to the kernel needs */
  readonly toolCount: Ran
  readonly nsenter: ProgramPlace
  readonly shell: ProgramPlace
  readonly programs: Readonly<Record<string, ProgramPlace>>
  readonly sysctls: Sysctls
  /** backend by address family (2, 10), `NONE` */
  readonly logBackends: Readonly<Record<string, string>>
  /** /proc/net/stat/nf_conntrack, added up since boot; null: it is not there */
  readonly counters: Readonly<Record<string, number>> | null
  /** sockets that hear connection tracking events in this namespace; `program` '' where it may not be seen */
  readonly listeners: readonly { readonly program: string; readonly drops: number }[]
  /** null: nobody here can tell; `by` is who was asked */
  readonly clock: { readonly isSynchronized: boolean | null; readonly by: string }
  /** `name` as Node has it; `TZ` '' where not set; are there its rules on disk, as other programs read them? */
  readonly zone: { readonly name: string; readonly tz: string; readonly hasRules: boolean; readonly hasSummerTime: boolean }
  /** was one more inotify watch to be had? */
  readonly inotify: Code
  readonly state: (DirectoryFacts & { readonly foreign: readonly string[] }) | null
  readonly outputs: readonly {
    readonly name: string
    readonly path: string
    readonly folder: DirectoryFacts
    readonly file: Code
    readonly isFolder: boolean
  }[]
  readonly inputs: readonly {
    readonly name: string
    readonly matched: number
    /** paths that fit and may not be read, with why */
    readonly refused: readonly { readonly path: string; readonly code: Code }[]
    /** names of outputs whose file is among them, whatever it is called there */
    readonly ownOutputs: readonly string[]
    /** of those paths, own logs of well-known log shippers */
    readonly shipperLogs: readonly string[]
  }[]
  readonly receivers: readonly {
    readonly name: string
    readonly host: string
    readonly port: number
    /** the host is an address already */
    readonly isAddress: boolean
    readonly addresses: readonly string[]
    readonly resolved: Code
    /** null: not tried */
    readonly connection: { readonly code: Code; readonly message: string; readonly validToMs: number } | null
  }[]
  readonly nameServers: readonly string[]
  /** of this host in this network namespace */
  readonly ownAddresses: readonly string[]
  /** may its address be listened at; null: there is none. `holder`: who has it, '' where not known */
  readonly http: { readonly code: Code; readonly holder: string; readonly isOurs: boolean } | null
  /** the firewall's rules as text; null where no tool could show them */
  readonly rules: string | null
  readonly secretFiles: readonly { readonly path: string; readonly mode: number; readonly code: Code }[]
  readonly configMode: number
}

/** What one check found. */
export interface Fault {
  readonly severity: Severity
  /** one sentence: what is wrong, with the value seen */
  readonly wrong: string
  /** one sentence: what mends it now. Commands stand in backticks */
  readonly mend: string
  /** the one of them that mends it when it is run as root, as it is; absent where it takes more than a command */
  readonly command?: string
  /** where the mending is kept over a restart; absent where it stays by itself */
  readonly persist?: string
  /** sysctls that mend it */
  readonly sysctls?: Sysctls
  /** which of several (an output, a receiver, a path) */
  readonly about?: string
}

/** Mended by a line of the shell. */
export function mendedBy(command: string, more = ''): Pick<Fault, 'mend' | 'command'> {
  return { mend: `\`${command}\`${more}`, command }
}

/** One word of the shell. */
export const shellWord = (text: string): string => (/^[\w./+@%-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`)

export interface Check {
  /** stable: scripts and `--ignore` use it */
  readonly id: string
  /** what is looked at */
  readonly looksAt: string
  /** what would be lost, and nobody told */
  readonly lost: string
  judge(facts: Facts, plan: Plan): readonly Fault[]
}

export interface Finding extends Fault {
  readonly id: string
  readonly looksAt: string
  readonly lost: string
}

/** Everything that the checks find, the worst first. Pure. */
export function judge(checks: readonly Check[], facts: Facts, plan: Plan): readonly Finding[] {
  const findings = checks.flatMap((check) =>
    check.judge(facts, plan).map((fault): Finding => ({ id: check.id, looksAt: check.looksAt, lost: check.lost, ...fault })),
  )
  return findings.sort((a, b) => severities.indexOf(a.severity) - severities.indexOf(b.severity))
}
