/** Does what is found arrive, in time and with the right time: receivers, the way to them while the table is full, the clock and its zone, the configuration. */
import { type Check, type Facts, type Fault, mendedBy, type Plan, shellWord } from './model.js'

const DAY_MS = 86_400_000
const CERTIFICATE_DAYS_MIN = 14
/** No host of this program has an earlier clock. */
const EARLIEST_MS = Date.UTC(2026, 0, 1)
const OTHERS_READ = 0o004
const OTHERS_WRITE = 0o002
/** Made when the service starts, and gone with it. */
const CREDENTIALS = /\/run\/credentials\//

const families = (address: string): 'ip' | 'ip6' => (address.includes(':') ? 'ip6' : 'ip')

/** Traffic of one service: by the other end's address, or, where nothing is known of it, '' for any. */
interface Way {
  readonly address: string
  readonly protocol: 'tcp' | 'udp'
  readonly port: number
  /** the service is this host's, so that the port is its own end of what comes in */
  readonly isServed: boolean
}

const exempting = (rules: string): readonly string[] => rules.split('\n').filter((line) => /\bnotrack\b|-j NOTRACK\b/.test(line))

/** Does a rule name this port, or none? Sets of ports are read, ranges are not. */
function takesPort(line: string, port: number): boolean {
  const [, several = '', one = several] = /\b[sd]port (?:\{([^}]*)\}|(\S+))/.exec(line) ?? []
  return one === '' || one.split(/[\s,]+/).includes(String(port))
}

