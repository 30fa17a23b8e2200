/** Can what is remembered and written be put where it is to go, and does it stay there: the state directory and the directories of file outputs. */
import { type Check, type DirectoryFacts, type Facts, type Fault, mendedBy, type Severity, shellWord } from './model.js'

const MIB = 2 ** 20
/** Below this nearly everything fails soon. */
const FREE_BYTES_LOW = 64 * MIB
/** Less than this, on a disk that is nearly full besides. */
const FREE_BYTES_MIN = 1024 * MIB
const FREE_SHARE_MIN = 0.1
const FREE_INODES_MIN = 1000
const FREE_INODES_SHARE = 0.01

const networkFileSystems: ReadonlySet<string> = new Set(['nfs', 'cifs', 'smb', 'smb2', '9p', 'ceph'])
const memoryFileSystems: ReadonlySet<string> = new Set(['tmpfs', 'ramfs'])

const mib = (bytes: number): string =>
  bytes < 10 * MIB ? `${Math.round(bytes / 1024).toLocaleString('en-US')} KiB` : `${Math.round(bytes / MIB).toLocaleString('en-US')} MiB`

/** Too little space or too few inodes; `wanted` bytes may still come. */
function spaceFaults(what: string, { path, freeBytes, totalBytes, freeInodes, totalInodes }: DirectoryFacts, wanted: number): Fault[] {
  const mend = `free space on the file system of ${path} (\`du -xh ${path} | sort -h\`), or name a directory on another`
  if (freeBytes >= 0 && freeBytes < FREE_BYTES_LOW)
    return [{ severity: 'critical', about: path, wrong: `${what}: only ${mib(freeBytes)} of ${mib(totalBytes)} are free at ${path}.`, mend }]
  if (freeBytes >= 0 && freeBytes < FREE_BYTES_MIN && freeBytes < totalBytes * FREE_SHARE_MIN)
    return [{ severity: 'warning', about: path, wrong: `${what}: ${mib(freeBytes)} of ${mib(totalBytes)} are free at ${path}.`, mend }]
  if (freeInodes >= 0 && freeInodes < FREE_INODES_MIN && freeInodes < totalInodes * FREE_INODES_SHARE)
    return [
      {
        severity: 'critical',
        about: path,
        wrong: `${what}: only ${freeInodes} inodes are free at ${path}, so that no file can be made though there is space.`,
        mend: `remove files on the file system of ${path}`,
      },
    ]
  if (freeBytes >= 0 && freeBytes < wanted)
    return [
      {
        severity: 'warning',
        about: path,
        wrong: `${what}: it may come to ${mib(wanted)}, and ${mib(freeBytes)} are free at ${path}.`,
        mend: `${mend}, or set smaller limits (spool:, rotate: max_total:)`,
      },
    ]
  return []
}

/** Owner and way to mend where this user may not write. */
function refusedFault(what: string, folder: DirectoryFacts, wanted: string, { uid }: Facts): Fault {
  const isReadOnly = folder.writable === 'EROFS'
  const whose = isReadOnly ? 'its file system is read-only' : `it belongs to user ${folder.owner}${uid < 0 ? '' : `, and this is user ${uid}`}`
  const verb = folder.isThere
    ? `${folder.path} may not be written (${folder.writable}): ${whose}`
    : `${wanted} is not there and cannot be made in ${folder.path} (${folder.writable}): ${whose}`
  return {
    severity: 'critical',
    about: wanted,
    wrong: `${what}: ${verb}.`,
    ...(isReadOnly ? mendedBy(`mount -o remount,rw "$(findmnt -no TARGET -T ${shellWord(folder.path)})"`, ', or name a directory elsewhere') : madeFor(uid, wanted)),
    persist: `StateDirectory= or LogsDirectory= in the service's unit, ReadWritePaths=${wanted} for other places`,
  }
}

/** The directory, for the user that this runs as. */
function madeFor(uid: number, path: string): Pick<Fault, 'mend' | 'command'> {
  const command = (owner: string): string => `install -d -o ${owner} -m 750 ${shellWord(path)}`
  return uid < 0 ? { mend: `\`${command('USER')}\`` } : mendedBy(command(String(uid)))
}

const STATE_LOST = 'where every input was: after a restart lines are missed or come twice, open episodes begin anew, and what waits for receivers is gone'

