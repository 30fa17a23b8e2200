/**
 * The two ends of the traffic; plain JavaScript, because `node` runs it inside a network namespace.
 *   node traffic.mjs server ADDRESS...   serves on each address until stdin ends
 *   node traffic.mjs client              reads one line of JSON, a list of connections, opens them and
 *                                        writes one line {"failed":[...]}; sockets live until stdin ends
 * Every step waits for the other side's last one to have passed the router, then a little longer:
 * each kind of connection gives one sequence of packets only.
 */
import { execFile } from 'node:child_process'
import dgram from 'node:dgram'
import { once } from 'node:events'
import net from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'

const STEP = 60 // ms between two steps of one connection
const SPREAD = 8 // ms between the beginnings of two: the listener's socket holds some 160 events only
const PORT = { tcp: 2001, ftp: 21, echo: 3001, mute: 3002 }

// The first message names the kind; the server does its half of it.
function serve(socket) {
  let kind = ''
  socket.on('error', () => {})
  socket.on('data', async (data) => {
    if (kind === 'reset-by-server') return socket.resetAndDestroy()
    kind = data.toString()
    socket.write('ok')
    if (kind !== 'closed-by-server') return
    await sleep(STEP)
    socket.end()
  })
  socket.on('end', () => sleep(STEP).then(() => socket.end()))
}

// Just enough of FTP for the kernel's helper: the data connection sends a word and closes.
function ftp(control) {
  control.on('error', () => {})
  control.write('220 ready\r\n')
  let pasv
  createInterface({ input: control }).on('line', async (line) => {
    const [word, arg = ''] = line.split(' ')
    if (word === 'PORT') {
      control.write('200 ok\r\n')
      const n = arg.split(',').map(Number)
      await sleep(2 * STEP)
      const s = net.connect({ host: n.slice(0, 4).join('.'), port: n[4] * 256 + n[5], localAddress: control.localAddress, allowHalfOpen: true })
      s.on('error', () => {}).on('connect', () => give(s))
    } else if (word === 'PASV') {
      pasv?.close()
      pasv = net.createServer({ allowHalfOpen: true }, give).listen(Number(arg), control.localAddress)
      await once(pasv, 'listening')
      const { port } = pasv.address()
      control.write(`227 Entering Passive Mode (${control.localAddress.replaceAll('.', ',')},${port >> 8},${port & 255})\r\n`)
    } else {
      if (word === 'SHUT') pasv.close() // ours: nobody listens where PASV said
      control.write('200 ok\r\n')
    }
  })
  control.on('end', () => sleep(STEP).then(() => control.end()))
}
async function give(s) {
  s.on('error', () => {}).on('data', () => {}).write('file')
  await sleep(STEP)
  s.end()
}

async function server(addresses) {
  for (const host of addresses) {
    await once(net.createServer({ allowHalfOpen: true }, serve).listen(PORT.tcp, host, 512), 'listening')
    if (!host.includes(':')) await once(net.createServer({ allowHalfOpen: true }, ftp).listen(PORT.ftp, host), 'listening')
    for (const port of [PORT.echo, PORT.mute]) {
      const u = dgram.createSocket(host.includes(':') ? 'udp6' : 'udp4')
      if (port === PORT.echo) u.on('message', (m, from) => u.send(m, from.port, from.address))
      u.bind(port, host)
      await once(u, 'listening')
    }
  }
  console.log('ready')
}

async function tcp({ kind, sport, dst, dport }) {
  const s = net.connect({ host: dst, port: dport, localPort: sport, allowHalfOpen: true })
  let error
  s.on('error', (e) => (error = e))
  const closed = new Promise((done) => s.once('close', done))
  const ended = new Promise((done) => s.once('end', done))
  const check = (code) => { if (error?.code !== code) throw error ?? new Error(`expected ${code}`) }
  if (kind === 'refused') return closed.then(() => check('ECONNREFUSED'))
  if (kind === 'unanswered') return sleep(300).then(() => s.destroy()) // before the SYN is sent again
  await once(s, 'connect')
  s.write(kind)
  await once(s, 'data')
  await sleep(STEP)
  switch (kind) {
    case 'closed-by-client': s.resume().end(); await ended; break
    case 'closed-by-server': s.resume(); await ended; await sleep(STEP); s.end(); break
    case 'reset-by-server': s.resume().write('now'); await closed; return check('ECONNRESET')
    case 'reset-by-client': s.resetAndDestroy(); break
    default: return // stays open
  }
  await closed
  check(undefined)
}

async function udp({ kind, sport, dst, dport }) {
  const u = dgram.createSocket(dst.includes(':') ? 'udp6' : 'udp4')
  u.bind(sport)
  await once(u, 'listening')
  const begin = Date.now()
  for (let last = false; ; await sleep(400)) {
    last = kind !== 'stream' || Date.now() - begin > 2300 // the kernel: "still active after two seconds"
    const answer = kind === 'unanswered' ? undefined : once(u, 'message', { signal: AbortSignal.timeout(5000) })
    u.send('x', dport, dst)
    await answer
    if (last) return
  }
}

const ping = ({ dst }) => promisify(execFile)('ping', ['-c', '1', '-W', '5', dst])

async function ftpData(s, refused) { // the server closes first
  s.resume().on('error', () => {})
  if (refused) return new Promise((done) => s.once('close', done))
  await once(s, 'end')
  await sleep(STEP)
  s.end()
  await new Promise((done) => s.once('close', done))
}
async function ftpSession({ sport, dst, src, data }) {
  const control = net.connect({ host: dst, port: PORT.ftp, localPort: sport, allowHalfOpen: true })
  const lines = createInterface({ input: control })[Symbol.asyncIterator]()
  const say = async (line) => { control.write(`${line}\r\n`); return (await lines.next()).value }
  await lines.next()
  await say('USER any') // the helper reads only behind an end of line that it has seen
  for (const d of data) {
    await sleep(STEP)
    if (d.mode === 'port') {
      const l = net.createServer({ allowHalfOpen: true })
      const got = d.refused ? sleep(5 * STEP) : once(l, 'connection').then(([s]) => ftpData(s))
      if (!d.refused) await once(l.listen(d.dport, src), 'listening')
      await say(`PORT ${src.replaceAll('.', ',')},${d.dport >> 8},${d.dport & 255}`)
      await got
      l.close()
    } else {
      await say(`PASV ${d.dport}`)
      if (d.refused) await say('SHUT')
      await sleep(2 * STEP)
      const s = net.connect({ host: dst, port: d.dport, localPort: d.sport, allowHalfOpen: true })
      await ftpData(s, d.refused)
    }
  }
  control.end()
  await new Promise((done) => control.once('close', done))
}

async function client(list) {
  const failed = []
  const open = { tcp, udp, icmp: ping, icmpv6: ping, ftp: ftpSession }
  await Promise.all(list.map(async (c, i) => {
    await sleep(i * SPREAD)
    try {
      for (let n = 0; n < (c.lives ?? 1); n++) {
        if (n > 0) await sleep(c.between ?? 0)
        await open[c.protocol](c)
      }
    } catch (e) { failed.push(`${JSON.stringify(c)}: ${e.code ?? e.message}`) }
  }))
  console.log(JSON.stringify({ failed }))
}

const [role, ...args] = process.argv.slice(2)
if (role === 'server') await server(args)
const stdin = createInterface({ input: process.stdin })
if (role === 'client') stdin.once('line', (line) => client(JSON.parse(line)))
stdin.once('close', () => process.exit(0))