/** `nft list ruleset` and `iptables-save` write the rules so; sets of addresses (`@name`) are not looked into. */
const isLoopbackExempt = (rules: string): boolean => exempting(rules).some((line) => /(?:\boif|\boifname|-o) "?lo\b/.test(line) || line.trim() === 'notrack')

/** Are both directions exempt from tracking? What a host sends to itself passes its output alone, both ways. */
function isExempt(rules: string, { address, port, isServed }: Way, own: readonly string[]): boolean {
  if (isOwn(address, own)) return isLoopbackExempt(rules)
  const named = `${address.replaceAll('.', '\\.')}(?:/32|/128)?(?![\\w.:])`
  const has = (words: string, ports: string): boolean => {
    const way = address === '' ? new RegExp(`(?:${ports}) `) : new RegExp(`(?:${words}) ${named}`)
    return exempting(rules).some((line) => (way.test(line) && takesPort(line, port)) || line.trim() === 'notrack')
  }
  return has('daddr|-d', isServed ? 'sport' : 'dport') && has('saddr|-s', isServed ? 'dport' : 'sport')
}

const isLoopback = (address: string): boolean => /^127\.|^::1$/.test(address)
const isOwn = (address: string, own: readonly string[]): boolean => isLoopback(address) || own.includes(address)

/** Are new packets of this host tracked? What is in the table says so, and so do rules that ask for states. */
function isTracking({ sysctls, rules }: Facts): boolean {
  return (
    (sysctls['net.netfilter.nf_conntrack_count'] ?? 0) > 0 ||
    /\bct (?:state|status|mark)\b|--ctstate|--state|masquerade|MASQUERADE|\b[sd]nat\b|-j [SD]NAT/.test(rules ?? '')
  )
}

/** One command that makes a table of its own, with the rules for both directions. */
function notrackRules(ways: readonly Way[], own: readonly string[]): string {
  const rule = (side: 's' | 'd', { address, protocol, port, isServed }: Way): string =>
    `${address === '' ? '' : `${families(address)} ${side}addr ${address} `}${protocol} ${(side === 'd') === isServed ? 's' : 'd'}port ${port} notrack; `
  const foreign = ways.filter(({ address }) => !isOwn(address, own))
  const output = [...(ways.some(({ address, isServed }) => isOwn(address, own) || (isServed && address === '')) ? ['oif lo notrack; '] : []), ...foreign.map((way) => rule('d', way))].join('')
  const prerouting = foreign.map((way) => rule('s', way)).join('')
  const chain = (name: string, rules: string): string => (rules === '' ? '' : `chain ${name} { type filter hook ${name} priority raw; ${rules}}; `)
  return `nft 'table inet conntrail { ${chain('output', output)}${chain('prerouting', prerouting)}}'`
}

/** Where a rule lets in what has a state, what has none needs one of its own. */
const ACCEPT = '; where a rule drops what has no state, accept it: ct state untracked accept'

const receivers: readonly Check[] = [
  {
    id: 'receiver-name',
    looksAt: 'names of receivers',
    lost: 'alerts: they wait as long as the spool and max_age allow, then they are given up',
    judge: (facts) =>
      facts.receivers
        .filter(({ resolved }) => resolved !== '')
        .map(({ name, host, resolved }): Fault => ({
          severity: 'critical',
          about: name,
          wrong: `Output ${name}: the name ${host} cannot be resolved (${resolved}).`,
          mend: `\`getent hosts ${host}\` must answer: mend /etc/resolv.conf, or put the address into /etc/hosts`,
        })),
  },
  {
    id: 'receiver-tracked',
    looksAt: 'rules with notrack, nf_conntrack_count',
    lost: 'the alert, just when it is needed: while the table is full the kernel drops the first packet of a new connection to the receiver too, and the name lookup before it',
    judge(facts) {
      if (!isTracking(facts)) return []
      return facts.receivers.flatMap(({ name, host, port, addresses, isAddress }): Fault[] => {
        const isTracked = (way: Way): boolean => !isExempt(facts.rules ?? '', way, facts.ownAddresses)
        const open = addresses.map((address): Way => ({ address, protocol: 'tcp', port, isServed: false })).filter(isTracked)
        if (open.length === 0) return []
        // a resolver of this host asks further ones by itself
        const servers = isAddress ? [] : facts.nameServers.filter((address) => !isLoopback(address)).map((address): Way => ({ address, protocol: 'udp', port: 53, isServed: false })).filter(isTracked)
        return [
          {
            severity: facts.rules === null ? 'info' : 'warning',
            about: name,
            wrong:
              facts.rules === null
                ? `Output ${name}: whether traffic to ${host} is exempt from tracking cannot be seen (nft list ruleset was refused).`
                : `Output ${name}: traffic to ${host} (${open.map(({ address }) => address).join(', ')}) is tracked.`,
            ...mendedBy(notrackRules([...open, ...servers], facts.ownAddresses), ACCEPT),
            persist: '/etc/nftables.conf',
          },
        ]
      })
    },
  },
  {
    id: 'receiver-connection',
    looksAt: 'a connection to each receiver (--connect)',
    lost: 'alerts: they wait as long as the spool and max_age allow, then they are given up',
    judge: (facts) =>
      facts.receivers.flatMap(({ name, host, port, connection }): Fault[] =>
        connection === null || connection.code === ''
          ? []
          : [
              {
                severity: 'critical',
                about: name,
                wrong: `Output ${name}: ${host}:${port} does not take a connection: ${connection.message} (${connection.code}).`,
                mend:
                  connection.code.includes('CERT') || /SIGN|ISSUER|VERIFY/.test(connection.code)
                    ? 'a valid certificate there, or tls: ca_file: with the authority that signed it'
                    : `\`curl -v ${host}:${port}\` from here must connect: firewall, route, and is it running?`,
              },
            ],
      ),
  },
  {
    id: 'receiver-certificate',
    looksAt: 'certificates of receivers (--connect)',
    lost: 'every alert after that day',
    judge: ({ receivers: all, nowMs }) =>
      all.flatMap(({ name, host, connection }): Fault[] => {
        const days = connection === null || connection.code !== '' ? NaN : (connection.validToMs - nowMs) / DAY_MS
        return days < CERTIFICATE_DAYS_MIN
          ? [
              {
                severity: 'warning',
                about: name,
                wrong: `Output ${name}: the certificate of ${host} ends in ${Math.max(0, Math.floor(days))} days.`,
                mend: `renew the certificate of ${host}`,
              },
            ]
          : []
      }),
  },
]

const listening: Readonly<Record<string, (at: string) => Pick<Fault, 'wrong' | 'mend'>>> = {
  EADDRNOTAVAIL: (at) => ({ wrong: `http: ${at} is no address of this host.`, mend: 'another address at http: listen:; `ip -brief address` shows those of this host' }),
  EACCES: (at) => ({ wrong: `http: this user may not listen at ${at}.`, mend: "a port from 1024 on at http: listen:, or AmbientCapabilities=CAP_NET_BIND_SERVICE in the service's unit" }),
  EADDRINUSE: (at) => ({ wrong: `http: ${at} is taken by another program.`, mend: 'another port at http: listen:; `ss -ltnp` shows who has it' }),
}

const SCRAPES_LOST = 'the metrics, just when they are needed: while the table is full the kernel drops the first packet of each new scrape too'

const http: readonly Check[] = [
  {
    id: 'http-address',
    looksAt: 'http: listen: of the configuration',
    lost: 'metrics and health: the program does not start',
    judge({ http: found }, plan) {
      if (found === null || plan.listen === null || found.code === '' || found.isOurs) return []
      const at = shownAt(plan.listen)
      const known = listening[found.code] ?? (() => ({ wrong: `http: nothing can listen at ${at} (${found.code}).`, mend: 'another address at http: listen:' }))
      const { wrong, mend } = known(at)
      return [{ severity: 'critical', about: at, wrong: found.holder === '' ? wrong : wrong.replace('another program', found.holder), mend }]
    },
  },
  {
    id: 'http-tracked',
    looksAt: 'rules with notrack, nf_conntrack_count',
    lost: SCRAPES_LOST,
    judge(facts, { listen }) {
      if (listen === null || listen.socket !== '' || listen.port === 0 || !isTracking(facts)) return []
      const rules = facts.rules ?? ''
      const isAny = /^(?:0\.0\.0\.0|::)$/.test(listen.host)
      const isLocal = listen.host === 'localhost' || isLoopback(listen.host)
      const way: Way = { address: isLocal ? '127.0.0.1' : '', protocol: 'tcp', port: listen.port, isServed: true }
      if (isExempt(rules, way, facts.ownAddresses) && (!isAny || isLoopbackExempt(rules))) return []
      const at = shownAt(listen)
      return [
        {
          severity: facts.rules === null ? 'info' : 'warning',
          about: at,
          wrong: facts.rules === null ? `http: whether scrapes of ${at} are exempt from tracking cannot be seen (\`nft list ruleset\` was refused).` : `http: scrapes of ${at} are tracked.`,
          ...mendedBy(notrackRules([way], facts.ownAddresses), ACCEPT),
          persist: '/etc/nftables.conf',
        },
      ]
    },
  },
]

function shownAt({ host, port, socket }: NonNullable<Plan['listen']>): string {
  return socket !== '' ? socket : `${host.includes(':') ? `[${host}]` : host}:${port}`
}

const clock: readonly Check[] = [
  {
    id: 'clock-off',
    looksAt: 'the clock',
    lost: 'the order of records and what --since finds; receivers refuse signatures and certificates',
    judge: ({ nowMs }) =>
      nowMs >= EARLIEST_MS
        ? []
        : [
            {
              severity: 'critical',
              wrong: `The clock says ${new Date(nowMs).toISOString()}, which is before this program was made.`,
              mend: '`timedatectl set-ntp true`, or `chronyd -q`',
              persist: '`systemctl enable systemd-timesyncd`, or chrony',
            },
          ],
  },
  {
    id: 'clock-unsynchronized',
    looksAt: 'timedatectl, adjtimex, chronyc, ntpq, systemd-timesyncd',
    lost: 'when things happened: records of several hosts cannot be put beside each other, and each correction of the clock makes times jump',
    judge({ clock: { isSynchronized, by } }) {
      if (isSynchronized === null)
        return [
          {
            severity: 'info',
            wrong: 'Nobody here can tell whether the clock is synchronized.',
            mend: 'install systemd-timesyncd or chrony; in a container the host keeps the clock',
          },
        ]
      return isSynchronized
        ? []
        : [
            {
              severity: 'warning',
              wrong: `The clock is not synchronized (says ${by}).`,
              mend: '`timedatectl set-ntp true`, or `systemctl enable --now chrony`',
              persist: '`systemctl enable systemd-timesyncd`, or chrony',
            },
          ]
    },
  },
  {
    id: 'zone-rules',
    looksAt: 'TZ and /usr/share/zoneinfo',
    lost: 'hours: other programs take UTC for the local time, and their lines without a zone are read as local time',
    judge: ({ zone }) =>
      zone.hasRules
        ? []
        : [
            {
              severity: 'warning',
              wrong: `The time zone is ${zone.name}${zone.tz === '' ? '' : ' (by TZ)'}, and /usr/share/zoneinfo/${zone.name} is not there: programs of this host take UTC.`,
              mend: '`apt install tzdata`, or TZ=UTC',
              persist: "Environment=TZ=UTC in the service's unit",
            },
          ],
  },
  {
    id: 'zone-unnamed',
    looksAt: 'timezone: of inputs',
    lost: "which of two hours: lines without a zone (RFC 3164, dmesg -T) are read as this host's time, whose clock is turned back once a year",
    judge: ({ zone }, plan) =>
      zone.hasSummerTime && plan.readsLocalTimes
        ? [
            {
              severity: 'info',
              wrong: `The zone of this host is ${zone.name}, which has summer time, and inputs name none.`,
              mend: 'timezone: UTC for loggers that write UTC, else a zone by name',
            },
          ]
        : [],
  },
]

const configuration: readonly Check[] = [
  {
    id: 'config-error',
    looksAt: 'the configuration',
    lost: 'everything: the program does not start with it; on a reload the old one runs on',
    judge: (_facts, plan) =>
      plan.configErrors.map((wrong): Fault => ({
        severity: 'critical',
        about: plan.configFile,
        wrong,
        mend: `mend ${plan.configFile}; \`conntrail check ${plan.configFile}\` tells the same`,
      })),
  },
  {
    id: 'config-warning',
    looksAt: 'secrets of the configuration',
    lost: 'everything: the program does not start as long as a secret is not there',
    judge: (_facts, plan) =>
      plan.configWarnings.map((text): Fault => ({
        severity: CREDENTIALS.test(text) || text.startsWith('the environment') ? 'info' : 'critical',
        wrong: `${text[0]!.toUpperCase()}${text.slice(1)}.`,
        mend: "let this user read it (`chown`, `chmod 600`), or LoadCredential= in the service's unit",
      })),
  },
  {
    id: 'secret-refused',
    looksAt: 'files with secrets and keys',
    lost: 'everything: the program does not start without them',
    judge: ({ secretFiles }) =>
      secretFiles.flatMap(({ path, code }): Fault[] =>
        code === ''
          ? []
          : [
              {
                severity: CREDENTIALS.test(path) ? 'info' : 'critical',
                about: path,
                wrong: `${path} cannot be read (${code}).`,
                mend: "let this user read it (`chown`, `chmod 600`), or LoadCredential= in the service's unit",
              },
            ],
      ),
  },
  {
    id: 'secret-open',
    looksAt: 'modes of files with secrets',
    lost: 'the secret itself: others can read it, or put another in its place',
    judge(facts, plan) {
      const config = plan.configFile === '' || facts.configMode === 0 ? [] : [{ path: plan.configFile, mode: facts.configMode, holds: plan.holdsSecrets }]
      return [...config, ...facts.secretFiles.map(({ path, mode }) => ({ path, mode, holds: true }))].flatMap(({ path, mode, holds }): Fault[] => {
        const octal = (mode & 0o777).toString(8)
        if ((mode & OTHERS_WRITE) !== 0)
          return [{ severity: 'critical', about: path, wrong: `${path} may be written by every user (mode ${octal}).`, ...mendedBy(`chmod o-rwx ${shellWord(path)}`) }]
        return holds && (mode & OTHERS_READ) !== 0
          ? [{ severity: 'warning', about: path, wrong: `${path} holds a secret and may be read by every user (mode ${octal}).`, ...mendedBy(`chmod o-rwx ${shellWord(path)}`) }]
          : []
      })
    },
  },
]

export const deliveryChecks: readonly Check[] = [...configuration, ...receivers, ...http, ...clock]
