# The yardstick of the benchmark: mawk splits lines of `conntrack -E -o timestamp,id,extended` at
# blanks and prints the tag, the timeout, the state and every key=value as one JSON object a line.
# One pass, no regular expression, every value a string; the second key of a name is key2, the
# conntrack id id3 (an ICMP line has two other ids). A `src=` is the only key of three letters
# behind the first `dst=`: there the reply begins.
#
# Tried with mawk 1.3.4 on 300 thousand lines of generate.mjs, /dev/null out, thousand lines a
# second, medians of 10 alternating runs (ranges of 10-40 %):
#   594  this one: fixed texts and substr() as arguments of one print, OFS and ORS empty
#   625  with a table from key to finished text: knows its keys beforehand, so not kept
#   588  with the field copied to a variable, or NF in a variable: no difference
#   571  print KEY, VALUE with OFS `":"` and ORS `","`; ifs in place of the first loop
#   492  numbers unquoted (a regular expression for each value)
#   484  split(FIELD, pair, "=") in place of index() and substr()
#   465  print KEY, VALUE; the reply found by comparing each key with "src"
#   458  FS "=": the next key stands behind the value's blank, key texts from a table filled on sight
#   432  one string a line, printed at its end, otherwise as here
#   279  printf for each pair, a table of keys seen
#   278  fields rewritten in place, NF cut, print $0
#   241  one string a line, a table of keys seen, a number test for each value: what one writes first
# Against the rules: 857 with every position and key of each kind of line written out (prints what
# it knows, not every key=value); 1,429 with two gsub() over the line (regular expressions, and
# words without a key, so no object). `-F'[ =]'` is a regular expression too.
BEGIN { OFS = ORS = "" }
{
  print "{\"event\":\"", $2
  for (i = 7; !index($i, "="); i++) print $i + 0 ? "\",\"timeout\":\"" : "\",\"state\":\"", $i
  print "\",\"src\":\"", substr($i, 5), "\",\"dst\":\"", substr($++i, 5)
  while ((p = index($++i, "=")) != 4) if (p) print "\",\"", substr($i, 1, p - 1), "\":\"", substr($i, p + 1)
  print "\",\"src2\":\"", substr($i, 5), "\",\"dst2\":\"", substr($++i, 5)
  while (++i < NF) if (p = index($i, "=")) print "\",\"", substr($i, 1, p - 1), "2\":\"", substr($i, p + 1)
  print "\",\"id3\":\"", substr($i, 4), "\"}\n"
}
