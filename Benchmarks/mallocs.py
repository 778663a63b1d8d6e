# SPDX-License-Identifier: Apache-2.0
"""Names the callers of sampled allocations: mallocs.py PREFIX COP-PID, while the cell runs.

Reads what mallocs.c left with MALLOCS_SAMPLE=N and prints, for each process that cop started, the
frames that allocations came from most often, ours and the libraries' apart.
"""

import collections
import glob
import os
import re
import struct
import subprocess
import sys

STACKS, FRAMES = 8192, 24
ALLOCATORS = ("??", "malloc", "calloc", "realloc", "memalign", "posix_memalign")
OURS = re.compile(r"\b(Primitives|Records|Log|RPC|HTTP|Transport|S3|Postgres|ObjectStorage|"
                  r"Observability|FrontendRole|ChannelRole|CopRole)\.")


def modules(pid):
    """(start, end, offset, path) of what is mapped to be executed."""
    found = []
    for line in open(f"/proc/{pid}/maps"):
        words = line.split()
        if "x" in words[1] and len(words) > 5 and words[5].startswith("/"):
            start, end = (int(x, 16) for x in words[0].split("-"))
            found.append((start, end, int(words[2], 16), words[5]))
    return found


def names(places):
    """The function at each (path, offset)."""
    by_path = collections.defaultdict(set)
    for path, offset in places:
        by_path[path].add(offset)
    out = {}
    for path, offsets in by_path.items():
        offsets = sorted(offsets)
        text = subprocess.run(
            ["addr2line", "-f", "-e", path], input="\n".join(hex(o) for o in offsets),
            capture_output=True, text=True).stdout.split("\n")[::2]
        plain = subprocess.run(
            ["swift", "demangle", "--compact"], input="\n".join(text),
            capture_output=True, text=True).stdout.split("\n")
        for offset, name in zip(offsets, plain):
            out[path, offset] = name
    return out


def report(path, pid):
    data = open(path, "rb").read()
    taken = struct.unpack_from("<Q", data, 24)[0]
    stacks = []
    mapped = modules(pid)
    for i in range(min(taken, STACKS)):
        frames = struct.unpack_from(f"<{FRAMES}Q", data, 32 + i * FRAMES * 8)
        places = []
        for address in frames:
            for start, end, offset, module in mapped:
                if start <= address < end:
                    places.append((module, address - start + offset - 1))
        stacks.append(places)
    named = names({place for stack in stacks for place in stack})
    ours, all_ours = collections.Counter(), 0
    for stack in stacks:
        lines = [named[place] for place in stack]
        # The first frame that is not the runtime's or the allocator's tells who wanted memory.
        first = [n for n in lines if n not in ALLOCATORS
                 and not n.startswith(("swift_", "swift::", "_ZN5swift", "sample", "count"))]
        if not first:
            continue
        mine = next((n for n in first if OURS.search(n)), "-")
        if OURS.search(first[0]):
            all_ours += 1
        ours[first[0][:90] + "  <  " + mine[:90]] += 1
    comm = open(f"/proc/{pid}/comm").read().strip()
    print(f"\n{comm} {pid}: {taken} samples, {all_ours / max(1, len(stacks)):.0%} by our code")
    for name, n in ours.most_common(25):
        print(f"{n / len(stacks):6.1%}  {name}")


prefix, cop = sys.argv[1], sys.argv[2]
for path in sorted(glob.glob(prefix + ".*")):
    pid = path.rsplit(".", 1)[1]
    if not os.path.exists(f"/proc/{pid}/stat"):
        continue
    if open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[1] == cop:
        report(path, int(pid))
