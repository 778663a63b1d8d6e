// SPDX-License-Identifier: Apache-2.0

internal import Glibc
internal import Shared

/// Becomes bgtask, for the commands that are bgtask's, with the settings that both understand.
enum TaskProgram {
    static func become(_ words: [String], _ settings: Settings) -> Never {
        let folder =
            settings[.programs].isEmpty ? ChildProcesses.ownFolder() : settings[.programs]
        let path = "\(folder)/bgtask"
        var environment = Program.environment
        for setting in SettingTable.bgtask.settings {
            if let text = settings.text(setting.name) { environment[setting.variable] = text }
        }
        let arguments = ([path] + words).map { strdup($0) } + [nil]
        let variables = environment.map { strdup("\($0.key)=\($0.value)") } + [nil]
        execve(path, arguments, variables)
        Program.fail("cop: \(path): \(String(cString: strerror(errno)))", code: 1)
    }
}
