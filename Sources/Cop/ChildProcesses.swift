// SPDX-License-Identifier: Apache-2.0

internal import CopRole
internal import Glibc
internal import Shared

/// Provisions the cell's processes as children on this host.
///
/// Each child's standard input is a pipe of which cop holds the other end: when cop is gone,
/// however it went, the child reads its end and drains by itself. A thread waits for each child;
/// the loop then reaps it, so that no signal goes to an id that is another's already. Children have
/// process groups of their own: Ctrl-C reaches cop alone, which drains them in order.
final class ChildProcesses: Provisioner {
    private let settings: Settings
    private let loop: any Loop
    private let programs: String

    init(settings: Settings, loop: any Loop) {
        self.settings = settings
        self.loop = loop
        programs = settings[.programs].isEmpty ? Self.ownFolder() : settings[.programs]
    }

    func start(
        _ kind: ProcessKind, number: Int, ended: @escaping (String) -> Void
    ) throws(ProvisionError) -> any ProvisionedProcess {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { throw Self.error("pipe", errno) }
        defer { close(ends[0]) }
        Self.keepDescriptors()
        let words = ["\(programs)/\(kind.rawValue)"] + arguments(kind, number)
        let id: pid_t
        do throws(ProvisionError) {
            id = try Self.spawn(words, environment(kind), input: ends[0])
        } catch {
            close(ends[1])
            throw error
        }
        let child = Child(id: id, lifeline: ends[1], ended: ended)
        let bound = LoopBound(child)
        runOnThread { [loop] in
            Self.awaitEnd(of: id)
            loop.execute { bound.value.isOver() }
        }
        return child
    }

    /// What differs from child to child; everything else they take from the environment.
    private func arguments(_ kind: ProcessKind, _ number: Int) -> [String] {
        let layout = CellLayout(settings)
        let words =
            switch kind {
            case .channel: layout.channel(number)
            case .frontend: layout.frontend(number)
            case .cachey: layout.cachey(number)
            case .bgtask: ["serve"] + layout.bgtask(number)
            }
        return words + ["--supervised"]
    }

    /// Cop's own environment, and over it every setting that cop shares with the child: one that
    /// came by the command line counts for the children as well.
    private func environment(_ kind: ProcessKind) -> [String] {
        var environment = Program.environment
        let table: SettingTable =
            switch kind {
            case .channel: .channel
            case .frontend: .frontend
            case .cachey: .cachey
            case .bgtask: .bgtask
            }
        for setting in table.settings where setting.name != Setting<Bool>.superviseByStdin.name {
            if let text = settings.text(setting.name) { environment[setting.variable] = text }
        }
        return environment.map { "\($0.key)=\($0.value)" }
    }

    static func ownFolder() -> String {
        var path = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        let count = readlink("/proc/self/exe", &path, path.count - 1)
        guard count > 0 else { return "." }
        let text = String(decoding: path.prefix(count).map(UInt8.init(bitPattern:)), as: UTF8.self)
        return text.lastIndex(of: "/").map { String(text[..<$0]) } ?? "."
    }
}

/// A child. Until it is reaped, which happens here, its id is certainly its own.
private final class Child: ProvisionedProcess {
    private let id: pid_t
    private let lifeline: Int32
    private let ended: (String) -> Void
    private var hasEnded = false

    init(id: pid_t, lifeline: Int32, ended: @escaping (String) -> Void) {
        self.id = id
        self.lifeline = lifeline
        self.ended = ended
    }

    var label: String { "pid \(id)" }
    func drain() { signal(SIGTERM) }
    func kill() { signal(SIGKILL) }

    private func signal(_ number: Int32) {
        if !hasEnded { _ = Glibc.kill(id, number) }
    }

    /// It has ended, and was not reaped.
    func isOver() {
        hasEnded = true
        close(lifeline)
        ended(reap())
    }

    /// Says how it ended.
    private func reap() -> String {
        var status: Int32 = 0
        while waitpid(id, &status, 0) < 0 {
            guard errno == EINTR else { return "it cannot be waited for" }
        }
        let signal = status & 0x7F
        return signal == 0 ? "exited with \((status >> 8) & 0xFF)" : "killed by signal \(signal)"
    }
}

extension ChildProcesses {
    private static func spawn(
        _ words: [String], _ environment: [String], input: Int32
    ) throws(ProvisionError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO)
        // Cop blocks the signals that it waits for; a child begins with none blocked.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETSIGMASK) | Int16(POSIX_SPAWN_SETPGROUP))
        var arguments = words.map { strdup($0) } + [nil]
        var variables = environment.map { strdup($0) } + [nil]
        defer { for text in arguments + variables { free(text) } }
        var id: pid_t = 0
        let result = posix_spawn(&id, words[0], &actions, &attributes, &arguments, &variables)
        guard result == 0 else { throw error(words[0], result) }
        return id
    }

    /// No descriptor but the standard ones goes to a child: neither the ends of pipes, which would
    /// keep them open, nor listening sockets, which would keep their ports. Only this loop starts
    /// processes, so none is in between.
    private static func keepDescriptors() {
        guard let folder = opendir("/proc/self/fd") else { return }
        defer { closedir(folder) }
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if let file = Int32(name), file > 2 { _ = fcntl(file, F_SETFD, FD_CLOEXEC) }
        }
    }

    /// Blocks until the child has ended, and leaves it to be reaped.
    private static func awaitEnd(of id: pid_t) {
        var how = siginfo_t()
        while waitid(P_PID, id_t(id), &how, WEXITED | WNOWAIT) != 0, errno == EINTR {}
    }

    private static func error(_ what: String, _ number: Int32) -> ProvisionError {
        ProvisionError("\(what): \(String(cString: strerror(number)))")
    }
}
