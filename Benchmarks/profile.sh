# SPDX-License-Identifier: Apache-2.0
# Sourced by run.sh when PROFILE is set: where each role spends its time during three appends.
# Needs perf (Debian: linux-perf) and the right to use it; the software clock is enough.
mkdir -p "$PROFILE"
profile() { # NAME BENCH-SCENARIO STREAMS RECORDS WINDOW
    "$bench" load --endpoint "$endpoint" --token-file "$token" --cop "$cop" \
        --seconds $((seconds + 2)) --streams "$2" --records "$3" --window "$4" \
        >"$PROFILE/$1.load" &
    local load=$! id role recorders=()
    sleep 1.5
    for id in $(ps -o pid= --ppid "$cop"); do
        role=$(ps -o comm= "$id")
        perf record -q -e cpu-clock -F 999 -g -p "$id" -o "$data/$1.$role.$id" \
            -- sleep "$seconds" &
        recorders+=($!)
    done
    wait "$load"
    for id in "${recorders[@]}"; do wait "$id" 2>/dev/null || true; done
    for id in $(ps -o pid= --ppid "$cop"); do
        role=$(ps -o comm= "$id")
        perf report --no-children -g none --percent-limit 0.5 --sort symbol --stdio \
            -i "$data/$1.$role.$id" 2>/dev/null | grep -v '^#' | grep -v '^$' |
            swift demangle --compact >"$PROFILE/$1.$role.$id" || true
        perf report --children -g none --percent-limit 2 --sort symbol --stdio \
            -i "$data/$1.$role.$id" 2>/dev/null | grep -v '^#' | grep -v '^$' |
            swift demangle --compact >"$PROFILE/$1.$role.$id.children" || true
    done
}
profile b100-s1 1 100 40
profile b1-s64 64 1 1024
profile one-in-flight 1 1 1
