// SPDX-License-Identifier: Apache-2.0

/// Everything that one process lets itself be told.
package struct SettingTable: Sendable {
    /// The executable's name.
    package let process: String
    /// What it is, in one sentence.
    package let summary: String
    /// Command words and what they do; empty where the process takes none.
    package let commands: [(usage: String, help: String)]
    package let settings: [any AnySetting]

    package init(
        process: String, summary: String, commands: [(usage: String, help: String)] = [],
        settings: [any AnySetting]
    ) {
        precondition(Set(settings.map(\.name)).count == settings.count, "a setting is listed once")
        precondition(
            settings.allSatisfy { $0.fallback.map($0.accepts) ?? true },
            "a setting accepts its own fallback")
        self.process = process
        self.summary = summary
        self.commands = commands
        self.settings = settings
    }
}

/// What was asked of a process: to run with settings, or to explain itself.
package enum Invocation: Sendable {
    case run(Settings)
    /// The text that answers `--help`.
    case help(String)
}

/// The settings of a running process, complete and checked.
package struct Settings: Sendable {
    /// What stood on the command line besides options, in order.
    package let arguments: [String]
    private let texts: [String: String]
    private let process: String

    package subscript<Value>(_ setting: Setting<Value>) -> Value {
        guard let text = texts[setting.name], let value = setting.parse(text) else {
            preconditionFailure("\(process) does not list the setting \(setting.name)")
        }
        return value
    }

    /// The text of each setting, by name, in the table's order: to pass on, or to log.
    package func text(_ name: String) -> String? { texts[name] }

    /// Reads the command line (without the program's name) over the environment over the defaults.
    package static func parse(
        _ table: SettingTable, arguments: [String], environment: [String: String]
    ) throws(UsageError) -> Invocation {
        var given: [String: (text: String, source: String)] = [:]
        var positional: [String] = []
        for setting in table.settings {
            if let text = environment[setting.variable] {
                given[setting.name] = (text, setting.variable)
            }
        }
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            if argument == "--help" || argument == "-h" { return .help(table.help) }
            if argument == "--" {
                positional += rest
                break
            }
            guard argument.hasPrefix("--") else {
                positional.append(argument)
                continue
            }
            let (setting, text) = try table.option(argument, &rest)
            given[setting.name] = (text, setting.option)
        }
        var texts: [String: String] = [:]
        for setting in table.settings {
            if let (text, source) = given[setting.name] {
                guard setting.accepts(text) else {
                    throw UsageError(
                        "\(source): \"\(text)\" is not of the form \(setting.form)"
                            + " (\(setting.help))"
                    )
                }
                texts[setting.name] = text
            } else if let fallback = setting.fallback {
                texts[setting.name] = fallback
            } else {
                throw UsageError(
                    "\(setting.option) or \(setting.variable) must be set: \(setting.help)")
            }
        }
        return .run(Settings(arguments: positional, texts: texts, process: table.process))
    }
}

extension SettingTable {
    /// The setting that `argument` names, and its text: behind `=`, or the next argument.
    fileprivate func option(
        _ argument: String, _ rest: inout ArraySlice<String>
    ) throws(UsageError) -> (any AnySetting, String) {
        let body = argument.dropFirst(2)
        let name = String(body.prefix { $0 != "=" })
        guard let setting = settings.first(where: { $0.name == name }) else {
            throw UsageError("unknown option --\(name); see \(process) --help")
        }
        if let equals = body.firstIndex(of: "=") {
            return (setting, String(body[body.index(after: equals)...]))
        }
        if setting.isFlag { return (setting, "true") }
        guard let text = rest.popFirst() else {
            throw UsageError("--\(name) needs a value: \(setting.form)")
        }
        return (setting, text)
    }

    /// What `--help` prints.
    package var help: String {
        var text = "\(process): \(summary)\n\nusage: \(process)"
        text += commands.isEmpty ? " [options]\n" : " COMMAND [options]\n"
        if !commands.isEmpty {
            text += "\ncommands:\n"
            for command in commands { text += "  \(command.usage)\n      \(command.help)\n" }
        }
        text += "\noptions (each also as an environment variable):\n"
        for setting in settings {
            text += "  \(setting.option) \(setting.form)   \(setting.variable)\n"
            text += "      \(setting.help) (\(setting.defaultNote))\n"
        }
        return text
    }

    /// The table in Markdown.
    package var markdown: String {
        var text = "## \(process)\n\n\(summary)\n\n"
        text += "| option | variable | value | default | meaning |\n|---|---|---|---|---|\n"
        for setting in settings {
            let form = setting.form.map { $0 == "|" ? "\\|" : String($0) }.joined()
            let fallback =
                setting.fallback.map { $0.isEmpty ? "empty" : "`\($0)`" } ?? "must be set"
            text += "| `\(setting.option)` | `\(setting.variable)` | \(form) | \(fallback)"
            text += " | \(setting.help) |\n"
        }
        return text
    }
}

extension AnySetting {
    fileprivate var defaultNote: String {
        switch fallback {
        case nil: "must be set"
        case ""?: "default: empty"
        case let text?: "default: \(text)"
        }
    }
}

/// The command line or the environment makes no sense: the process says why, and exits with 2.
package struct UsageError: Error, Sendable, Equatable, CustomStringConvertible {
    package let description: String
    package init(_ description: String) { self.description = description }
}
