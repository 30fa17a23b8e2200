/** An input of which nothing is understood says so to a person, and so does one that is not understood from some line on; one that is about other matters says nothing. */
import { describe, expect, test } from 'vitest'
import { runPieces } from './harness.js'

const told = async (bytes: string | Uint8Array): Promise<string[]> => (await runPieces([Buffer.from(bytes as string)])).diagnostics
const row = 'tcp 6 5 SYN_SENT src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1 sport=2 dport=1\n'

describe('nothing is understood', () => {
  test.each([
    ['Netid State  Recv-Q Send-Q\ntcp ESTAB 0 0\n', 'ss'],
    ['    PID TTY          TIME CMD\n  1 ? 00:00:01 init\n', 'ps'],
    ['Chain INPUT (policy ACCEPT)\n', 'iptables -L'],
    ['<!DOCTYPE html>\n<p>\n', 'HTML'],
    ['version: 1\ninputs:\n', 'YAML'],
    ['---\n', 'YAML'],
    ['cat: /var/log/kern.log: Permission denied\n', 'what a program said'],
    ['bash: line 1: conntrack: command not found\n', 'what a program said'],
    [Buffer.from('fd377a585a000004', 'hex'), 'xz-compressed'],
    ['BZh91AY&SY', 'bzip2-compressed'],
    ['LPKSHHRH\0\0\0', 'journalctl'],
    [Buffer.from('\ufefftcp 6\n', 'utf16le'), 'UTF-16'],
    [Buffer.from('tcp 6 5 SYN\n', 'utf16le'), 'UTF-16'],
  ])('%j', async (bytes, likely) => {
    const [sentence, ...rest] = await told(bytes)
    expect(sentence).toMatch(/^nothing is understood \(\d+ lines?\); the first of them: "/)
    expect(sentence!.split('it looks like ')[1]).toContain(likely)
    expect(sentence).toContain('looked for: conntrack-text')
    expect(rest).toEqual([])
  })

  test('the first line is cut, and nothing in it reaches a terminal', async () => {
    const [sentence] = await told(`\x1b[2J\u009b${'x'.repeat(5000)}\n`)
    expect(sentence).not.toMatch(/[^\x20-\x7e]/)
    expect(sentence!.length).toBeLessThan(500)
  })

  test('from some line on', async () => {
    expect((await told(`${row.repeat(60)}${'hello there\n'.repeat(30)}`))[0]).toMatch(/^from line 61 on nothing is understood \(30 lines\); the first of them: "hello there"/)
  })
})

test.each(['', '\n\n\n', row, `${row}a footer\n`, 'Nov 22 10:00:00 gw sshd[1]: hello\n'.repeat(50), `${row}${'[    1.000000] usb 1-1: new device\n'.repeat(50)}`])('nothing to say of %j', async (text) => {
  expect(await told(text)).toEqual([])
})
