#!/usr/bin/env bash
# The tests on other releases of Node.js, each as its npm package brings it: test/nodes.sh 22 24. Without arguments on all that are supported.
set -uo pipefail
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- 20 22 24 26
arch=$(node -p process.arch)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
results=${CONNTRAIL_TEST_RESULTS:-}
status=0
for major in "$@"; do
  mkdir "$folder/$major"
  (cd "$folder" && npm pack --silent "node-linux-$arch@$major" >/dev/null && tar -xzf "node-linux-$arch-$major".*.tgz -C "$major" --strip-components=1) || exit 1
  echo "Node.js $("$folder/$major/bin/node" --version)"
  # results of each beside those of the first: NAME.24.json
  if [ -n "$results" ]; then export CONNTRAIL_TEST_RESULTS="${results%.json}.$major.json"; fi
  PATH="$folder/$major/bin:$PATH" npm test || status=1
done
exit $status
