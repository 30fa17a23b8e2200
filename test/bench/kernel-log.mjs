/*
 * Kernel log lines of other matters, as dmesg -w and journalctl bring them by the thousand: lines a second of the whole program beside `grep -c` looking for the
 * one message, and no false event. One line in ten thousand is a full table.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { spread, timed } from './machine.mjs';

// grep that writes to /dev/null would stop at its first match
const SCRIPT = 'program < "$IN" | cat > /dev/null';
const texts = [
  'usb 1-1.2: new high-speed USB device number 5 using xhci_hcd', 'IPv6: ADDRCONF(NETDEV_CHANGE): veth0: link becomes ready', 'EXT4-fs (sda1): mounted filesystem with ordered data mode',
  'audit: type=1400 audit(1795341562.324:77): apparmor="DENIED" operation="open" profile="snap.x"', 'br-1a2b3c: port 2(veth12ab) entered forwarding state',
  'Modules linked in: xt_nat nf_conntrack_netlink nf_conntrack nf_defrag_ipv6 overlay', 'perf: interrupt took too long (2503 > 2500), lowering kernel.perf_event_max_sample_rate to 79750',
  'device veth12ab left promiscuous mode', 'TCP: eth0: Driver has suspect GRO implementation, TCP performance may be compromised.', 'systemd[1]: Started Session 42 of user root.',
];
const full = 'nf_conntrack: nf_conntrack: table full, dropping packet';
const forms = {
  dmesg: (i, text) => `[${(525 + i / 1000).toFixed(6).padStart(12)}] ${text}`,
  kmsg: (i, text) => `6,${i},${525000000 + i * 1000},-;${text}`,
  syslog: (i, text) => `Nov 22 10:${String(Math.floor(i / 60) % 60).padStart(2, '0')}:${String(i % 60).padStart(2, '0')} gw1 kernel: [${(525 + i / 1000).toFixed(6).padStart(12)}] ${text}`,
  json: (i, text) => `{"_TRANSPORT":"kernel","PRIORITY":"6","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","__REALTIME_TIMESTAMP":"${1795341562324145 + i * 1000}","MESSAGE":${JSON.stringify(text)}}`,
};

export async function kernelLog(bench) {
  const lines = bench.quick ? 100_000 : 1_000_000;
  mkdirSync(bench.dir, { recursive: true });
  const rows = [];
  const figures = {};
  for (const [name, form] of Object.entries(forms)) {
    const key = createHash('sha256').update(`${name} ${lines} ${texts.join()}`).digest('hex').slice(0, 12);
    const file = join(bench.dir, `kernel-log-${key}.txt`);
    if (!existsSync(file)) {
      writeFileSync(`${file}.part`, Array.from({ length: lines }, (_, i) => form(i, i % 10_000 === 9_999 ? full : texts[i % texts.length])).join('\n') + '\n');
      renameSync(`${file}.part`, file);
    }
    const variants = [{ program: '"$NODE" "$MAIN"', walls: [] }, { program: 'grep -c "table full"', walls: [] }];
    for (let run = 0; run < bench.runs; run++) {
      for (const variant of variants) {
        bench.note(`kernel log ${run + 1}/${bench.runs}: ${name}`);
        const { wall, stderr } = timed(bench, SCRIPT, variant.program, { IN: file });
        variant.walls.push(wall);
        if (variant !== variants[0]) continue;
        const { kernel, rejected } = stderr.split('\n').filter((line) => line.includes('"msg":"done"')).map((line) => JSON.parse(line))[0];
        if (kernel !== lines / 10_000 || rejected !== 0) throw new Error(`${name}: ${kernel} events and ${rejected} rejects of ${lines / 10_000} and 0`);
      }
    }
    const [ours, grep] = variants.map(({ walls }) => spread(walls.map((wall) => lines / wall)).median);
    figures[name] = { lines_per_second: ours, grep_lines_per_second: grep, ratio: ours / grep };
    rows.push([name, bench.thousands(ours), bench.thousands(grep), (ours / grep).toFixed(2)]);
  }
  bench.table(`Kernel log, ${lines.toLocaleString('en')} lines of other matters, ${bench.runs} alternating runs`, ['', 'thousand lines/s', 'grep -c', 'ratio'], rows);
  bench.verdict('lines a second of the slowest form', Math.min(...Object.values(figures).map((f) => f.lines_per_second)), { atLeast: 200_000, digits: 0 });
  return figures;
}
