// SPDX-License-Identifier: Apache-2.0

package import Configuration
internal import Glibc

/// The program as the shell sees it: its arguments, its streams, its exit code.
package enum Program {
    /// The settings from the command line and the environment. Prints help, or says what is wrong,
    /// and exits, where there are none.
    package static func settings(_ table: SettingTable) -> Settings {
        do throws(UsageError) {
            let invocation = try Settings.parse(
                table, arguments: Array(CommandLine.arguments.dropFirst()),
                environment: environment)
            switch invocation {
            case .run(let settings): return settings
            case .help(let text):
                print(text)
                end(0)
            }
        } catch {
            fail("\(table.process): \(error)", code: 2)
        }
    }

    package static var environment: [String: String] {
        var found: [String: String] = [:]
        var next = environ
        while let entry = next.pointee {
            let text = String(cString: entry)
            if let equals = text.firstIndex(of: "=") {
                found[String(text[..<equals])] = String(text[text.index(after: equals)...])
            }
            next += 1
        }
        return found
    }

    /// Writes to stdout: what a command found.
    package static func print(_ text: String) { write(text, to: STDOUT_FILENO) }

    /// Writes to stderr: what a command says about itself.
    package static func say(_ text: String) { write(text + "\n", to: STDERR_FILENO) }

    /// Says on stderr that something is done.
    package static func succeed(_ text: String) { say("\(mark("✓", color: 32)) \(text)") }

    /// Ends a command because its user interrupted it.
    package static func abort() -> Never { fail(mark("■ [ABORTED]", color: 31), code: 130) }

    /// Coloured where people look at stderr, unless they want no colours.
    private static func mark(_ text: String, color: Int) -> String {
        let isPlain = isatty(STDERR_FILENO) == 0 || environment["NO_COLOR"]?.isEmpty == false
        return isPlain ? text : "\u{1B}[\(color)m\(text)\u{1B}[0m"
    }

    package static func fail(_ message: String, code: Int32) -> Never {
        say(message)
        end(code)
    }

    /// Ends the process at once. Threads that still run are not waited for, nor are their globals
    /// torn down under them.
    package static func end(_ code: Int32) -> Never { _exit(code) }

    private static func write(_ text: String, to file: Int32) {
        var text = text
        text.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while !rest.isEmpty {
                let written = Glibc.write(file, rest.baseAddress, rest.count)
                if written < 0 && errno == EINTR { continue }
                // Nobody reads it: there is nobody to tell.
                guard written > 0 else { return }
                rest = UnsafeRawBufferPointer(rebasing: rest[written...])
            }
        }
    }
}

/// How many descriptors this process may have open.
enum Descriptors {
    /// Enough for all clients that a server takes, and for its own sockets.
    private static let wanted: rlim_t = 65_536

    /// Raises what a shell allows (commonly 1,024) as far as the system lets everybody.
    static func raiseLimit() {
        let kind = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        guard getrlimit(kind, &limit) == 0, limit.rlim_cur < wanted else { return }
        limit.rlim_cur = min(limit.rlim_max, wanted)
        // Refused, the process goes on with what it has: servers rest while they have none left.
        _ = setrlimit(kind, &limit)
    }
}
