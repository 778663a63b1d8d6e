# SPDX-License-Identifier: Apache-2.0
"""Tells whose the sampled allocations are: mallocs.py PREFIX COP-PID JSON, while the cell runs.

Reads what `bench` kept of each load of its allocation scenario: PREFIX.PID.LABEL, copies of what
mallocs.c left with MALLOCS_SAMPLE=N. For each process that cop started and each load, prints the
frames that allocations came from most often; the shares that are our own go to JSON, as a part
of a benchmark's results.

An allocation belongs to the innermost frame, inlined ones counted, of a module that is not the
allocator, the C library, the Swift runtime or one of Swift's standard libraries (and DequeModule,
whose types hold what their user puts in). It is ours if that is a module of this project; libpq,
libcurl and whatever else is a shared library are modules. What has no such frame is the
runtime's own, and counts as ours as well: nobody else asked for it.
"""

import collections
import glob
import json
import os
import re
import struct
import subprocess
import sys

STACKS, FRAMES = 65536, 32
# Wanted by whoever called them.
NEUTRAL_FILES = ("libc.so", "libc-", "ld-linux", "libswift", "libstdc++", "libgcc_s", "libm.so",
                 "libdispatch", "libBlocksRuntime", "libpthread", "mallocs.so", "lib_Foundation",
                 "libFoundation")
NEUTRAL_MODULES = {"Swift", "_Concurrency", "Synchronization", "_StringProcessing", "Foundation",
                   "FoundationEssentials", "Glibc", "Dispatch", "DequeModule", "__C",
                   "InternalCollectionsUtilities", "_SwiftConcurrencyShims", "SwiftShims"}
WRAPPERS = re.compile(
    r"^(closure #\d+ |implicit closure #\d+ |partial apply( forwarder)? for |merged |"
    r"suspend resume partial function for |@objc |static |override |default argument \d+ of |"
    r"\(\d+\) (suspend|await) resume partial function for |specialized |infix |prefix |"
    r"generic specialization |function signature specialization |variable initialization "
    r"expression of |protocol witness for |dispatch thunk of |async function pointer to |"
    r"generic not re-abstracted specialization |generic partial specialization |vtable thunk for |"
    r"one-time initialization function for |lazy \w+ for |inlined generic function |"
    r"property wrapper backing initializer of |curry thunk of |autoclosure #\d+ |"
    r"re-abstracted generic specialization |unsafeMutableAddressor of )")


def our_modules():
    """The names of what is built from Sources."""
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    text = open(os.path.join(root, "Package.swift")).read()
    # Libraries and roles, and the programs by their lower-case names; not what they link.
    found = {name for name in re.findall(r'"([A-Z][A-Za-z0-9]+)"', text)
             if not name.startswith(("NIO", "Deque", "Logging"))}
    for top in ("Sources", "Sources/Shared"):
        for name in os.listdir(os.path.join(root, top)):
            found |= {name, name + "Role", name.lower()}
    return found


OURS = our_modules()
# What they do is done for others.
BASES = {"Primitives"}


def behind(text, word):
    """What comes after a word that is in no brackets."""
    depth = 0
    for i, c in enumerate(text):
        if c in "<([{":
            depth += 1
        elif c in ">)]}":
            depth -= 1
        elif depth == 0 and text.startswith(word, i):
            return text[i + len(word):]
    return None


def swift_module(name):
    """The module of a demangled Swift function; none where it has none."""
    text = name.replace("->", "~")
    for _ in range(20):
        found = WRAPPERS.match(text)
        if not found:
            break
        word, text = found.group(0), text[found.end():]
        if "closure #" in word:
            text = behind(text, " in ") or ""
        elif "specialization" in word:
            text = behind(text, " of ") or behind(" " + text, " of ") or ""
        elif word.startswith("protocol witness"):
            text = behind(text, " in conformance ") or text
    if text.startswith("(extension in "):
        return text[14:].split(")")[0]
    found = re.match(r"(\w+)\.", text)
    return found.group(1) if found else None


def mapped(pid):
    """(start, end, offset, path) of what is mapped to be executed."""
    found = []
    for line in open(f"/proc/{pid}/maps"):
        words = line.split()
        if "x" in words[1] and len(words) > 5 and words[5].startswith("/"):
            start, end = (int(x, 16) for x in words[0].split("-"))
            found.append((start, end, int(words[2], 16), words[5]))
    return found


def function_names(path, offsets):
    """For each offset the functions there, the innermost first, demangled."""
    offsets = sorted(offsets)
    # A line per address, begun by it, then one for each function and one for its place.
    text = subprocess.run(
        ["addr2line", "-a", "-i", "-f", "-e", path], input="\n".join(hex(o) for o in offsets),
        capture_output=True, text=True, check=True).stdout
    plain = subprocess.run(
        ["swift", "demangle", "--compact"], input=text, capture_output=True, text=True,
        check=True).stdout.split("\n")
    out, i = {}, 0
    while i < len(plain):
        if not plain[i].startswith("0x"):
            i += 1
            continue
        offset, i, names = int(plain[i], 16), i + 1, []
        while i + 1 < len(plain) and not plain[i].startswith("0x"):
            names.append(plain[i])
            i += 2
        out[offset] = names
    return out


