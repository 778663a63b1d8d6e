# SPDX-License-Identifier: Apache-2.0
# Sourced by run.sh when PROFILE is set: where each role spends its time under loads of its own.
# Needs perf (Debian: linux-perf) and the right to use it; the software clock is enough. Leaves in
# the folder PROFILE, for each load and process, its functions by their own samples, and in
# *.children by those of what they call; *.load is what the load did.
#   PROFILES  some loads only, as in PROFILES=append,cold (append,cold,warm,tasks,streamlets,rest)
mkdir -p "$PROFILE"
PROFILE=$(cd "$PROFILE" && pwd)
profiles=${PROFILES:-append,cold,warm,tasks,streamlets,rest}
profiled() { [[ ",$profiles," == *",$1,"* ]]; }

drive() { # NAME COMMAND OPTION…: starts a load, whose id is in `load`
    local name=$1 command=$2
    shift 2
    "$bench" "$command" --endpoint "$endpoint" --token-file "$token" --cop "$cop" "$@" \
        >"$PROFILE/$name.load" 2>&1 &
    load=$!
}
report() { # FILE OPTION…
    local file=$1
    shift
    perf report "$@" -g none --sort symbol --stdio -i "$file" 2>/dev/null |
        grep -v '^#' | grep -v '^$' | swift demangle --compact | sed 's/[ -]*$//' || true
}
watch() { # NAME SECONDS SAMPLES-PER-SECOND: profiles all processes of the cell
    local id role recorders=() watched
    watched="$cop $(ps -o pid= --ppid "$cop")"
    for id in $watched; do
        role=$(ps -o comm= "$id")
        perf record -q -e cpu-clock -F "$3" -g -p "$id" -o "$data/$1.$role.$id" \
            -- sleep "$2" &
        recorders+=($!)
    done
    for id in "${recorders[@]}"; do wait "$id" || true; done
    for id in $watched; do
        role=$(ps -o comm= "$id")
        report "$data/$1.$role.$id" --no-children --percent-limit 0.5 >"$PROFILE/$1.$role.$id"
        report "$data/$1.$role.$id" --children --percent-limit 2 \
            >"$PROFILE/$1.$role.$id.children"
        rm -f "$data/$1.$role.$id"
    done
}
profile() { # NAME STREAMS RECORDS WINDOW: an append
    drive "$1" load --seconds $((seconds + 2)) --streams "$2" --records "$3" --window "$4"
    sleep 1.5
    watch "$1" "$seconds" 999
    wait "$load" || say "$1: the load failed"
}
profile_reads() { # NAME MEBIBYTES
    drive "$1" reads --mebibytes "$2" --seconds $((seconds + 2))
    for _ in $(seq 400); do
        if grep -q reading "$PROFILE/$1.load" || ! kill -0 "$load" 2>/dev/null; then break; fi
        sleep 1
    done
    sleep 1
    watch "$1" "$seconds" 999
    wait "$load" || say "$1: the load failed"
}

if profiled append; then
    start_cell profile
    profile b100-s1 1 100 40
    profile b1-s64 64 1 1024
    profile one-in-flight 1 1 1
    stop_cell
fi
if profiled cold; then
    # More is read, in turns, than the cachey keeps: each page comes from the buckets again.
    MILLRACE_MEMORY_BYTES=64MiB start_cell profile-cold
    profile_reads read-cold 512
    stop_cell
fi
if profiled warm; then
    start_cell profile-warm
    profile_reads read-warm 512
    stop_cell
fi
if profiled tasks; then
    # Small segments, often: the tasks have to compact and to remove all the time.
    MILLRACE_FLUSH_AGE=1s MILLRACE_FLUSH_BYTES=4MiB MILLRACE_TASK_INTERVAL=1s \
        MILLRACE_CONDEMNED_WAIT=1s MILLRACE_PLAN_WAIT="${PROFILE_PLAN_WAIT:-10s}" \
        start_cell profile-tasks
    drive tasks load --seconds $((2 * seconds + 12)) --streams 16 --records 10 --window 4
    sleep 12
    watch tasks $((2 * seconds)) 1999
    wait "$load" || say "tasks: the load failed"
    stop_cell
fi
if profiled streamlets; then
    MILLRACE_DORMANCY=1h start_cell profile-streamlets
    drive streamlets run --only streamlets --streamlets 100000
    sleep 3
    watch streamlets "$seconds" 1999
    # It would go on for as long as all of them take.
    kill -TERM "$load" 2>/dev/null || true
    wait "$load" || true
    stop_cell
fi
if profiled rest; then
    start_cell profile-rest
    sleep 5
    watch rest $((6 * seconds)) 9999
    stop_cell
fi
