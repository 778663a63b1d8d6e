#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Runs the tests with a real Postgres and a real S3 server, started here and always stopped.
# Arguments go to `swift test`; without any, the benchmarks are tried as well.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here"
deploy/install-packages.sh --tests
scratch=$(mktemp -d /tmp/millrace-test.XXXXXX)
chmod 0755 "$scratch"

stop() {
    trap '' INT TERM HUP
    for service in postgres s3; do
        if [ -d "$scratch/$service" ]; then
            Tests/Support/$service.sh stop "$scratch/$service" || true
        fi
    done
    rm -rf "$scratch"
}
trap stop EXIT
trap 'exit 130' INT TERM HUP

for service in postgres s3; do
    Tests/Support/$service.sh start "$scratch/$service"
    # shellcheck disable=SC1091
    . "$scratch/$service/env"
done
if [ -z "${MILLRACE_TEST_PYTHON:-}" ]; then
    if [ ! -x .build-venv/bin/python ] || ! .build-venv/bin/python -c 'import s2_sdk' 2>/dev/null; then
        echo "installing the S2 SDK that the tests use …" >&2
        rm -rf .build-venv
        python3 -m venv .build-venv
        .build-venv/bin/pip -q install s2-sdk==0.13.0
    fi
    export MILLRACE_TEST_PYTHON=$here/.build-venv/bin/python
fi

flags=()
if [ -n "${CI:-}" ]; then flags+=(-Xswiftc -warnings-as-errors); fi
mkdir "$scratch/uses"
export MILLRACE_TEST_USES=$scratch/uses
status=0
swift build --build-tests "${flags[@]}" || status=$?
if [ $status = 0 ]; then
    # One after the other: some tests bound how long a call may take.
    swift test --skip-build --no-parallel "${flags[@]}" --xunit-output "$scratch/tests.xml" "$@" 2>&1 |
        tee "$scratch/tests.log" || status=$?
fi
if [ $status = 0 ] && [ $# = 0 ]; then
    Benchmarks/smoke.sh "${flags[@]}" || status=$?
fi

# Whoever takes a real service for a test notes the test's name in a file.
report=$scratch/tests-swift-testing.xml
uses() { if [ -f "$scratch/uses/$1" ]; then sort -u "$scratch/uses/$1" | wc -l; else echo 0; fi; }
if [ -f "$report" ]; then
    echo "tests run: $(grep -o "<testcase " "$report" | wc -l); on Postgres: $(uses postgres);" \
        "on S3: $(uses s3); on whole cells: $(uses cell)"
    if grep -q "<failure" "$report"; then status=1; fi
fi
# Hundreds of lines may lie behind a failure: what failed is told once more, last.
if [ $status != 0 ] && [ -f "$scratch/tests.log" ]; then
    awk '/^✘ .* recorded an issue/ { shown = 1; print; next }
        shown && /^↳/ { print; next }
        { shown = 0 }' "$scratch/tests.log" | uniq | head -n 40
fi
exit $status