class Names:
    """The functions at addresses of a process, with the modules that they belong to."""

    def __init__(self, pid):
        self.mapped = mapped(pid)
        self.program = os.readlink(f"/proc/{pid}/exe")
        self.known = {}

    def place(self, address):
        for start, end, offset, path in self.mapped:
            if start <= address < end:
                # A return address is behind its call.
                return path, address - start + offset - 1
        return None

    def learn(self, places):
        by_path = collections.defaultdict(set)
        for place in places:
            if place not in self.known:
                by_path[place[0]].add(place[1])
        for path, offsets in by_path.items():
            library = os.path.basename(path)
            if path != self.program:
                owner = None if library.startswith(NEUTRAL_FILES) else library.split(".")[0]
                for offset in offsets:
                    self.known[path, offset] = [(owner, library)]
                continue
            for offset, names in function_names(path, self.addresses(path, offsets)).items():
                self.known[path, offset - self.bias] = [(swift_module(n), n) for n in names]

    def addresses(self, path, offsets):
        """Where the program's file says that these offsets are; it is mapped from there."""
        self.bias = program_bias(path)
        return {offset + self.bias for offset in offsets}


def program_bias(path):
    """What is to be added to a file offset of the code to get its address in the file."""
    text = subprocess.run(["readelf", "-lW", path], capture_output=True, text=True,
                          check=True).stdout
    for line in text.split("\n"):
        words = line.split()
        if len(words) > 6 and words[0] == "LOAD" and "E" in words[6:8]:
            return int(words[2], 16) - int(words[1], 16)
    return 0


def owner(stack, names):
    """(module, function) that an allocation belongs to, and who of ours is behind it."""
    mine = None
    for place in stack:
        for module, function in names.known.get(place, []):
            if module in OURS and module not in BASES:
                mine = mine or function
    for place in stack:
        for module, function in names.known.get(place, []):
            if module is None or module in NEUTRAL_MODULES:
                continue
            return (module, function), mine
    return None, mine


def report(path, pid, label, names):
    data = open(path, "rb").read()
    taken = struct.unpack_from("<Q", data, 24)[0]
    stacks = []
    for i in range(min(taken, STACKS)):
        frames = struct.unpack_from(f"<{FRAMES}Q", data, 32 + i * FRAMES * 8)
        stacks.append([p for p in map(names.place, filter(None, frames)) if p])
    names.learn({place for stack in stacks for place in stack})
    lines, modules = collections.Counter(), collections.Counter()
    for stack in stacks:
        wanted, mine = owner(stack, names)
        module, function = wanted or ("runtime", "-")
        modules[module] += 1
        lines[f"{function[:90]}  <  {(mine or '-')[:90]}"] += 1
    comm = open(f"/proc/{pid}/comm").read().strip()
    ours = sum(n for module, n in modules.items() if module in OURS or module == "runtime")
    print(f"\n{comm} {pid}, {label}: {taken} samples, {ours / max(1, len(stacks)):.1%} ours")
    print("  " + ", ".join(f"{m} {n / len(stacks):.1%}" for m, n in modules.most_common(8)))
    for line, n in lines.most_common(15):
        print(f"{n / len(stacks):6.1%}  {line}")
    return comm, ours, len(stacks)


def main():
    prefix, cop, out = sys.argv[1:4]
    shares = collections.defaultdict(lambda: [0, 0])
    names = {}
    for path in sorted(glob.glob(prefix + ".*.*")):
        pid, label = path[len(prefix) + 1:].split(".", 1)
        stat = f"/proc/{pid}/stat"
        if not os.path.exists(stat) or open(stat).read().rsplit(")", 1)[1].split()[1] != cop:
            continue
        names.setdefault(pid, Names(pid))
        comm, ours, all_of_them = report(path, pid, label, names[pid])
        share = shares[label.replace("-", " "), comm]
        share[0] += ours
        share[1] += all_of_them
    figures = {}
    for (label, comm), (ours, all_of_them) in shares.items():
        if comm in ("channel", "frontend") and all_of_them > 0:
            figures[f"allocations {label} share ours {comm}"] = {
                "value": ours / all_of_them, "unit": ""}
            figures[f"allocations {label} samples {comm}"] = {"value": all_of_them, "unit": ""}
    part = {"date": "", "build": "", "machine": "", "notes": [], "figures": figures,
            "order": list(figures)}
    with open(out, "w") as file:
        json.dump(part, file)


main()