const state: readonly Check[] = [
  {
    id: 'state-none',
    looksAt: 'state: of the configuration',
    lost: STATE_LOST,
    judge: (_facts, plan) =>
      plan.configFile === '' || plan.configErrors.length > 0 || plan.state !== null
        ? []
        : [{ severity: 'info', wrong: 'No state directory is named: nothing is remembered over a restart.', mend: 'state: /var/lib/conntrail' }],
  },
  {
    id: 'state-directory',
    looksAt: 'the state directory',
    lost: STATE_LOST,
    judge(facts, plan) {
      const { state: folder } = facts
      if (folder === null || plan.state === null) return []
      if (!folder.isDirectory)
        return [
          {
            severity: 'critical',
            about: plan.state,
            wrong: `State: ${plan.state} is no directory.`,
            ...(facts.uid < 0 ? madeFor(-1, plan.state) : mendedBy(`mv ${shellWord(plan.state)} ${shellWord(`${plan.state}.old`)} && ${madeFor(facts.uid, plan.state).command!}`)),
          },
        ]
      if (folder.writable !== '') return [refusedFault('State', folder, plan.state, facts)]
      return folder.isThere
        ? []
        : [
            {
              severity: 'info',
              about: plan.state,
              wrong: `State: ${plan.state} is not there yet; it is made at the first start.`,
              ...madeFor(facts.uid, plan.state),
            },
          ]
    },
  },
  {
    id: 'state-owner',
    looksAt: 'owners of the files in the state directory',
    lost: STATE_LOST,
    judge({ state: folder, uid }, plan) {
      if (folder === null || plan.state === null || !folder.isThere) return []
      if (folder.foreign.length > 0) {
        const [first] = folder.foreign
        return [
          {
            severity: 'critical',
            about: plan.state,
            wrong: `State: ${first}${folder.foreign.length > 1 ? ` and ${folder.foreign.length - 1} more files` : ''} in ${plan.state} belong to another user than the directory (${folder.owner}): a run by hand has left them, and the service cannot go on with them.`,
            ...mendedBy(`chown -R ${folder.owner} ${shellWord(plan.state)}`),
          },
        ]
      }
      return uid <= 0 || uid === folder.owner || folder.writable !== ''
        ? []
        : [
            {
              severity: 'warning',
              about: plan.state,
              wrong: `State: ${plan.state} belongs to user ${folder.owner}, and this is user ${uid}.`,
              ...mendedBy(`chown -R ${uid} ${shellWord(plan.state)}`, ', or run as its owner'),
            },
          ]
    },
  },
  {
    id: 'state-space',
    looksAt: 'free space and inodes of the state directory',
    lost: `${STATE_LOST}; with a full disk no checkpoint is written and nothing can wait`,
    judge: ({ state: folder }, plan) => (folder === null || folder.writable !== '' ? [] : spaceFaults('State', folder, plan.spoolBytes)),
  },
  {
    id: 'state-file-system',
    looksAt: 'file system of the state directory',
    lost: STATE_LOST,
    judge({ state: folder }) {
      if (folder === null || folder.writable !== '') return []
      const { fileSystem, path } = folder
      if (memoryFileSystems.has(fileSystem))
        return [
          {
            severity: 'warning',
            about: path,
            wrong: `State: ${path} is in memory (${fileSystem}): a restart of the host empties it.`,
            mend: 'state: /var/lib/conntrail, or another directory on a disk',
          },
        ]
      if (fileSystem === 'overlay')
        return [
          {
            severity: 'warning',
            about: path,
            wrong: `State: ${path} is in the layer of a container (overlay), which goes with it.`,
            mend: 'mount a volume there: -v conntrail:/var/lib/conntrail',
          },
        ]
      return networkFileSystems.has(fileSystem)
        ? [
            {
              severity: 'warning',
              about: path,
              wrong: `State: ${path} is on a network file system (${fileSystem}): when the network stands still so does every checkpoint.`,
              mend: 'state: /var/lib/conntrail, or another directory on a disk of this host',
            },
          ]
        : []
    },
  },
]

const outputs: readonly Check[] = [
  {
    id: 'output-directory',
    looksAt: 'directories of file outputs',
    lost: 'nothing is lost as long as the inputs can wait: the program does not start',
    judge: (facts) =>
      facts.outputs.flatMap(({ name, path, folder, file, isFolder }): Fault[] => {
        const what = `Output ${name}`
        const wanted = path.replace(/\/[^/]*$/, '') || '/'
        if (isFolder) return [{ severity: 'critical', about: path, wrong: `${what}: ${path} is a directory.`, mend: `path: ${path}/records.ndjson` }]
        if (!folder.isThere)
          return [
            {
              severity: 'critical',
              about: wanted,
              wrong: `${what}: the directory ${wanted} is not there.`,
              ...madeFor(facts.uid, wanted),
              persist: "LogsDirectory=conntrail in the service's unit makes /var/log/conntrail",
            },
          ]
        if (!folder.isDirectory)
          return [{ severity: 'critical', about: wanted, wrong: `${what}: ${wanted} is no directory.`, mend: `another path for output ${name}` }]
        if (folder.writable !== '') return [refusedFault(what, folder, wanted, facts)]
        return file === '' ? [] : [{ severity: 'critical', about: path, wrong: `${what}: ${path} may not be written (${file}).`, ...(facts.uid < 0 ? { mend: `\`chown USER ${path}\`` } : mendedBy(`chown ${facts.uid} ${shellWord(path)}`)) }]
      }),
  },
  {
    id: 'output-space',
    looksAt: 'free space and inodes of the directories of file outputs',
    lost: 'lines of inputs that cannot wait (conntrack, a ring of kernel lines): a full disk holds up the reading',
    judge: (facts, plan) =>
      facts.outputs.flatMap(({ name, folder }) =>
        folder.isThere && folder.writable === '' ? spaceFaults(`Output ${name}`, folder, plan.outputs.find((output) => output.name === name)?.bytes ?? 0) : [],
      ),
  },
  {
    id: 'output-file-system',
    looksAt: 'file systems of file outputs',
    lost: 'records: those in memory with a restart of the host, those on a network as long as it stands still',
    judge: (facts) =>
      facts.outputs.flatMap(({ name, folder: { path, fileSystem } }): Fault[] => {
        const isNetwork = networkFileSystems.has(fileSystem)
        if (!isNetwork && !memoryFileSystems.has(fileSystem)) return []
        // who writes to memory often does so on purpose
        const severity: Severity = isNetwork ? 'warning' : 'info'
        return [
          {
            severity,
            about: path,
            wrong: `Output ${name}: ${path} is ${isNetwork ? 'on a network file system' : 'in memory'} (${fileSystem}).`,
            mend: `a directory on a disk of this host for output ${name}`,
          },
        ]
      }),
  },
]

export const storageChecks: readonly Check[] = [...state, ...outputs]
